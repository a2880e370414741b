"""What brings events about a region, and what can change it without any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..model import EventKind, LookArgument, Protection, Status
from ..notebook import Described

Numbers = NDArray[np.int64]
Rows = NDArray[np.void]

FOUND_EXECUTABLE = (EventKind.BASELINE, EventKind.EXEC_MAPPING)
#: Results from -4095 to -1 are errors (include/linux/err.h).
_LARGEST_ERRNO = 4095
#: Counts from a file beyond this are no counts, and would overflow a sum.
_COUNT_LIMIT = 1 << 32


@dataclass(frozen=True, slots=True)
class Triggers(Described):
    """What brought the events of a region, in numbers.

    ``calls`` are its own process's, the coalesced ones included; ``found`` counts where it was
    executable already, after execve or at attach. ``looks``, ``passes`` and ``samples`` are those
    that found something new. ``late`` counts the pages that user space read some time after.
    """

    calls: int = 0
    found: int = 0
    looks: int = 0
    passes: int = 0
    samples: int = 0
    late: int = 0


def succeeded(events: Rows) -> NDArray[np.bool_]:
    """Return which event records are of calls that changed something, if only a part."""
    result: NDArray[np.bool_] = (events["result"] >= 0) | (events["result"] < -_LARGEST_ERRNO)
    result |= (events["status"] & Status.PARTIAL) != 0
    return result


def open_to_writes(events: Rows) -> NDArray[np.bool_]:
    """Return which event records are of memory that could change without a call while executable.

    It was writable itself, or shared with another mapping or an open file that can be written to.
    """
    protection = events["protection"]
    status = events["status"]
    viewed = (status & Status.VIEWED) != 0
    result: NDArray[np.bool_] = ((protection & Protection.WRITE) != 0) | viewed
    result &= ((protection & Protection.EXEC) != 0) & (events["kind"] < EventKind.FORK)
    result &= (status & Status.WATCHED) == 0  # who writes to it faults
    return result & succeeded(events)


def count_triggers(events: Rows, heads: Numbers) -> dict[str, Numbers]:
    """Count the events from each of ``heads`` to the next by what brought them, by field of ``Triggers``."""
    kinds, arguments = events["kind"], events["arguments"]
    found, looks = np.isin(kinds, FOUND_EXECUTABLE), kinds == EventKind.LOOK
    samples = kinds == EventKind.SAMPLE
    # A pass comes from the recorder, before no call of anybody.
    passes = looks & ~arguments[:, : LookArgument.CALLER].any(axis=1)
    caller = arguments[:, LookArgument.CALLER]
    passes &= (caller != 0) & (caller != events["pid"])
    coalesced = np.minimum(events["coalesced"], _COUNT_LIMIT).astype(np.int64)
    counts = {
        "calls": ~(found | looks | samples) + coalesced,
        "found": found,
        "looks": looks & ~passes,
        "passes": passes,
        "samples": samples,
    }
    return {name: np.add.reduceat(count.astype(np.int64), heads) for name, count in counts.items()}

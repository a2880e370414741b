"""Events after which the memory at an address is another than before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..analyze.triggers import succeeded
from ..model import ADDRESS_END, EventKind
from .relations import Relations

_REPLACING = (EventKind.MMAP, EventKind.MUNMAP, EventKind.EXEC_MAPPING)


class Replacement(NamedTuple):
    """From ``ordinal`` on, nothing that was in [start, end) of the process is there any more."""

    ordinal: int
    timestamp_ns: int
    process: int
    start: int
    end: int
    #: Something else is there now; otherwise nothing is, as far as this event says.
    anew: bool


def replacements(relations: Relations, process: int | None = None) -> list[Replacement]:
    """Return the replacements in order, of all processes or of one."""
    events = relations.events
    chosen = np.isin(events["kind"], _REPLACING) & succeeded(events)
    chosen |= events["kind"] == EventKind.EXEC
    if process is not None:
        chosen &= relations.event_process == process
    numbers = np.flatnonzero(chosen)
    numbers = numbers[np.argsort(events["ordinal"][numbers], kind="stable")]
    names = ("ordinal", "timestamp_ns", "kind", "address", "length")
    columns = (events[name][numbers].tolist() for name in names)
    found = zip(relations.event_process[numbers].tolist(), *columns, strict=True)
    return [
        Replacement(ordinal, timestamp, of, 0, ADDRESS_END, anew=True)
        if kind == EventKind.EXEC
        else Replacement(
            ordinal,
            timestamp,
            of,
            address,
            min(address + length, ADDRESS_END),
            anew=kind != EventKind.MUNMAP,
        )
        for of, ordinal, timestamp, kind, address, length in found
    ]

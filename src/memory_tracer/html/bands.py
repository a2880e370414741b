"""What the timeline draws: each region's protection over time, and when its generations came.

A band begins with the region's first event and ends when all of it is unmapped or mapped anew, or
when its process ends or executes another program. An event on a larger range counts for the regions
that lie in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..analyze.triggers import succeeded
from ..model import EventKind

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture
    from ..capture.relations import Relations

#: Changes of protection, and generations, of one region that are drawn.
MOST_STEPS = 250
#: Protection of a band that has ended.
GONE = -1

#: Events after which other memory is at an address, if any.
_REPLACES = frozenset(
    {EventKind.MMAP, EventKind.MUNMAP, EventKind.MREMAP, EventKind.EXEC_MAPPING, EventKind.SHMAT}
)
_ENDS_ALL = frozenset({EventKind.EXEC, EventKind.EXIT})


@dataclass(slots=True)
class Band:
    """One region's part of the timeline, times in nanoseconds since boot.

    ``steps`` are times and the protection from then on. ``generations`` is how many there are,
    ``marks`` the times of those that are drawn, with their numbers; ``more_steps`` says that further
    changes of protection are not drawn.
    """

    steps: list[tuple[int, int]] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)
    generations: int = 0
    more_steps: bool = False

    def change(self, time: int, protection: int) -> None:
        """Add a change of protection, if it is one."""
        if self.steps and self.steps[-1][1] == protection:
            return
        if len(self.steps) >= MOST_STEPS and protection != GONE:
            self.more_steps = True
        else:
            self.steps.append((time, protection))


class _Places:
    """Which of the regions lie in a range of one process's memory."""

    def __init__(self, processes: Sequence[int], histories: Sequence[RegionHistory]) -> None:
        self._of_process: dict[int, list[int]] = {}
        for number, process in enumerate(processes):
            self._of_process.setdefault(process, []).append(number)
        self._starts = np.array([history.region.start for history in histories], np.uint64)
        self._lengths = np.array([history.region.length for history in histories], np.uint64)
        self._known: dict[tuple[int, int, int], list[int]] = {}

    def of(self, process: int) -> list[int]:
        """Return all regions of a process."""
        return self._of_process.get(process, [])

    def within(self, process: int, start: int, length: int) -> list[int]:
        """Return those that lie in the range as a whole."""
        key = process, start, length
        if key not in self._known:
            numbers = np.array(self.of(process), np.int64)
            before = self._starts[numbers] - np.uint64(start)  # wraps where the region begins earlier
            lengths = self._lengths[numbers]
            inside = (self._starts[numbers] >= start) & (lengths <= length)
            inside[inside] &= before[inside] <= np.uint64(length) - lengths[inside]
            self._known[key] = numbers[inside].tolist()
        return self._known[key]


def bands(capture: Capture, histories: Sequence[RegionHistory]) -> list[Band]:
    """Return the band of each of ``histories``."""
    relations = capture.relations
    processes = [relations.process_number(each.pid, each.process_start_ns) for each in histories]
    own = {
        (process, history.region.start, history.region.length): number
        for number, (process, history) in enumerate(zip(processes, histories, strict=True))
    }
    result = [Band() for _ in histories]
    _add_steps(relations, result, own, _Places(processes, histories))
    _add_marks(relations, result, own)
    return result


def _add_steps(
    relations: Relations, result: list[Band], own: dict[tuple[int, int, int], int], places: _Places
) -> None:
    events = relations.events
    kinds = events["kind"]
    wanted = ((kinds < EventKind.FORK) & ~relations.event_is_silent & succeeded(events)) | np.isin(
        kinds, list(_ENDS_ALL)
    )
    numbers = np.flatnonzero(wanted)
    numbers = numbers[np.argsort(events["timestamp_ns"][numbers], kind="stable")]
    columns = (events[name][numbers].tolist() for name in ("kind", "timestamp_ns", "address", "length"))
    protections = (events["protection"][numbers] & 7).tolist()
    owners = relations.event_process[numbers].tolist()
    moved = events["arguments"][numbers, :2].tolist()
    for kind, time, start, length, protection, process, source in zip(
        *columns, protections, owners, moved, strict=True
    ):
        if kind in _ENDS_ALL:
            _end(result, places.of(process), time)
            continue
        if kind == EventKind.MREMAP:
            _end(result, places.within(process, *source), time)
        this = own.get((process, start, length))
        after = GONE if kind == EventKind.MUNMAP else protection
        for number in places.within(process, start, length):
            steps = result[number].steps
            if number != this and steps and steps[-1][1] != GONE:
                result[number].change(time, GONE if kind in _REPLACES else after)
        if this is not None:
            result[this].change(time, after)


def _end(result: list[Band], numbers: Sequence[int], time: int) -> None:
    """End those of the bands ``numbers`` that have begun."""
    for number in numbers:
        if result[number].steps:
            result[number].change(time, GONE)


def _add_marks(relations: Relations, result: list[Band], own: dict[tuple[int, int, int], int]) -> None:
    """Add the events that brought a content never seen before at its address."""
    rows, events = relations.rows, relations.events
    stored = np.flatnonzero(relations.row_stored)
    keys = np.empty(len(stored), [("process", "<i8"), ("address", "<u8"), ("generation", "<i8")])
    keys["process"], keys["address"] = relations.row_process[stored], rows["address"][stored]
    keys["generation"] = relations.generations[stored]
    first = np.unique(keys, return_index=True)[1]
    causes = np.unique(relations.row_event[stored[first]])
    causes = causes[np.argsort(events["timestamp_ns"][causes], kind="stable")]
    times: dict[int, list[int]] = {}
    columns = (events[name][causes].tolist() for name in ("address", "length", "timestamp_ns"))
    for process, start, length, time in zip(relations.event_process[causes].tolist(), *columns, strict=True):
        number = own.get((process, start, length))
        if number is not None:
            times.setdefault(number, []).append(time)
    for number, moments in times.items():
        result[number].generations = len(moments)
        drawn = np.unique(np.linspace(0, len(moments) - 1, MOST_STEPS).astype(np.int64)).tolist()
        result[number].marks = [(moments[index], index + 1) for index in drawn]

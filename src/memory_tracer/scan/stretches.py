"""What to scan: each page content once, and each border between two contents that existed side by side.

Records are taken in order of capture. A *stretch* is a row of neighbouring pages of one event whose
contents have not been scanned before, with the page behind it if that is known. A *border* is two
neighbouring pages, of which matches that lie in one page alone are known already.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..capture.columns import Rows
from ..capture.numbering import Numbers, changes, dense, pair
from ..capture.relations import Relations
from ..capture.replacements import replacements
from ..model import PAGE_SIZE

#: Pages of a stretch, at most: 4 MiB.
STRETCH_PAGES = 1024
_NOTHING = -1

#: Process, first address, address after the last.
_Range = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring pages, as rows of ``relations``, that existed at the same time.

    ``own`` of them are new; matches that begin behind these are not the stretch's. Of a ``border``,
    only matches that cross from the first page to the second are new. ``row`` came last.
    """

    rows: tuple[int, ...]
    own: int
    row: int
    border: bool = False


class Walk:
    """Goes through the pages of a capture and finds the stretches.

    Memory is a few machine words per page and per pair of neighbouring contents; no content is read.
    """

    def __init__(self, relations: Relations) -> None:
        self._relations = relations
        self._row_content = array("q", np.where(relations.row_stored, relations.rows["content"], 0).tobytes())
        self._row_stored = relations.row_stored.tobytes()
        #: Pages by process and address; neighbours in memory are neighbours in number.
        self._slots = pair(relations.row_process, dense(relations.rows["address"]))
        count = int(self._slots.max(initial=-1)) + 1
        first = np.zeros(count, np.int64)
        first[self._slots] = np.arange(len(self._slots))
        self._processes = relations.row_process[first]
        self._addresses = relations.rows["address"][first]
        joined = np.zeros(count + 1, np.uint8)
        joined[1:count] = (np.diff(self._addresses) == PAGE_SIZE) & (np.diff(self._processes) == 0)
        #: For each page whether the one before it in number is its neighbour.
        self._joined = joined.tobytes()
        self._held = array("q", [_NOTHING]) * (count + 1)
        self._scanned = bytearray(int(relations.rows["content"][relations.row_stored].max(initial=0)) + 1)
        self._pairs: set[int] = set()

    def places(self) -> Numbers:
        """Return for each content at how many pages, of all processes, it ever was."""
        stored = np.flatnonzero(self._relations.row_stored)
        contents = self._relations.rows["content"][stored].astype(np.int64)
        slots = self._slots[stored]
        order = np.lexsort((slots, contents))
        different = changes(contents[order], slots[order]) if len(order) else order
        return np.bincount(contents[order][different], minlength=len(self._scanned))

    def stretches(self, chosen: Numbers) -> Iterator[Stretch]:
        """Yield the stretches that the rows ``chosen`` bring. The others only say what lay beside them."""
        wanted = np.zeros(len(self._relations.rows), np.bool_)
        wanted[chosen] = True
        is_wanted = wanted.tobytes()
        for rows in self._groups():
            yield from self._of_group(rows, is_wanted)

    def _groups(self) -> Iterator[range]:
        """Yield the rows of each event, after what went before them is forgotten."""
        relations = self._relations
        ordinals = relations.rows["ordinal"]
        heads = changes(relations.row_event) if len(ordinals) else np.zeros(0, np.int64)
        ends = np.append(heads[1:], len(ordinals))
        groups = zip(ordinals[heads].tolist(), map(range, heads.tolist(), ends.tolist()), strict=True)
        gone = ((item.ordinal, (item.process, item.start, item.end)) for item in replacements(relations))
        steps: tuple[Iterator[tuple[int, range | _Range]], ...] = (groups, gone, *self._unknown())
        for _, step in heapq.merge(*steps, key=lambda step: step[0]):
            if isinstance(step, range):
                yield step
            else:
                self._forget(*step)

    def _unknown(self) -> Iterator[Iterator[tuple[int, _Range]]]:
        """Yield the runs of pages that are missing, and of those that are zeros, from then on."""
        relations = self._relations
        yield _ranges(relations.runs, relations.run_process)
        yield _ranges(relations.zeros, relations.zero_process)

    def _forget(self, process: int, start: int, end: int) -> None:
        lowest, highest = np.searchsorted(self._processes, [process, process + 1])
        addresses = self._addresses[lowest:highest]
        first = int(lowest) + int(np.searchsorted(addresses, np.uint64(start)))
        last = int(lowest) + int(np.searchsorted(addresses, np.uint64(min(end, (1 << 64) - 1))))
        if first < last:
            self._held[first:last] = array("q", [_NOTHING]) * (last - first)

    def _of_group(self, rows: range, wanted: bytes) -> Iterator[Stretch]:
        held, slots = self._held, self._slots[rows.start : rows.stop].tolist()
        for row, slot in zip(rows, slots, strict=True):
            held[slot] = row if self._row_stored[row] else _NOTHING
        last = rows[-1]
        touched = sorted({slot for row, slot in zip(rows, slots, strict=True) if wanted[row]})
        new: list[int] = []
        for slot in touched:
            row = held[slot]
            content = self._row_content[row] if row >= 0 else _NOTHING
            fresh = row >= 0 and not self._scanned[content]
            if new and (not fresh or new[-1] + 1 != slot or not self._joined[slot]):
                yield from self._run(new, last)
                new = []
            if fresh:
                self._scanned[content] = 1
                new.append(slot)
        if new:
            yield from self._run(new, last)
        for slot in touched:
            yield from self._border(slot, last)
            yield from self._border(slot + 1, last)

    def _run(self, slots: list[int], last: int) -> Iterator[Stretch]:
        for chunk in _batched(slots):
            rows = [self._held[slot] for slot in chunk]
            behind = chunk[-1] + 1
            if self._joined[behind] and self._held[behind] >= 0:
                rows.append(self._held[behind])
            self._pairs.update(map(self._pair, rows, rows[1:]))
            yield Stretch(tuple(rows), len(chunk), last)

    def _border(self, slot: int, last: int) -> Iterator[Stretch]:
        """Yield the border before page ``slot`` if it is new."""
        before, behind = self._held[slot - 1], self._held[slot]
        if not self._joined[slot] or before < 0 or behind < 0:
            return
        key = self._pair(before, behind)
        if key not in self._pairs:
            self._pairs.add(key)
            yield Stretch((before, behind), 1, last, border=True)

    def _pair(self, before: int, behind: int) -> int:
        return self._row_content[before] << 32 | self._row_content[behind]


def _ranges(table: Rows, processes: Numbers) -> Iterator[tuple[int, _Range]]:
    columns = (table[name].tolist() for name in ("ordinal", "address", "pages"))
    for process, ordinal, address, pages in zip(processes.tolist(), *columns, strict=True):
        yield ordinal, (process, address, address + pages * PAGE_SIZE)


def _batched(slots: list[int]) -> Iterator[list[int]]:
    return (slots[start : start + STRETCH_PAGES] for start in range(0, len(slots), STRETCH_PAGES))

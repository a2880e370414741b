"""The pages of one process over time: what was where from when to when."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from ..capture.numbering import Numbers
from ..capture.relations import Relations
from ..capture.replacements import Replacement, replacements
from ..model import ADDRESS_END

#: From the ordinal at which something was mapped to the one at which it was no longer.
Life = tuple[int, int]
ALWAYS: Life = (-1, ADDRESS_END)


class ProcessPages:
    """The rows of one process by address, and what was mapped anew or unmapped in it."""

    def __init__(self, relations: Relations, process: int, numbers: Numbers) -> None:
        self._rows = relations.rows
        addresses = self._rows["address"][numbers]
        order = np.argsort(addresses, kind="stable")
        self._numbers, self._addresses = numbers[order], addresses[order]
        self._replacements = replacements(relations, process)
        self._starts = np.array([item.start for item in self._replacements], np.uint64)
        self._ends = np.array([min(item.end, ADDRESS_END - 1) for item in self._replacements], np.uint64)

    def rows(self, start: int, end: int, life: Life) -> Numbers:
        """Return the rows of a range in a time, without those of what was mapped over in between."""
        bounds = np.array([start, min(end, ADDRESS_END - 1)], np.uint64)
        first, stop = np.searchsorted(self._addresses, bounds)
        numbers = np.sort(self._numbers[first:stop])
        ordinals, addresses = self._rows["ordinal"][numbers], self._rows["address"][numbers]
        chosen = (ordinals >= max(life[0], 0)) & (ordinals < min(life[1], ADDRESS_END - 1))
        for item in self._replaced(start, end):
            if life[0] < item.ordinal < life[1] and item.anew:
                inside = (addresses >= item.start) & (addresses < min(item.end, ADDRESS_END - 1))
                chosen &= ~inside | (ordinals > item.ordinal)
        kept: Numbers = numbers[chosen]
        return kept

    def lives(self, start: int, end: int) -> list[Life]:
        """Return the times between which something in the range was mapped anew."""
        bounds = [item.ordinal for item in self._replaced(start, end) if item.anew]
        return list(itertools.pairwise([ALWAYS[0], *bounds, ALWAYS[1]]))

    def life(self, address: int, ordinal: int) -> Life:
        """Return the life of what is at ``address`` at ``ordinal``."""
        begin, end = ALWAYS
        for item in self._replaced(address, address + 1):
            if item.ordinal > ordinal:
                return begin, item.ordinal
            begin = item.ordinal
        return begin, end

    def _replaced(self, start: int, end: int) -> Iterator[Replacement]:
        """Yield the replacements that overlap [start, end), in order."""
        near = (self._starts < np.uint64(min(end, ADDRESS_END - 1))) & (self._ends > np.uint64(start))
        return (self._replacements[number] for number in np.flatnonzero(near).tolist())

"""The last content of each page of each process, found by region."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..capture.reader import Capture
    from .regions import RegionHistory


class LatestPages:
    """Answers which pages of a region have bytes, and which these were last."""

    def __init__(self, capture: Capture) -> None:
        self._relations = relations = capture.relations
        self._stored = capture.index.contents
        rows = relations.rows
        stored = np.flatnonzero(relations.row_stored)
        order = stored[np.lexsort((stored, rows["address"][stored], relations.row_process[stored]))]
        process, address = relations.row_process[order], rows["address"][order]
        last = np.ones(len(order), np.bool_)
        last[:-1] = (process[1:] != process[:-1]) | (address[1:] != address[:-1])
        self._processes, self._addresses = process[last], address[last]
        self._contents = rows["content"][order[last]]

    def of(self, history: RegionHistory) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the addresses of the region's pages that have bytes, and the numbers of these."""
        process = self._relations.process_number(history.pid, history.process_start_ns)
        first, last = np.searchsorted(self._processes, [process, process + 1])
        region = history.region
        start, end = np.uint64(region.start), np.uint64(min(region.end, (1 << 64) - 1))
        inside = np.searchsorted(self._addresses[first:last], [start, end])
        part = slice(int(first + inside[0]), int(first + inside[1]))
        return self._addresses[part], self._contents[part]

    def content(self, number: int) -> bytes | None:
        """Return the bytes of a number; None where they are damaged."""
        page = self._stored.page(number)
        return None if page is None else page.content

    def first(self, history: RegionHistory) -> bytes | None:
        """Return the bytes of the region's first page that has any; None where none or damaged."""
        numbers = self.of(history)[1]
        return self.content(int(numbers[0])) if len(numbers) else None

"""What a region's pages look like as last known: an entropy for each, and what the first one is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..analyze.recognize import entropy, first_bytes, recognize
from ..model import PAGE_SIZE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture

#: Pages of one region whose entropy is shown; of a larger one, every n-th.
MOST_CELLS = 256
#: Pages read for all strips together: two or three seconds.
MOST_PAGES = 1 << 16


@dataclass(frozen=True, slots=True)
class Strip:
    """Numbers of pages counted from the region's start, and their entropy in bits per byte.

    ``pages`` is how many have bytes, of which these are some when it is more.
    """

    pages: int
    cells: Sequence[tuple[int, float]]
    looks_like: str | None
    first_bytes: str | None


_EMPTY = Strip(0, (), None, None)


def strips(capture: Capture, histories: Sequence[RegionHistory]) -> Iterator[Strip]:
    """Yield the strip of each of ``histories``; empty once ``MOST_PAGES`` have been read."""
    latest = _Latest(capture)
    entropies: dict[int, float] = {}
    for history in histories:
        addresses, contents = latest.pages(history)
        step = max(1, -(-len(addresses) // MOST_CELLS))
        if not len(addresses) or len(entropies) >= MOST_PAGES:
            yield _EMPTY
            continue
        cells: list[tuple[int, float]] = []
        first: bytes | None = None
        for address, number in zip(addresses[::step].tolist(), contents[::step].tolist(), strict=True):
            if first is None or number not in entropies:
                page = capture.index.contents.page(number)
                if page is None:
                    continue
                first = page.content if first is None else first
                entropies[number] = entropy(page.content)
            cells.append(((address - history.region.start) // PAGE_SIZE, entropies[number]))
        if first is None:
            yield _EMPTY
        else:
            yield Strip(len(addresses), cells, recognize(first), first_bytes(first))


class _Latest:
    """The last content of each page of each process."""

    def __init__(self, capture: Capture) -> None:
        self._relations = relations = capture.relations
        rows = relations.rows
        stored = np.flatnonzero(relations.row_stored)
        order = stored[np.lexsort((stored, rows["address"][stored], relations.row_process[stored]))]
        process, address = relations.row_process[order], rows["address"][order]
        last = np.ones(len(order), np.bool_)
        last[:-1] = (process[1:] != process[:-1]) | (address[1:] != address[:-1])
        self._processes, self._addresses = process[last], address[last]
        self._contents = rows["content"][order[last]]

    def pages(self, history: RegionHistory) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the addresses of the region's pages that have bytes, and the numbers of these."""
        process = self._relations.process_number(history.pid, history.process_start_ns)
        first, last = np.searchsorted(self._processes, [process, process + 1])
        region = history.region
        start, end = np.uint64(region.start), np.uint64(min(region.end, (1 << 64) - 1))
        inside = np.searchsorted(self._addresses[first:last], [start, end])
        part = slice(int(first + inside[0]), int(first + inside[1]))
        return self._addresses[part], self._contents[part]

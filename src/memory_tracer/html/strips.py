"""What a region's pages look like as last known: an entropy for each, and what the first one is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analyze.latest import LatestPages
from ..analyze.recognize import entropy, first_bytes, recognize
from ..model import PAGE_SIZE

if TYPE_CHECKING:
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
    latest = LatestPages(capture)
    entropies: dict[int, float] = {}
    for history in histories:
        addresses, contents = latest.of(history)
        step = max(1, -(-len(addresses) // MOST_CELLS))
        if not len(addresses) or len(entropies) >= MOST_PAGES:
            yield _EMPTY
            continue
        cells: list[tuple[int, float]] = []
        first: bytes | None = None
        for address, number in zip(addresses[::step].tolist(), contents[::step].tolist(), strict=True):
            if first is None or number not in entropies:
                content = latest.content(number)
                if content is None:
                    continue
                first = content if first is None else first
                entropies[number] = entropy(content)
            cells.append(((address - history.region.start) // PAGE_SIZE, entropies[number]))
        if first is None:
            yield _EMPTY
        else:
            yield Strip(len(addresses), cells, recognize(first), first_bytes(first))

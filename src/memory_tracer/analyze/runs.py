"""An image as few runs of bytes, and of bytes that are not there."""

from __future__ import annotations

import bisect
import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ..model import PAGE_SIZE, Missing
from .images import Gap, Image, Range

#: Ranges in order, none overlaps another, and why their bytes are missing.
Reasons = list[tuple[Range, Missing | None]]


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring pages that are all there, or all missing for one reason.

    ``content`` is None for missing bytes; then ``missing`` says why, or is None as well where the
    capture never spoke of these pages.
    """

    address: int
    size: int
    content: bytes | None
    missing: Missing | None

    @property
    def end(self) -> int:
        """First address after the run."""
        return self.address + self.size


def runs(image: Image, start: int, end: int) -> Iterator[Run]:
    """Yield what is known of [start, end) as few runs as possible, in order and without holes.

    Contents are joined, so that instructions may cross pages; ``start`` and ``end`` need not be
    page-aligned. The work depends on what is known and not on the length of the range.
    """
    return _joined(_parts(image, start, end))


def _parts(image: Image, start: int, end: int) -> Iterator[Run]:
    gaps = reasons(image.gaps)
    position = start
    for address in sorted(image.pages):
        first, last = max(address, start), min(address + PAGE_SIZE, end)
        if first >= last:
            continue
        yield from _hole(gaps, position, first)
        held = image.pages[address]
        content = None if held.content is None else held.content[first - address : last - address]
        yield Run(first, last - first, content, held.missing)
        position = last
    yield from _hole(gaps, position, end)


def _hole(gaps: Reasons, start: int, end: int) -> Iterator[Run]:
    """Yield the hole [start, end) in parts of one reason each."""
    if start >= end:
        return
    position = start
    for index in range(bisect.bisect_right(gaps, start, key=lambda part: part[0][1]), len(gaps)):
        (first, last), missing = gaps[index]
        if first >= end:
            break
        first, last = max(first, position), min(last, end)
        if first > position:
            yield Run(position, first - position, None, None)
        yield Run(first, last - first, None, missing)
        position = last
    if position < end:
        yield Run(position, end - position, None, None)


def reason_at(gaps: Reasons, address: int) -> Missing | None:
    """Return what ``gaps`` say of the page at ``address``."""
    return next(_hole(gaps, address, address + 1)).missing


def reasons(gaps: dict[Range, Gap]) -> Reasons:
    """Return what the gaps say as ranges that do not overlap, in order; the latest gap counts."""
    waiting = sorted(((*addresses, gap) for addresses, gap in gaps.items()), key=lambda part: part[:2])
    edges = sorted({edge for addresses in gaps for edge in addresses})
    active: list[tuple[int, int, Missing | None]] = []
    result: Reasons = []
    taken = 0
    for position, following in itertools.pairwise(edges):
        while taken < len(waiting) and waiting[taken][0] == position:
            _, last, gap = waiting[taken]
            heapq.heappush(active, (-gap.sequence, last, gap.missing))
            taken += 1
        while active and active[0][1] <= position:
            heapq.heappop(active)
        if active:
            result.append(((position, following), active[0][2]))
    return result


def _joined(parts: Iterator[Run]) -> Iterator[Run]:
    for _, group in itertools.groupby(parts, key=lambda part: (part.content is None, part.missing)):
        neighbours = list(group)
        first = neighbours[0]
        content = None if first.content is None else b"".join(part.content or b"" for part in neighbours)
        yield Run(first.address, neighbours[-1].end - first.address, content, first.missing)

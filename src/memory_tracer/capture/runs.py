"""What became of missing pages: which stayed missing, and for which reason in the end.

The kernel may report a page missing that it, or user space, then fetches (a fetched or a late page)
or fails to fetch (a second missing record with another reason). Of all that is said about one page of
one event the last word counts, so that no page is lost twice and no page that came late is lost at all.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..wire.layout import FLAG_FETCHED, FLAG_LATE, PAGE_BYTES
from .columns import Rows

_DELIVERED = -1


class _Span(NamedTuple):
    """Addresses [start, end) an event says something about, in the order spans are swept over."""

    cause: int
    start: int
    end: int
    ordinal: int
    source: int  # row of the missing table, or _DELIVERED


def still_missing(missing: Rows, pages: Rows) -> Rows:
    """Return ``missing`` without what a later record of the same event supersedes, by ordinal.

    A record of which only parts are left is returned once for each part.
    """
    late = pages[(pages["flags"] & (FLAG_LATE | FLAG_FETCHED)) != 0]
    late = late[np.isin(late["cause"], missing["cause"])]
    disputed = np.isin(missing["cause"], _disputed_causes(missing, late))
    if not disputed.any():
        return missing
    spans = sorted([*_missing_spans(missing, np.flatnonzero(disputed)), *_late_spans(late)])
    parts = [
        part
        for _, group in itertools.groupby(spans, key=lambda span: span.cause)
        for part in _last_words(group)
    ]
    left = missing[[part.source for part in parts]]
    left["address"] = [part.start for part in parts]
    left["pages"] = [(part.end - part.start) // PAGE_BYTES for part in parts]
    result = np.concatenate([missing[~disputed], left])
    return result[np.lexsort((result["address"], result["ordinal"]))]


def _disputed_causes(missing: Rows, late: Rows) -> NDArray[np.uint64]:
    """Return the causes about whose pages there is more than one word."""
    ordered = missing[np.lexsort((missing["address"], missing["cause"]))]
    before, after = ordered[:-1], ordered[1:]
    # Sorted by start, if any two spans overlap then some two neighbours do.
    overlap = after["address"] < before["address"] + before["pages"] * PAGE_BYTES
    overlap &= before["cause"] == after["cause"]
    return np.concatenate([after["cause"][overlap], late["cause"]])


def _missing_spans(missing: Rows, chosen: NDArray[np.intp]) -> Iterator[_Span]:
    rows = missing[chosen]
    ends = rows["address"] + rows["pages"] * PAGE_BYTES
    columns = (rows["cause"], rows["address"], ends, rows["ordinal"], chosen)
    yield from map(_Span, *(column.tolist() for column in columns))


def _late_spans(late: Rows) -> Iterator[_Span]:
    """Return the late pages, neighbours that came one after the other as one span."""
    if not len(late):
        return
    follows = (late["address"][1:] == late["address"][:-1] + PAGE_BYTES) & (
        late["cause"][1:] == late["cause"][:-1]
    )
    heads = np.concatenate([[0], np.flatnonzero(~follows) + 1])
    tails = np.concatenate([heads[1:], [len(late)]]) - 1
    ends = late["address"][tails] + PAGE_BYTES
    columns = (late["cause"][heads], late["address"][heads], ends, late["ordinal"][tails])
    yield from map(_Span, *(column.tolist() for column in columns), itertools.repeat(_DELIVERED))


def _last_words(spans: Iterable[_Span]) -> Iterator[_Span]:
    """Sweep over one event's spans, sorted by start; yield the parts where the newest is a missing one."""
    waiting = list(spans)
    borders = sorted({border for span in waiting for border in (span.start, span.end)})
    waiting.reverse()
    open_spans: list[tuple[int, _Span]] = []
    part: _Span | None = None
    for start, end in itertools.pairwise(borders):
        while waiting and waiting[-1].start <= start:
            span = waiting.pop()
            heapq.heappush(open_spans, (-span.ordinal, span))
        while open_spans and open_spans[0][1].end <= start:
            heapq.heappop(open_spans)
        newest = open_spans[0][1] if open_spans else None
        if part and newest and part.source == newest.source:
            part = part._replace(end=end)
            continue
        if part and part.source != _DELIVERED:
            yield part
        part = newest._replace(start=start, end=end) if newest else None
    if part and part.source != _DELIVERED:
        yield part

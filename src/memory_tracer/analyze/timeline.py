"""A capture's time: the moment it counts from, and its records in one order."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..model import Event, MissingRun, Page

if TYPE_CHECKING:
    from ..capture.reader import Capture


#: Timestamps are 64-bit numbers; what a file says may be any number.
_LATEST_NS = 1 << 63


def start_ns(capture: Capture) -> int:
    """Return when recording began, in nanoseconds since boot; 0 when the metadata does not say."""
    clock = capture.metadata.get("clock")
    start = clock.get("monotonic_ns") if isinstance(clock, dict) else None
    return start if isinstance(start, int) and 0 <= start < _LATEST_NS else 0


Row = Page | MissingRun


def in_order(events: Iterable[Event], rows: Iterable[Row]) -> Iterator[Event | Row]:
    """Merge ``events`` and ``rows``, each ordered by sequence, into the order of recording."""
    streams: tuple[Iterable[Event | Row], Iterable[Event | Row]] = (events, rows)
    return heapq.merge(*streams, key=lambda record: record.sequence)

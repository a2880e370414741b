"""Which events, pages and regions a caller wants to see."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..model import ADDRESS_END, EventKind, Protection
from .columns import Rows

Mask = NDArray[np.bool_]


class FilterOptions(TypedDict, total=False):
    """The keyword arguments of ``events``, ``pages`` and ``regions``; see ``Filters``."""

    pid: int | Collection[int] | None
    start: int | None
    end: int | None
    since_ns: int | None
    until_ns: int | None
    kinds: Collection[EventKind] | None
    protection: Protection | None
    path: str | None
    exclude_file_backed: bool
    after: int | None


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions that must all hold; None does not restrict.

    ``pid``: one or several. ``start``, ``end``: the range must overlap [start, end). ``since_ns``,
    ``until_ns``: timestamps, both inclusive. ``kinds``: the event is one of these. ``protection``:
    the event's protection has all these bits. ``path``: part of the backing file's path.
    ``exclude_file_backed``: nothing backed by an inode. ``after``: a later sequence. Raises
    ``UsageError`` for an empty range.
    """

    pid: int | Collection[int] | None = None
    start: int | None = None
    end: int | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    kinds: Collection[EventKind] | None = None
    protection: Protection | None = None
    path: str | None = None
    exclude_file_backed: bool = False
    after: int | None = None

    def __post_init__(self) -> None:
        for address in (self.start, self.end):
            if address is not None and not 0 <= address <= ADDRESS_END:
                raise UsageError(f"{address:#x} is not an address")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise UsageError(f"the address range {self.start:#x}-{self.end:#x} is empty")
        if self.since_ns is not None and self.until_ns is not None and self.since_ns > self.until_ns:
            raise UsageError("the time range ends before it starts")

    @property
    def addresses(self) -> range:
        """The addresses asked for; all there are when there is no condition on them."""
        return range(self.start or 0, ADDRESS_END if self.end is None else self.end)

    def accept_headers(self, rows: Rows) -> Mask:
        """Return which rows of any table pass the conditions on process, time and order."""
        mask = np.ones(len(rows), dtype=np.bool_)
        if self.pid is not None:
            mask &= np.isin(rows["pid"], [self.pid] if isinstance(self.pid, int) else list(self.pid))
        if self.after is not None:
            mask &= rows["ordinal"] > self.after
        if self.since_ns is not None:
            mask &= rows["timestamp_ns"] >= self.since_ns
        if self.until_ns is not None:
            mask &= rows["timestamp_ns"] <= self.until_ns
        return mask

    def accept_causes(self, events: Rows, path_of: Callable[[int], str | None]) -> Mask:
        """Return which events pass the conditions on kind, protection and backing.

        ``path_of`` returns the backing path of the event at an index.
        """
        mask = np.ones(len(events), dtype=np.bool_)
        if self.kinds is not None:
            mask &= np.isin(events["kind"], list(self.kinds))
        if self.protection is not None:
            mask &= (events["protection"] & self.protection) == self.protection
        if self.exclude_file_backed:
            mask &= (events["device"] == 0) | ~is_region_event(events)
        if self.path is not None:
            chosen = np.flatnonzero(mask)
            mask[chosen] = [self.path in (path_of(index) or "") for index in chosen.tolist()]
        return mask

    def accept_ranges(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> Mask:
        """Return which of the ranges overlap the addresses asked for."""
        mask = np.ones(len(starts), dtype=np.bool_)
        if self.end is not None:
            mask &= starts < self.end
        if self.start is not None:
            # Not start + length, which may lie beyond 2^64.
            mask &= (starts >= self.start) | (lengths > np.uint64(self.start) - starts)
        return mask

    def accept_events(self, events: Rows, path_of: Callable[[int], str | None]) -> Mask:
        """Return which events pass all conditions. One without a region lies in no address range."""
        mask = self.accept_headers(events) & self.accept_causes(events, path_of)
        if self.start is not None or self.end is not None:
            mask &= is_region_event(events) & self.accept_ranges(events["address"], events["length"])
        return mask


def is_region_event(events: Rows) -> Mask:
    """Return which events say something about a memory region."""
    mask: Mask = events["kind"] < EventKind.FORK
    return mask

"""The regions of a capture: every range that was or became executable, over its whole life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..model import OBSERVATION_KINDS, PAGE_SIZE, Event, EventKind, Protection, Region, Status

Numbers = NDArray[np.int64]
Rows = NDArray[np.void]

_WRITE_EXECUTE = Protection.WRITE | Protection.EXEC
_FOUND_EXECUTABLE = (EventKind.BASELINE, EventKind.EXEC_MAPPING)
#: Results from -4095 to -1 are errors (include/linux/err.h).
_LARGEST_ERRNO = 4095
#: Counts from a file beyond this are no counts, and would overflow a sum.
_COUNT_LIMIT = 1 << 32


@dataclass(frozen=True, slots=True)
class RegionHistory:
    """One (process, start, length) that was or became executable, from its first event to its last.

    ``protection`` is that of the last call that succeeded; ``kinds`` are distinct, in order of
    first occurrence; ``flips`` counts the calls, the coalesced ones included; ``generations`` is the
    highest among its pages, 0 when no page has content; ``pages`` counts distinct page addresses
    with content and ``missing`` those whose bytes are missing at some event; ``content_bytes`` is
    the size of its distinct contents; ``caller`` is the address of the first call that made it
    executable; ``rwx`` says that it was ever writable and executable at once.
    """

    pid: int
    process_start_ns: int
    comm: str
    region: Region
    protection: Protection
    kinds: tuple[EventKind, ...]
    first_ns: int
    last_ns: int
    flips: int
    generations: int
    pages: int
    content_bytes: int
    missing: int
    caller: int | None
    rwx: bool
    unlinked: bool
    shared: bool


@dataclass(frozen=True, slots=True, eq=False)
class PageColumns:
    """Columns of the page rows: number of the event, address, content number, generation (0: no content)."""

    event: Numbers
    address: NDArray[np.uint64]
    content: NDArray[np.uint64]
    generation: Numbers


@dataclass(frozen=True, slots=True, eq=False)
class RunColumns:
    """Columns of the runs of missing pages: number of the event, first address, number of pages."""

    event: Numbers
    address: NDArray[np.uint64]
    pages: NDArray[np.uint64]


def region_histories(
    events: Rows,
    processes: Numbers,
    chosen: NDArray[np.bool_],
    silent: NDArray[np.bool_],
    pages: PageColumns,
    runs: RunColumns,
    decode: Callable[[int], Event],
) -> list[RegionHistory]:
    """Return the regions with at least one ``chosen`` event, in order of first appearance.

    ``events`` are event records, ``processes`` the number of each one's process; ``decode`` returns
    the event at an index. All events of a region count for its history, chosen or not, but for the
    ``silent`` ones: looks at what was known already, which need not keep to the bounds of regions.
    """
    members = np.flatnonzero((events["kind"] < EventKind.FORK) & ~silent)
    region_of_event = np.full(len(events), -1)
    region_of_event[members] = _number_regions(events[members], processes[members])
    region_count = int(region_of_event.max(initial=-1)) + 1
    members = members[np.argsort(region_of_event[members], kind="stable")]
    if not len(members):
        return []

    lives = _Lives(events[members], region_of_event[members])
    stored = pages.generation > 0
    page_regions, run_regions = region_of_event[pages.event], region_of_event[runs.event]
    holes = _covered_pages(
        np.concatenate([page_regions[~stored], run_regions]),
        np.concatenate([pages.address[~stored], runs.address]),
        np.concatenate([np.ones(int((~stored).sum()), np.uint64), runs.pages]),
    )
    page_regions = page_regions[stored]
    generations = np.zeros(region_count + 1, dtype=np.int64)
    np.maximum.at(generations, page_regions, pages.generation[stored])
    addresses = _distinct(page_regions, pages.address[stored], region_count)
    contents = _distinct(page_regions, pages.content[stored], region_count)

    wanted = lives.executable | (addresses > 0)
    wanted[[region for region in holes if region >= 0]] = True
    visible = np.zeros(region_count + 1, dtype=np.bool_)
    visible[region_of_event[chosen]] = True
    return [
        lives.history(
            region,
            lambda position: decode(int(members[position])),
            generations=int(generations[region]),
            pages=int(addresses[region]),
            content_bytes=int(contents[region]) * PAGE_SIZE,
            missing=holes.get(region, 0),
        )
        for region in np.flatnonzero(wanted & visible[:-1]).tolist()
    ]


class _Lives:
    """What the events of each region say, reduced over all regions at once.

    Events are sorted by region, within a region by time; a position is a place in that order.
    """

    def __init__(self, events: Rows, regions: Numbers) -> None:
        self._heads = np.flatnonzero(np.diff(regions, prepend=-1))
        protection, status = events["protection"], events["status"]
        self._events = events
        effective = succeeded(events)
        gained = effective & ((protection & Protection.EXEC) != 0)
        gained |= np.isin(events["kind"], _FOUND_EXECUTABLE)

        self.executable = self._any(gained)
        self._rwx = self._any(effective & ((protection & _WRITE_EXECUTE) == _WRITE_EXECUTE))
        self._unlinked = self._any((status & Status.UNLINKED) != 0)
        self._shared = self._any((status & Status.SHARED) != 0)
        self._first_ns = np.minimum.reduceat(events["timestamp_ns"], self._heads)
        self._last_ns = np.maximum.reduceat(events["timestamp_ns"], self._heads)
        coalesced = np.minimum(events["coalesced"], _COUNT_LIMIT).astype(np.int64)
        calls = (~np.isin(events["kind"], list(OBSERVATION_KINDS))).astype(np.int64)
        self._flips = np.add.reduceat(calls + coalesced, self._heads)
        self._first_call = self._first_where(gained & (events["caller_ip"] != 0))
        self._last_success = self._last_where(effective)
        self._last_backed = self._last_where(events["device"] != 0)
        self._last = np.append(self._heads[1:], len(events)) - 1
        self._first_of_kind = {kind: self._first_where(events["kind"] == kind) for kind in EventKind}

    def history(
        self,
        region: int,
        decode: Callable[[int], Event],
        *,
        generations: int,
        pages: int,
        content_bytes: int,
        missing: int,
    ) -> RegionHistory:
        """Return the history of one region. ``decode`` returns the event at a position."""
        last = decode(int(self._last[region]))
        backed, success, call = (
            int(positions[region]) for positions in (self._last_backed, self._last_success, self._first_call)
        )
        head = self._events[self._heads[region]]
        plain = Region(int(head["address"]), int(head["length"]))
        return RegionHistory(
            pid=last.pid,
            process_start_ns=last.process_start_ns,
            comm=last.comm,
            region=(decode(backed).region if backed >= 0 else None) or plain,
            protection=decode(success).protection if success >= 0 else Protection.NONE,
            kinds=self._kinds(region),
            first_ns=int(self._first_ns[region]),
            last_ns=int(self._last_ns[region]),
            flips=int(self._flips[region]),
            generations=generations,
            pages=pages,
            content_bytes=content_bytes,
            missing=missing,
            caller=decode(call).caller if call >= 0 else None,
            rwx=bool(self._rwx[region]),
            unlinked=bool(self._unlinked[region]),
            shared=bool(self._shared[region]),
        )

    def _kinds(self, region: int) -> tuple[EventKind, ...]:
        firsts = {kind: int(positions[region]) for kind, positions in self._first_of_kind.items()}
        return tuple(sorted((kind for kind in firsts if firsts[kind] >= 0), key=firsts.__getitem__))

    def _any(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return self._last_where(mask) >= 0

    def _last_where(self, mask: NDArray[np.bool_]) -> Numbers:
        """Return each region's last position where ``mask`` holds, or -1."""
        return np.maximum.reduceat(np.where(mask, np.arange(len(mask)), -1), self._heads)

    def _first_where(self, mask: NDArray[np.bool_]) -> Numbers:
        """Return each region's first position where ``mask`` holds, or -1."""
        first = np.minimum.reduceat(np.where(mask, np.arange(len(mask)), len(mask)), self._heads)
        return np.where(first < len(mask), first, -1)


def succeeded(events: Rows) -> NDArray[np.bool_]:
    """Return which event records are of calls that changed something, if only a part."""
    result: NDArray[np.bool_] = (events["result"] >= 0) | (events["result"] < -_LARGEST_ERRNO)
    result |= (events["status"] & Status.PARTIAL) != 0
    return result


def open_to_writes(events: Rows) -> NDArray[np.bool_]:
    """Return which event records are of memory that could change without a call while executable.

    It was writable itself, or shared with another mapping or an open file that can be written to.
    """
    protection = events["protection"]
    viewed = (events["status"] & Status.VIEWED) != 0
    result: NDArray[np.bool_] = ((protection & Protection.WRITE) != 0) | viewed
    result &= ((protection & Protection.EXEC) != 0) & (events["kind"] < EventKind.FORK)
    return result & succeeded(events)


def _number_regions(events: Rows, processes: Numbers) -> Numbers:
    """Number the (process, start, length) of ``events`` by first appearance."""
    order = np.lexsort((events["length"], events["address"], processes))
    keys = (processes[order], events["address"][order], events["length"][order])
    differs = np.zeros(len(order), dtype=np.bool_)
    for key in keys:
        differs[1:] |= key[1:] != key[:-1]
    sorted_number = np.cumsum(differs)
    number = np.empty(len(order), dtype=np.int64)
    number[order] = sorted_number
    # lexsort is stable, so the first of each group in sorted order is its first appearance.
    first = order[np.flatnonzero(np.diff(sorted_number, prepend=-1))]
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number]


def _distinct(regions: Numbers, values: NDArray[np.uint64], region_count: int) -> Numbers:
    """Return for each region how many different values it has. Region -1 stands for none."""
    order = np.lexsort((values, regions))
    regions, values = regions[order], values[order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (regions[1:] != regions[:-1]) | (values[1:] != values[:-1])
    return np.bincount(regions[new & (regions >= 0)], minlength=region_count)


def _covered_pages(regions: Numbers, starts: NDArray[np.uint64], pages: NDArray[np.uint64]) -> dict[int, int]:
    """Return for each region how many pages at least one of its runs covers."""
    covered: dict[int, int] = {}
    reached = (-1, 0)
    order = np.lexsort((starts, regions))
    for region, start, count in zip(
        regions[order].tolist(), starts[order].tolist(), pages[order].tolist(), strict=True
    ):
        done = reached[1] if reached[0] == region else 0
        end = start + count * PAGE_SIZE
        covered[region] = covered.get(region, 0) + max(0, end - max(start, done)) // PAGE_SIZE
        reached = (region, max(done, end))
    return covered

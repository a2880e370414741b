"""The regions of a capture: every range that was or became executable, over its whole life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..model import PAGE_SIZE, Event, EventKind, Evidence, Protection, Region, Status
from ..notebook import Described
from .triggers import FOUND_EXECUTABLE, Numbers, Rows, Triggers, count_triggers, open_to_writes, succeeded

_WRITE_EXECUTE = Protection.WRITE | Protection.EXEC


@dataclass(frozen=True, slots=True)
class RegionHistory(Described):
    """One (process, start, length) that was or became executable, from its first event to its last.

    ``protection`` is that of the last call that succeeded; ``kinds`` are distinct, in order of
    first occurrence; ``flips`` counts the calls, the coalesced ones included; ``generations`` is the
    highest among its pages, 0 when no page has content; ``pages`` counts distinct page addresses
    with content and ``missing`` those whose bytes are missing at some event; ``content_bytes`` is
    the size of its distinct contents; ``caller`` is the address of the first call that made it
    executable and ``caller_event`` that call's sequence; ``rwx`` says that it was ever writable and
    executable at once, ``open_to_writes`` that it could change without a call while executable, so
    that only ``triggers`` other than calls show it; ``evidence`` is that of all its pages.
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
    caller_event: int | None
    open_to_writes: bool
    triggers: Triggers
    evidence: Evidence


@dataclass(frozen=True, slots=True, eq=False)
class PageColumns:
    """Columns of the page rows: number of the event, address, content number, generation (0: no content).

    And whether user space read it late, and the evidence that it was executed.
    """

    event: Numbers
    address: NDArray[np.uint64]
    content: NDArray[np.uint64]
    generation: Numbers
    late: NDArray[np.bool_]
    evidence: NDArray[np.uint8]


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
    late = np.bincount(page_regions[pages.late] + 1, minlength=region_count + 1)[1:]
    evidence = np.zeros(region_count + 1, dtype=np.uint8)
    np.bitwise_or.at(evidence, page_regions, pages.evidence)
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
            late=int(late[region]),
            evidence=Evidence(int(evidence[region])),
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
        gained |= np.isin(events["kind"], FOUND_EXECUTABLE)

        self.executable = self._any(gained)
        self._rwx = self._any(effective & ((protection & _WRITE_EXECUTE) == _WRITE_EXECUTE))
        self._unlinked = self._any((status & Status.UNLINKED) != 0)
        self._shared = self._any((status & Status.SHARED) != 0)
        self._first_ns = np.minimum.reduceat(events["timestamp_ns"], self._heads)
        self._last_ns = np.maximum.reduceat(events["timestamp_ns"], self._heads)
        self._triggers = count_triggers(events, self._heads)
        self._open_to_writes = self._any(open_to_writes(events))
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
        late: int,
        evidence: Evidence,
    ) -> RegionHistory:
        """Return the history of one region. ``decode`` returns the event at a position."""
        last = decode(int(self._last[region]))
        backed, success, call = (
            int(positions[region]) for positions in (self._last_backed, self._last_success, self._first_call)
        )
        caller = decode(call) if call >= 0 else None
        counts = {name: int(count[region]) for name, count in self._triggers.items()}
        triggers = Triggers(**counts, late=late)
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
            flips=triggers.calls + triggers.found,
            generations=generations,
            pages=pages,
            content_bytes=content_bytes,
            missing=missing,
            caller=caller.caller if caller else None,
            rwx=bool(self._rwx[region]),
            unlinked=bool(self._unlinked[region]),
            shared=bool(self._shared[region]),
            caller_event=caller.sequence if caller else None,
            open_to_writes=bool(self._open_to_writes[region]),
            triggers=triggers,
            evidence=evidence,
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

"""How it is known that captured bytes were executed: instruction pointers and stacks name their pages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..model import EventKind, Evidence
from ..wire.layout import PAGE_BYTES, STACK_FRAMES
from .numbering import Numbers, pair
from .relations import Relations

_PAGE = np.uint64(PAGE_BYTES)
_Unsigned = NDArray[np.uint64]


def find_evidence(relations: Relations) -> NDArray[np.uint8]:
    """Return for each page row how it is known that its content was executed (``model.Evidence``).

    An address counts for what its page held at that moment, and for all rows of this page with the
    same content.
    """
    result = np.zeros(len(relations.rows), dtype=np.uint8)
    stored = np.flatnonzero(relations.row_stored)
    if not len(stored):
        return result
    rows = relations.rows[stored]
    held = _Held(rows["address"], relations.row_process[stored], rows["timestamp_ns"])
    seen = np.zeros(len(stored), dtype=np.uint8)

    events, stacks = relations.events[: relations.recorded_count], relations.stacks
    processes, times = relations.event_process[: len(events)], events["timestamp_ns"]
    own, sampled = ~relations.foreign[: len(events)], events["kind"] == EventKind.SAMPLE
    fetched = events["kind"] == EventKind.FETCH
    for kind, chosen in (
        (Evidence.SAMPLED, sampled),
        (Evidence.FAULT, fetched),
        (Evidence.CALLER, own & ~sampled & ~fetched),
    ):
        seen[held.at(np.where(chosen, events["caller_ip"], 0), processes, times)] |= np.uint8(kind)
    # Without its event (-1) nobody knows whose stack it is.
    own_stack = np.append(own, False)[relations.stack_event]
    # Frame by frame: all at once would take several times the memory of the capture.
    for depth in range(1, STACK_FRAMES):
        frames = stacks["frames"][:, depth]
        # It was the call before the return address that executed, and it may end its page.
        calls = np.where(own_stack & (stacks["count"] > depth) & (frames != 0), frames - np.uint64(1), 0)
        at = held.at(calls, relations.stack_process, stacks["timestamp_ns"])
        seen[at] |= np.uint8(Evidence.STACK)

    changed = held.of_same_pages(seen != 0)
    contents = pair(held.spaces[changed], rows["content"][changed].astype(np.int64))
    by_content = np.zeros(len(contents), dtype=np.uint8)
    np.bitwise_or.at(by_content, contents, seen[changed])
    result[stored[changed]] = by_content[contents]
    return result


class _Held:
    """What the pages of processes held when: page rows in order of process, page and time."""

    def __init__(self, addresses: _Unsigned, processes: Numbers, times: _Unsigned) -> None:
        self._pages, places = np.unique(addresses // _PAGE, return_inverse=True)
        spaces = processes * len(self._pages) + places
        #: For each row the number of its page among those of all processes.
        self.spaces: Numbers
        self._spaces, self.spaces = np.unique(spaces, return_inverse=True)
        self._times = np.unique(times)
        keys = self._keys(self.spaces, times)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]

    def at(self, addresses: _Unsigned, processes: Numbers, times: _Unsigned) -> Numbers:
        """Return the rows that pages held at ``addresses`` and ``times``; address 0 stands for none."""
        pages = addresses // _PAGE
        places = np.minimum(np.searchsorted(self._pages, pages), len(self._pages) - 1)
        known = np.flatnonzero((self._pages[places] == pages) & (addresses != 0))
        wanted = processes[known] * len(self._pages) + places[known]
        spaces = np.minimum(np.searchsorted(self._spaces, wanted), len(self._spaces) - 1)
        before = np.searchsorted(self._sorted, self._keys(spaces, times[known]), side="right") - 1
        rows = self._order[before]
        found: Numbers = rows[(before >= 0) & (self._spaces[self.spaces[rows]] == wanted)]
        return found

    def of_same_pages(self, rows: NDArray[np.bool_]) -> Numbers:
        """Return all rows of the pages that ``rows`` are of."""
        chosen = np.zeros(len(self._spaces), dtype=np.bool_)
        chosen[self.spaces[rows]] = True
        return np.flatnonzero(chosen[self.spaces])

    def _keys(self, spaces: Numbers, times: _Unsigned) -> Numbers:
        """Return a number for each page at a time: in order of page, then of time."""
        keys: Numbers = spaces * (len(self._times) + 1) + np.searchsorted(self._times, times, side="right")
        return keys

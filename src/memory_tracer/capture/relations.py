"""How the rows of a capture belong together: processes, the event behind each page, generations.

Computed in bulk from the tables of ``index``. Rows of one event follow each other, so most columns
are reduced to the places where they change before anything is sorted.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..model import OBSERVATION_KINDS, EventKind, LookArgument, Missing, Status
from ..wire.layout import PAGE_BYTES
from .columns import EVENT_TYPE, HEADER_NAMES, Rows
from .format import NO_CONTENT
from .index import Index
from .numbering import Numbers, changes, dense, pair, spread
from .runs import still_missing

#: User space knows start times only in clock ticks of 10 ms (proc_pid_stat(5), USER_HZ is 100).
TICK_NS = 10**7

_NAMES = ["ordinal", *HEADER_NAMES]


class Relations:
    """The relations between the rows of an index, as it was when this was made.

    Processes are numbered by first appearance. ``events`` are the recorded ones followed by one
    stand-in (``EventKind.UNKNOWN``) for each event whose own record was lost while pages of it were
    not; ``row_event`` and ``run_event`` number into it.
    """

    def __init__(self, index: Index) -> None:
        recorded = index.events
        self.rows = index.pages.rows
        absent = index.missing["reason"] == Missing.ABSENT
        self.runs = still_missing(index.missing[~absent], self.rows)
        #: Runs of pages that were zeros, because nobody had touched them since they were made.
        self.zeros: Rows = index.missing[absent]
        self.recorded_count = len(recorded)
        self._content_count = len(index.contents)

        tables = (recorded, self.rows, self.runs, self.zeros, index.texts, index.stacks)
        #: For each process its first row: the columns of a record header.
        self.processes, numbers = _number_processes(tables)
        of_recorded, self.row_process, self.run_process, self.zero_process, self.text_process = numbers[:5]
        self.stacks, self.stack_process = index.stacks, numbers[5]
        #: For each process its last recorded event, or -1.
        self.last_event: Numbers = np.full(len(self.processes), -1)
        self.last_event[of_recorded] = np.arange(len(recorded))

        self.row_event = _find(recorded["sequence"], self.rows["cause"])
        self.run_event = _find(recorded["sequence"], self.runs["cause"])
        self.zero_event = _find(recorded["sequence"], self.zeros["cause"])
        stand_ins, of_stand_ins = self._stand_ins()
        self.row_event = _or_stand_in(self.row_event, self.rows, stand_ins, len(recorded))
        self.run_event = _or_stand_in(self.run_event, self.runs, stand_ins, len(recorded))
        known = self.last_event[of_stand_ins] >= 0
        stand_ins["comm"][known] = recorded["comm"][self.last_event[of_stand_ins][known]]
        self.events: Rows = np.concatenate([recorded, stand_ins]) if len(stand_ins) else recorded
        self.event_process: Numbers = np.concatenate([of_recorded, of_stand_ins])

        #: For each event its OUTCOME record, or -1.
        self.event_outcome = self._last_of_each_event(_find(recorded["sequence"], index.outcomes["cause"]))
        #: For each STACK record its event, or -1, and for each event its STACK record, or -1.
        self.stack_event = _find(recorded["sequence"], index.stacks["cause"])
        self.event_stack = self._last_of_each_event(self.stack_event)
        #: For each event its REGISTERS record, or -1.
        self.registers = index.registers
        self.event_registers = self._last_of_each_event(_find(recorded["sequence"], index.registers["cause"]))

    def process_number(self, pid: int, start_time_ns: int) -> int:
        """Return the number of the process with this identity, or -1."""
        same = self.processes["pid"] == pid
        same &= self.processes["start_time_ns"] // TICK_NS == start_time_ns // TICK_NS
        numbers = np.flatnonzero(same)
        return int(numbers[0]) if len(numbers) else -1

    @cached_property
    def event_pages(self) -> Numbers:
        """For each event the number of its page rows."""
        return np.bincount(self.row_event, minlength=len(self.events))

    @cached_property
    def foreign(self) -> NDArray[np.bool_]:
        """For each event whether it is a look that another process caused.

        Its caller and stack are those of that process: the recorder, or who writes from outside.
        """
        by = self.events["arguments"][:, LookArgument.CALLER]
        foreign: NDArray[np.bool_] = self.events["kind"] == EventKind.LOOK
        foreign &= (by != 0) & (by != self.events["pid"])
        return foreign

    @cached_property
    def row_stored(self) -> NDArray[np.bool_]:
        """For each page row whether its content is in the file."""
        content: NDArray[np.bool_] = self.rows["content"] < self._content_count
        return content

    @cached_property
    def row_repeats(self) -> NDArray[np.bool_]:
        """For each page row whether it only says that a look or a sample found nothing new.

        The kernel sends a page at the first look when it has not compared it before.
        """
        order = np.lexsort((np.arange(len(self.rows)), self.rows["address"], self.row_process))
        before = order[:-1], order[1:]
        same = np.ones(len(order[1:]), dtype=np.bool_)
        for column in (self.row_process, self.rows["address"], self.rows["content"]):
            same &= column[before[0]] == column[before[1]]
        repeats: NDArray[np.bool_] = np.zeros(len(self.rows), dtype=np.bool_)
        repeats[before[1][same]] = True
        repeats &= np.isin(self.events["kind"][self.row_event], list(OBSERVATION_KINDS))
        return repeats & self.row_stored

    @cached_property
    def event_is_silent(self) -> NDArray[np.bool_]:
        """For each event whether it is a look or a sample that found nothing new."""
        new = np.bincount(self.row_event[~self.row_repeats], minlength=len(self.events))
        missing = np.bincount(self.run_event, minlength=len(self.events))
        silent: NDArray[np.bool_] = (self.event_pages > 0) & (new == 0) & (missing == 0)
        return silent

    @cached_property
    def generations(self) -> Numbers:
        """For each page row the index, from 1, of its content among those of its page; 0 for none.

        Contents are counted in order of first occurrence, so A, B, A has generations 1, 2, 1.
        """
        stored = np.flatnonzero(self.row_stored)
        page = pair(self.row_process[stored], dense(self.rows["address"][stored]))
        content = self.rows["content"][stored].astype(np.int64)
        _, first, inverse = np.unique(pair(page, content), return_index=True, return_inverse=True)
        order = np.lexsort((first, page[first]))
        heads = changes(page[first][order])
        ranks = np.arange(len(order)) - spread(heads, heads, len(order))
        generation = np.empty(len(order), dtype=np.int64)
        generation[order] = ranks + 1
        result: Numbers = np.zeros(len(self.rows), dtype=np.int64)
        result[stored] = generation[inverse]
        return result

    def _last_of_each_event(self, events: Numbers) -> Numbers:
        """Return for each event the last record that belongs to it, or -1; ``events`` is by record."""
        last: Numbers = np.full(len(self.events), -1)
        last[events[events >= 0]] = np.flatnonzero(events >= 0)
        return last

    def _stand_ins(self) -> tuple[Rows, Numbers]:
        """Return an event for each cause nobody recorded, and the processes they belong to.

        It takes its header from the first row that names it and spans all pages that do.
        """
        rows, runs = self.row_event < 0, self.run_event < 0
        headers: Rows = np.concatenate([self.rows[rows][_NAMES], self.runs[runs][_NAMES]])
        pages = np.concatenate([np.ones(int(rows.sum()), dtype=np.uint64), self.runs[runs]["pages"]])
        process = np.concatenate([self.row_process[rows], self.run_process[runs]])
        order = np.argsort(headers["ordinal"], kind="stable")
        headers, pages, process = headers[order], pages[order], process[order]
        causes, first, inverse = np.unique(headers["cause"], return_index=True, return_inverse=True)
        ends = np.zeros(len(causes), dtype=np.uint64)
        starts = np.full(len(causes), NO_CONTENT, dtype=np.uint64)
        np.minimum.at(starts, inverse, headers["address"])
        np.maximum.at(ends, inverse, headers["address"] + pages * PAGE_BYTES)
        events: Rows = np.zeros(len(causes), EVENT_TYPE)
        for name in _NAMES:
            events[name] = headers[name][first]
        events["sequence"], events["cause"] = causes, 0
        events["address"], events["length"] = starts, ends - starts
        events["kind"] = EventKind.UNKNOWN
        events["status"] = Status.ARGUMENTS_UNKNOWN | Status.MAPPING_UNKNOWN | Status.PREVIOUS_UNKNOWN
        return events, process[first]


def _number_processes(tables: tuple[Rows, ...]) -> tuple[Rows, list[Numbers]]:
    """Number the (pid, start in ticks) of all ``tables`` by ordinal of first appearance."""
    heads = [changes(table["pid"], table["start_time_ns"]) for table in tables]
    headers: Rows = np.concatenate([table[head][_NAMES] for table, head in zip(tables, heads, strict=True)])
    order = np.argsort(headers["ordinal"], kind="stable")
    ticks = dense(headers["start_time_ns"] // TICK_NS)
    identity = pair(headers["pid"].astype(np.int64), ticks)[order]
    _, first, inverse = np.unique(identity, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first)
    rank = np.empty(len(first), dtype=np.int64)
    rank[by_appearance] = np.arange(len(first))
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = rank[inverse]
    parts = np.split(numbers, np.cumsum([len(head) for head in heads])[:-1])
    of_rows = [spread(part, head, len(table)) for part, head, table in zip(parts, heads, tables, strict=True)]
    return headers[order][first[by_appearance]], of_rows


def _find(sequences: NDArray[np.uint64], causes: NDArray[np.uint64]) -> Numbers:
    """For each cause return where it is in ``sequences``, or -1."""
    heads = changes(causes)
    wanted = causes[heads]
    order = np.argsort(sequences, kind="stable")
    places = np.searchsorted(sequences, wanted, sorter=order)
    found = np.full(len(wanted), -1)
    inside = np.flatnonzero(places < len(order))
    candidates = order[places[inside]]
    right = sequences[candidates] == wanted[inside]
    found[inside[right]] = candidates[right]
    return spread(found, heads, len(causes))


def _or_stand_in(events: Numbers, rows: Rows, stand_ins: Rows, recorded: int) -> Numbers:
    """Return ``events`` with each -1 replaced by the number of the stand-in for the row's cause."""
    return np.where(events < 0, recorded + np.searchsorted(stand_ins["sequence"], rows["cause"]), events)

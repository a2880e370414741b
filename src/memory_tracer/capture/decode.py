"""Turn rows of a capture into the objects of ``model``, one at a time, when they are asked for."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..model import (
    PAGE_SIZE,
    Event,
    EventKind,
    Evidence,
    Missing,
    MissingRun,
    Outcome,
    Page,
    Protection,
    Region,
    Registers,
    Status,
)
from ..wire.layout import FLAG_FETCHED, FLAG_LATE, OUTCOME_COUNTS
from ..wire.registers import REGISTERS
from .clock import Clock
from .columns import Rows
from .contents import StoredPage
from .evidence import find_evidence
from .format import NO_CONTENT
from .index import Index
from .numbering import Numbers
from .relations import Relations
from .stacks import Stacks
from .texts import Texts

#: How many arguments a call has.
_ARGUMENTS = {EventKind.MMAP: 6, EventKind.MPROTECT: 3, EventKind.PKEY_MPROTECT: 4, EventKind.MUNMAP: 2}
#: Kinds whose record's result means something. munmap is seen at entry, before it has one.
_WITH_RESULT = frozenset({*_ARGUMENTS, EventKind.EXIT, EventKind.THREAD_EXIT}) - {EventKind.MUNMAP}

_REASONS = {int(reason): reason for reason in Missing}

#: Rows turned into Python values at a time.
_BLOCK = 1024


class _Header(NamedTuple):
    """The columns of a row that a page takes over."""

    ordinal: int
    flags: int
    timestamp_ns: int
    pid: int
    tid: int
    address: int


class Decoder:
    """Decodes the events and pages of one state of an index."""

    def __init__(self, index: Index, relations: Relations, texts: Texts, clock: Clock) -> None:
        self._index = index
        self._relations = relations
        self._texts = texts
        self._clock = clock
        self._process_starts: list[int] = relations.processes["start_time_ns"].tolist()

    @cached_property
    def evidence(self) -> NDArray[np.uint8]:
        """For each page row how it is known that its content was executed (``model.Evidence``)."""
        return find_evidence(self._relations)

    def path(self, number: int) -> str | None:
        """Return the backing file's path of event ``number``."""
        row = self._relations.events[number]
        if not row["device"]:
            return None
        return self._texts.path(int(row["device"]), int(row["inode"]), int(row["ordinal"]))

    def event(self, number: int, stacks: Stacks | None = None) -> Event:
        """Return event ``number`` of the relations; its stack only with ``stacks``, for it takes long."""
        row: Rows = self._relations.events[number]
        fields: dict[str, Any] = dict(zip(row.dtype.names or (), row.tolist(), strict=True))
        kind = EventKind(fields["kind"])
        about_region = kind < EventKind.FORK
        previous_known = about_region and not fields["status"] & Status.PREVIOUS_UNKNOWN
        return Event(
            sequence=fields["ordinal"],
            timestamp_ns=fields["timestamp_ns"],
            wall_time=self._clock.wall_time(fields["timestamp_ns"]),
            pid=fields["pid"],
            tid=fields["tid"],
            process_start_ns=self._process_starts[self._relations.event_process[number]],
            comm=decode_comm(fields["comm"]),
            kind=kind,
            arguments=tuple(fields["arguments"][: _ARGUMENTS.get(kind, 0)].tolist()),
            result=fields["result"] if kind in _WITH_RESULT else None,
            protection=Protection(fields["protection"]),
            previous_protection=Protection(fields["previous_protection"]) if previous_known else None,
            region=self._region(number, fields) if about_region else None,
            status=Status(fields["status"]),
            caller=fields["caller_ip"] or None,
            stack=stacks.of(number) if stacks else (),
            parent_pid=fields["parent_pid"] or None,
            uid=fields["uid"] if number < self._relations.recorded_count else None,
            namespace_pid=fields["namespace_pid"] or None,
            page_count=fields["page_count"],
            coalesced=fields["coalesced"],
            coalesced_since_ns=fields["coalesced_since_ns"] or None,
            outcome=self._outcome(number, fields["page_count"]) if about_region else None,
            fault_address=int(fields["arguments"][0]) if kind is EventKind.FETCH else None,
            registers=self._registers(number),
        )

    def _registers(self, number: int) -> Registers | None:
        """Return the thread's registers at event ``number``; None if they are not known."""
        record = self._relations.event_registers[number]
        if record < 0:
            return None
        row = self._relations.registers[record]
        names = REGISTERS.get(int(row["machine"]), ())
        # A count beyond what the machine has is a lie, as is one beyond the field.
        values: list[int] = row["values"][: row["count"]].tolist()
        return Registers(names[: len(values)], tuple(values[: len(names)]))

    def pages(self, rows: Numbers, runs: Numbers, addresses: range) -> Iterator[Page]:
        """Return the page table's ``rows`` and the missing table's ``runs``, merged by sequence.

        Of the runs, only the pages that overlap ``addresses``.
        """
        return heapq.merge(self.stored(rows), self._missing(runs, addresses), key=attrgetter("sequence"))

    def page_rows(self, rows: Numbers, runs: Numbers, zeros: Numbers) -> Iterator[Page | MissingRun]:
        """Return pages, runs of missing pages and runs of zeros, merged by sequence."""
        relations = self._relations
        streams: tuple[Iterator[Page | MissingRun], ...] = (
            self.stored(rows),
            self._runs(runs, relations.runs, relations.run_event, relations.run_process),
            self._runs(zeros, relations.zeros, relations.zero_event, relations.zero_process),
        )
        return heapq.merge(*streams, key=attrgetter("sequence"))

    def stored(self, rows: Numbers) -> Iterator[Page]:
        """Return the pages of the page table's ``rows``."""
        relations = self._relations
        for numbers in _blocks(rows):
            block = relations.rows[numbers]
            for header, event, start_ns, generation, evidence, content, reason in zip(
                _headers(block),
                self._events(relations.row_event[numbers]),
                self._starts(relations.row_process[numbers]),
                relations.generations[numbers].tolist(),
                self.evidence[numbers].tolist(),
                block["content"].tolist(),
                block["missing"].tolist(),
                strict=True,
            ):
                stored = self._index.contents.page(content) if content != NO_CONTENT else None
                if stored:
                    yield self._page(
                        header, event, start_ns, generation=generation, evidence=evidence, stored=stored
                    )
                else:
                    missing = Missing.DAMAGED if content != NO_CONTENT else missing_reason(reason)
                    yield self._page(header, event, start_ns, missing=missing)

    def _region(self, number: int, fields: Mapping[str, Any]) -> Region:
        if not fields["device"]:
            return Region(fields["address"], fields["length"])
        return Region(
            fields["address"],
            fields["length"],
            self.path(number),
            fields["device"],
            fields["inode"],
            fields["file_offset"],
        )

    def _outcome(self, number: int, page_count: int) -> Outcome | None:
        reported = self._relations.event_outcome[number]
        if reported >= 0:
            record = self._index.outcomes[reported]
            return Outcome(**{name: int(record[name]) for name in OUTCOME_COUNTS})
        captured = int(self._relations.event_pages[number])
        return Outcome(captured=captured) if page_count or captured else None

    def _missing(self, runs: Numbers, addresses: range) -> Iterator[Page]:
        relations = self._relations
        fields = self._run_fields(runs, relations.runs, relations.run_event, relations.run_process)
        for header, event, start_ns, pages, reason in fields:
            skipped = max(0, addresses.start - header.address) // PAGE_SIZE * PAGE_SIZE
            end = min(header.address + pages * PAGE_SIZE, addresses.stop)
            for address in range(header.address + skipped, end, PAGE_SIZE):
                at = header._replace(address=address)
                yield self._page(at, event, start_ns, missing=reason)

    def _runs(
        self, chosen: Numbers, table: Rows, events: Numbers, processes: Numbers
    ) -> Iterator[MissingRun]:
        for header, event, start_ns, pages, reason in self._run_fields(chosen, table, events, processes):
            yield MissingRun(
                sequence=header.ordinal,
                timestamp_ns=header.timestamp_ns,
                wall_time=self._clock.wall_time(header.timestamp_ns),
                pid=header.pid,
                tid=header.tid,
                process_start_ns=start_ns,
                comm=event.comm,
                event=event.kind,
                address=header.address,
                length=pages * PAGE_SIZE,
                missing=reason,
            )

    def _run_fields(
        self, chosen: Numbers, table: Rows, events: Numbers, processes: Numbers
    ) -> Iterator[tuple[_Header, Event, int, int, Missing]]:
        """Return header, event, start of the process, number of pages and reason of each run."""
        for numbers in _blocks(chosen):
            block = table[numbers]
            yield from zip(
                _headers(block),
                self._events(events[numbers]),
                self._starts(processes[numbers]),
                block["pages"].tolist(),
                map(missing_reason, block["reason"].tolist()),
                strict=True,
            )

    def _page(
        self,
        header: _Header,
        event: Event,
        start_ns: int,
        *,
        generation: int = 0,
        evidence: int = 0,
        stored: StoredPage | None = None,
        missing: Missing | None = None,
    ) -> Page:
        return Page(
            pid=header.pid,
            tid=header.tid,
            comm=event.comm,
            address=header.address,
            content=stored.content if stored else None,
            missing=missing,
            event=event.kind,
            protection=event.protection,
            previous_protection=event.previous_protection,
            timestamp_ns=header.timestamp_ns,
            wall_time=self._clock.wall_time(header.timestamp_ns),
            generation=generation,
            sequence=header.ordinal,
            region=event.region or Region(header.address, PAGE_SIZE),
            process_start_ns=start_ns,
            late=bool(header.flags & FLAG_LATE),
            fetched=bool(header.flags & FLAG_FETCHED),
            sha256=stored.digest.hex() if stored else None,
            evidence=Evidence(evidence),
        )

    def _events(self, numbers: Numbers) -> Iterator[Event]:
        """Return the event of each number, decoding it once for as long as it stays the same."""
        for number, same in itertools.groupby(numbers.tolist()):
            yield from itertools.repeat(self.event(number), len(list(same)))

    def _starts(self, processes: Numbers) -> Iterator[int]:
        return map(self._process_starts.__getitem__, processes.tolist())


def decode_comm(raw: bytes) -> str:
    """Return a thread's name; undecodable bytes become surrogates (``surrogateescape``)."""
    return raw.split(b"\0", 1)[0].decode(errors="surrogateescape")


def _blocks(numbers: Numbers) -> Iterator[Numbers]:
    return (numbers[start : start + _BLOCK] for start in range(0, len(numbers), _BLOCK))


def _headers(rows: Rows) -> Iterator[_Header]:
    return map(_Header, *(rows[name].tolist() for name in _Header._fields))


def missing_reason(value: int) -> Missing:
    """Return the reason with this number on the wire."""
    return _REASONS.get(value, Missing.UNKNOWN)

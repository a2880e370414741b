"""Puts what the engine saw into the records of ``bpf/memory_tracer.h``, so that every reader knows them."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...model import PAGE_SIZE, EventKind, Missing, Protection, Status
from ...wire.encode import Encoder, Identity, Value
from ...wire.layout import RECORD_ALIGNMENT, RING_HEADER_BYTES, STACK_FRAMES, RecordType
from ..baseline import UserSpaceReader
from ..memory import Mapping, Source
from ..settings import Settings
from .sink import Sink
from .system import Tracer
from .tracees import AddressSpace, Backed, Process, Task

#: Names of threads are asked for again after so long (nanoseconds).
_COMM_NS = 200_000_000
#: How much of a stack is searched for frames.
_STACK_BYTES = 2048
#: From so many flips on, pages of a range are compared with what was recorded of them last.
_HOT_FLIPS = 3

_TYPE = RING_HEADER_BYTES + 1
_WORDS = {8: "<Q", 4: "<I"}

assert RECORD_ALIGNMENT % 8 == 0


class Records:
    """Makes records, and knows which of them the user asked for."""

    def __init__(self, settings: Settings, sink: Sink, tracer: Tracer) -> None:
        """Write into ``sink``."""
        self._settings = settings
        self._sink = sink
        self._tracer = tracer
        self._encoder = Encoder(flags=0)
        self.reader = UserSpaceReader(settings, encoder=self._encoder, status=Status.WATCHED)
        self._named: set[tuple[int, int]] = set()
        #: When the last event was; its pages are of the same moment.
        self._moment = 0

    def _put(self, records: Iterable[bytes]) -> None:
        for record in records:
            self._sink.put(record, RecordType(record[_TYPE]))

    def wants(self, task: Task, kind: EventKind, protection: Protection, backed: Backed | None) -> bool:
        """Apply the filters that the kernel program applies."""
        settings, owner = self._settings, task.process
        if owner.silent or (settings.kinds is not None and kind not in settings.kinds):
            return False
        if settings.uid is not None and owner.uid != settings.uid:
            return False
        if settings.comm is not None and self.comm(task) != settings.comm.encode():
            return False
        linked = backed is not None and backed.inode and not backed.status & Status.UNLINKED
        if linked and settings.exclude_file_backed:
            return False
        return kind >= EventKind.FORK or protection & settings.protection.mask == settings.protection.value

    def comm(self, task: Task) -> bytes:
        """The thread's name, at most a moment old."""
        owner, now = task.process, time.monotonic_ns()
        if now - owner.comm_ns > _COMM_NS or not owner.comm:
            owner.comm_ns = now
            with contextlib.suppress(OSError):
                owner.comm = Path(f"/proc/{task.tid}/comm").read_bytes().rstrip(b"\n")
        return owner.comm

    def event(
        self,
        task: Task,
        kind: EventKind,
        address: int = 0,
        length: int = 0,
        *,
        backed: Backed | None = None,
        tid: int | None = None,
        owner: Process | None = None,
        **fields: Value,
    ) -> int:
        """Record an event, unless it was not asked for; returns its sequence number, or 0."""
        protection = Protection(fields.get("protection", 0))  # type: ignore[arg-type]
        asked = Protection.EXEC if kind is EventKind.MUNMAP else protection
        if kind in (EventKind.MPROTECT, EventKind.PKEY_MPROTECT) and not protection & Protection.EXEC:
            asked = Protection(fields.get("previous_protection", 0))  # type: ignore[arg-type]
        if not self.wants(task, kind, asked, backed):
            return 0
        owner = owner or task.process
        self._moment = time.monotonic_ns()
        who = Identity(owner.pid, tid or task.tid, owner.start_ns, self._moment)
        fields.setdefault("parent_pid", owner.parent)
        if backed is not None and backed.inode:
            fields.setdefault("inode", backed.inode)
            fields.setdefault("device", backed.device)
            fields.setdefault("file_offset", max(backed.origin + address, 0))
        if backed is not None:
            fields["status"] = int(fields.get("status", 0)) | backed.status  # type: ignore[arg-type]
        sequence, record = self._encoder.event(
            who,
            address,
            kind=kind,
            length=length,
            uid=owner.uid,
            namespace_pid=owner.namespace_pid,
            comm=self.comm(task)[:15],
            **fields,
        )
        self._sink.put(record, RecordType.EVENT)
        return sequence

    def _who(self, task: Task) -> Identity:
        return Identity(task.process.pid, task.tid, task.process.start_ns, self._moment)

    def path(self, task: Task, mapping: Mapping) -> None:
        """Name a file, once."""
        file = (mapping.device, mapping.inode)
        if mapping.inode and file not in self._named:
            self._named.add(file)
            who = self._who(task)
            self._put([self._encoder.path(who, *file, mapping.path)])

    def program(self, task: Task, sequence: int, mapping: Mapping | None) -> None:
        """Record what a process has just begun to execute: arguments and executable mappings."""
        if mapping is not None:
            self.path(task, mapping)
        if not task.process.silent:
            self._put(self.reader.exec_mappings(task.process.pid, task.process.start_ns))

    def baseline(self, task: Task) -> None:
        """Record what is executable in a process that we have attached to."""
        self._put(self.reader.baseline(task.process.pid))

    def page(self, task: Task, cause: int, address: int, content: bytes | None) -> None:
        """Record one page of event ``cause``."""
        who = self._who(task)
        if content is None:
            self._put([self._encoder.missing(who, address, cause, 1, Missing.UNREADABLE)])
        else:
            self._sink.put(self._encoder.page(who, address, cause, content), RecordType.PAGE)

    def stack(self, task: Task, cause: int, ip: int, sp: int, frame: int) -> None:
        """Record the way to event ``cause``, as the frame pointers give it."""
        raw = self._tracer.read(task.tid, sp, _STACK_BYTES)
        if len(raw) < 8:
            return
        words = struct.unpack(f"<{len(raw) // 8}Q", raw[: len(raw) // 8 * 8])
        frames = [ip]
        while len(frames) < STACK_FRAMES:
            at = frame - sp
            if at < 0 or at % 8 or at // 8 + 1 >= len(words) or not words[at // 8 + 1]:
                break
            frames.append(words[at // 8 + 1])
            following = words[at // 8]
            if following <= frame:
                break
            frame = following
        who = self._who(task)
        self._put([self._encoder.stack(who, cause, words[0], frames)])

    def pages(self, task: Task, cause: int, start: int, end: int, mappings: Iterable[Mapping]) -> None:
        """Record what a range holds that a call has just made executable."""
        space, memory = task.space, task.space.memory
        if not cause or memory is None:
            return
        flips = space.flips[start] = space.flips.get(start, 0) + 1
        if flips > _HOT_FLIPS:
            self._changed(task, cause, start, end, mappings)
            return
        who = self._who(task)
        for mapping in mappings:
            first, last = max(start, mapping.start), min(end, mapping.end)
            if first < last:
                self._put(self.reader.pages(memory, who, mapping, cause, first, last))

    def _changed(self, task: Task, cause: int, start: int, end: int, mappings: Iterable[Mapping]) -> None:
        """The same for a range that is flipped again and again: only pages that changed since."""
        space, unchanged, captured = task.space, 0, 0
        elsewhere = {Source.FILE: 0, Source.NOWHERE: 0}
        for address, content, source in self._each(space, start, end, mappings):
            if content is None:
                elsewhere[source] = elsewhere.get(source, 0) + 1
            elif space.contents.get(address) == content:
                unchanged += 1
            else:
                space.contents[address] = content
                self.page(task, cause, address, content)
                captured += 1
        who = self._who(task)
        self._sink.counts["unchanged"] += unchanged
        outcome = self._encoder.outcome(
            who,
            start,
            cause,
            captured=captured,
            unchanged=unchanged,
            absent=elsewhere[Source.NOWHERE],
            in_file=elsewhere[Source.FILE],
            unreadable=elsewhere.get(Source.PROCESS, 0),
        )
        self._put([outcome])

    @staticmethod
    def _each(
        space: AddressSpace, start: int, end: int, mappings: Iterable[Mapping]
    ) -> Iterator[tuple[int, bytes | None, Source]]:
        assert space.memory is not None
        for mapping in mappings:
            first, last = max(start, mapping.start), min(end, mapping.end)
            for run in space.memory.read(mapping, first, last) if first < last else ():
                for number in range(run.pages):
                    at = number * PAGE_SIZE
                    content = run.content[at : at + PAGE_SIZE] if run.content is not None else None
                    yield run.address + at, content, run.source

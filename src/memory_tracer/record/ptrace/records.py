"""Puts what the engine saw into the records of ``bpf/memory_tracer.h``, so that every reader knows them."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from ...model import PAGE_SIZE, EventKind, Missing, Protection, Status
from ...wire.encode import Encoder, Identity, Value
from ...wire.layout import RECORD_ALIGNMENT, RING_HEADER_BYTES, STACK_FRAMES, RecordType
from ..baseline import UserSpaceReader
from ..memory import Mapping, Run, Source
from ..settings import Settings
from .registers import Registers
from .sink import Sink
from .system import Tracer
from .tracees import AddressSpace, Backed, Process, Task

#: Names of threads are asked for again after so long (nanoseconds).
_COMM_NS = 200_000_000
#: How much of a stack is searched for frames.
_STACK_BYTES = 2048
#: From so many flips on, pages of a range are compared with what was recorded of them last.
_HOT_FLIPS = 3
#: So much of a range is kept until its thread goes on.
_KEPT_BYTES = 4 << 20

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
        #: What is encoded when the thread goes on; what it is made of has been read.
        self._later: list[Callable[[], None]] = []

    def flush(self) -> None:
        """Encode what waits for that. Threads that have stopped meanwhile wait for it."""
        later, self._later = self._later, []
        for encode in later:
            encode()

    def _put(self, records: Iterable[bytes]) -> None:
        self.flush()
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
        fields.update(kind=kind, length=length, uid=owner.uid, namespace_pid=owner.namespace_pid)
        fields["comm"], sequence = self.comm(task)[:15], self._encoder.number()
        self._later.append(partial(self._event, who, address, sequence, fields))
        return sequence

    def _event(self, who: Identity, address: int, sequence: int, fields: dict[str, Value]) -> None:
        self._sink.put(self._encoder.event(who, address, sequence, **fields)[1], RecordType.EVENT)

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
        self._later.append(partial(self._page, self._who(task), cause, address, content))

    def _page(self, who: Identity, cause: int, address: int, content: bytes | None) -> None:
        if content is None:
            missing = self._encoder.missing(who, address, cause, 1, Missing.UNREADABLE)
            self._sink.put(missing, RecordType.MISSING)
        else:
            self._sink.put(self._encoder.page(who, address, cause, content), RecordType.PAGE)

    def registers(self, task: Task, cause: int, registers: Registers) -> None:
        """Record the registers at event ``cause``."""
        self._later.append(partial(self._registers, self._who(task), cause, registers))

    def _registers(self, who: Identity, cause: int, registers: Registers) -> None:
        record = self._encoder.registers(who, cause, registers.machine.elf, registers.raw)
        self._sink.put(record, RecordType.REGISTERS)

    def stack(self, task: Task, cause: int, ip: int, sp: int, frame: int) -> None:
        """Record the way to event ``cause``, as the frame pointers give it."""
        raw = self._tracer.read(task.tid, sp, _STACK_BYTES)
        if len(raw) >= 8:
            self._later.append(partial(self._stack, self._who(task), cause, ip, sp, frame, raw))

    def _stack(self, who: Identity, cause: int, ip: int, sp: int, frame: int, raw: bytes) -> None:
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
        self._sink.put(self._encoder.stack(who, cause, words[0], frames), RecordType.STACK)

    def pages(self, task: Task, cause: int, start: int, end: int, mappings: Iterable[Mapping]) -> None:
        """Record what a range holds that a call has just made executable."""
        space, memory = task.space, task.space.memory
        if not cause or memory is None:
            return
        flips = space.flips[start] = space.flips.get(start, 0) + 1
        if flips > _HOT_FLIPS:
            runs = self._runs(space, start, end, mappings)
            if end - start > _KEPT_BYTES:
                self.flush()
                self._changed(self._who(task), space, cause, start, runs)
            else:
                self._later.append(partial(self._changed, self._who(task), space, cause, start, list(runs)))
            return
        who = self._who(task)
        for mapping in mappings:
            first, last = max(start, mapping.start), min(end, mapping.end)
            if first < last:
                self._put(self.reader.pages(memory, who, mapping, cause, first, last))

    def _changed(
        self, who: Identity, space: AddressSpace, cause: int, start: int, runs: Iterable[Run]
    ) -> None:
        """The same for a range that is flipped again and again: only pages that changed since."""
        contents, unchanged, captured = space.contents, 0, 0
        elsewhere = dict.fromkeys(Source, 0)
        for run in runs:
            if run.content is None:
                elsewhere[run.source] += run.pages
                continue
            for at in range(0, len(run.content), PAGE_SIZE):
                address, content = run.address + at, run.content[at : at + PAGE_SIZE]
                if contents.get(address) == content:
                    unchanged += 1
                else:
                    contents[address] = content
                    self._page(who, cause, address, content)
                    captured += 1
        self._sink.counts["unchanged"] += unchanged
        outcome = self._encoder.outcome(
            who,
            start,
            cause,
            captured=captured,
            unchanged=unchanged,
            absent=elsewhere[Source.NOWHERE],
            in_file=elsewhere[Source.FILE],
            unreadable=elsewhere[Source.PROCESS],
        )
        self._sink.put(outcome, RecordType.OUTCOME)

    @staticmethod
    def _runs(space: AddressSpace, start: int, end: int, mappings: Iterable[Mapping]) -> Iterator[Run]:
        assert space.memory is not None
        for mapping in mappings:
            first, last = max(start, mapping.start), min(end, mapping.end)
            if first < last:
                yield from space.memory.read(mapping, first, last)

"""Records that user space adds to the kernel's: the baseline at attach, and what the kernel deferred.

Both read a process's memory from outside while it runs, so bytes can be younger than the event
they belong to: every page carries FLAG_LATE and the time at which it was read.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..model import PAGE_SIZE, EventKind, Missing, Protection, Status
from ..wire.encode import Encoder, Identity
from . import process
from .memory import Mapping, ProcessMemory, Run, Source
from .settings import Settings

#: More is not read for one process at one time; the rest is recorded as deferred.
PAGE_LIMIT = 1 << 18


@dataclass(slots=True)
class LateCounts:
    """What user space read, in pages, and of how many processes it could not even list the mappings."""

    read: int = 0
    gone: int = 0
    refused: int = 0
    unlisted: int = 0


class UserSpaceReader:
    """Makes records from what user space can see of a process."""

    def __init__(
        self, settings: Settings, *, encoder: Encoder | None = None, status: Status = Status.NONE
    ) -> None:
        """Start numbering records; ``settings`` say which mappings matter.

        With an ``encoder`` of its own who calls says that the processes are stopped while they are
        read; ``status`` is then that of all mappings.
        """
        self._settings = settings
        self._stopped = encoder is not None
        self._encoder = encoder or Encoder()
        self._status = status
        self.counts = LateCounts()

    def baseline(self, pid: int, start_time_ns: int | None = None) -> Iterator[bytes]:
        """Everything executable in process ``pid`` now, as records in ring format.

        With ``start_time_ns``, only if it is still the process that started then: another one with its
        PID may be outside the scope.

        Bytes are read of anonymous memory, memfds and deleted files; mappings of files that can be
        looked up are described by path, inode and offset. Yields nothing for a process that ended.
        """
        if start_time_ns is not None and not process.is_same(pid, start_time_ns):
            return
        try:
            yield from self._mappings(pid, EventKind.BASELINE)
        except OSError as error:
            # If it ended, its exit event says so.
            self.counts.refused += not process.has_ended(error)

    def exec_mappings(self, pid: int, start_time_ns: int) -> Iterator[bytes]:
        """The executable mappings of a process that has just called execve."""
        try:
            if not process.is_same(pid, start_time_ns):
                raise ProcessLookupError
            yield from self._mappings(pid, EventKind.EXEC_MAPPING)
        except OSError:
            self.counts.unlisted += 1  # nothing else will say what was mapped

    def _mappings(self, pid: int, kind: EventKind) -> Iterator[bytes]:
        who = self._identity(pid)
        name = process.comm(pid)
        parent, inner = process.parent_pid(pid), process.namespace_id(pid)
        if not self._is_wanted(pid, name):
            return
        with self.open(pid) as memory:
            yield self._encoder.command_line(who, memory.command_line())
            for mapping in memory.mappings():
                if self._matters(mapping, kind):
                    yield from self._mapping(memory, who, mapping, kind, name, parent, inner)

    def open(self, pid: int) -> ProcessMemory:
        """The memory of a process, to be read from; raises OSError when it is gone."""
        return ProcessMemory(pid, files_since_ns=self._settings.files_since_ns, stopped=self._stopped)

    def _is_wanted(self, pid: int, name: bytes) -> bool:
        """Apply the filters that the kernel program applies to threads."""
        settings = self._settings
        if settings.uid is not None and process.uid(pid) != settings.uid:
            return False
        return settings.comm is None or name == settings.comm.encode(errors="surrogateescape")[:15]

    def _matters(self, mapping: Mapping, kind: EventKind) -> bool:
        """Apply the filters that the kernel program applies to calls."""
        settings, protection = self._settings, mapping.protection
        return (
            protection & Protection.EXEC != 0
            and protection & settings.protection.mask == settings.protection.value
            and (settings.kinds is None or kind in settings.kinds)
            and not (settings.exclude_file_backed and mapping.linked)
            and mapping.name != b"[vsyscall]"
        )

    def _mapping(
        self,
        memory: ProcessMemory,
        who: Identity,
        mapping: Mapping,
        kind: EventKind,
        name: bytes,
        parent: int,
        inner: int,
    ) -> Iterator[bytes]:
        pages = (mapping.end - mapping.start) // PAGE_SIZE
        if mapping.inode:
            yield self._encoder.path(who, mapping.device, mapping.inode, mapping.path)
        status = Status.PREVIOUS_UNKNOWN | self._status
        # From here nobody can tell whether others map it, too.
        status |= Status.SHARED | Status.VIEWED if mapping.shared else Status.NONE
        status |= Status.UNLINKED if mapping.unlinked else Status.NONE
        status |= Status.RECENT if mapping.linked and memory.is_recent(mapping) else Status.NONE
        sequence, record = self._encoder.event(
            who,
            mapping.start,
            kind=kind,
            status=status,
            length=mapping.end - mapping.start,
            protection=mapping.protection,
            inode=mapping.inode,
            device=mapping.device,
            file_offset=mapping.offset,
            page_count=pages,
            parent_pid=parent,
            namespace_pid=inner,
            namespace_tid=inner,
            comm=name[:15],
        )
        yield record
        yield from self.pages(memory, who, mapping, sequence, mapping.start, mapping.end)

    def deferred(self, pid: int, start_time_ns: int, cause: int, address: int, pages: int) -> Iterator[bytes]:
        """Read pages that the kernel program left out of event ``cause``."""
        end = address + pages * PAGE_SIZE
        found = 0
        try:
            if not process.is_same(pid, start_time_ns):
                raise ProcessLookupError
            who = self._identity(pid)
            with self.open(pid) as memory:
                for mapping in memory.mappings():
                    if mapping.start < end and address < mapping.end:
                        start, stop = max(address, mapping.start), min(end, mapping.end)
                        yield from self.pages(memory, who, mapping, cause, start, stop)
                        found += (stop - start) // PAGE_SIZE
        except OSError as error:
            self.counts.refused += not process.has_ended(error)
        self.counts.gone += pages - found

    def pages(
        self, memory: ProcessMemory, who: Identity, mapping: Mapping, cause: int, start: int, end: int
    ) -> Iterator[bytes]:
        """Read a part of a mapping for event ``cause``."""
        elsewhere: Counter[Source] = Counter()
        captured = 0
        for run in memory.read(mapping, start, end):
            if run.source is not Source.PROCESS:
                elsewhere[run.source] += run.pages
                if run.source is Source.NOWHERE:
                    yield self._encoder.missing(who, run.address, cause, run.pages, Missing.ABSENT)
            elif run.content is None:
                reason = Missing.GONE if memory.gone else Missing.UNREADABLE
                yield self._encoder.missing(who, run.address, cause, run.pages, reason)
            elif captured + run.pages > PAGE_LIMIT:
                yield self._encoder.missing(
                    who, run.address, cause, (end - run.address) // PAGE_SIZE, Missing.DEFERRED
                )
                break
            else:
                captured += run.pages
                yield from self._contents(who, cause, run)
        if elsewhere:
            yield self._encoder.outcome(
                who,
                start,
                cause,
                captured=captured,
                absent=elsewhere[Source.NOWHERE],
                in_file=elsewhere[Source.FILE],
            )

    def _contents(self, who: Identity, cause: int, run: Run) -> Iterator[bytes]:
        content = run.content or b""
        # Nothing has happened to a stopped process since its event.
        moment = who.timestamp_ns if self._stopped else time.monotonic_ns()
        now = Identity(who.pid, who.tid, who.start_time_ns, moment)
        self.counts.read += run.pages
        for index in range(run.pages):
            piece = content[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]
            yield self._encoder.page(now, run.address + index * PAGE_SIZE, cause, piece)

    @staticmethod
    def _identity(pid: int) -> Identity:
        return Identity(pid, pid, process.start_time_ns(pid), time.monotonic_ns())

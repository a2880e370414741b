"""What system calls do to memory: which are changed at their entry, what they mean at their exit.

A request for memory that is to be watched (writable and executable, or executable and shared) is
granted without execute. The call's result is the target's own.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...capture.ranges import Ranges
from ...model import PAGE_SIZE, EventKind, Protection, Status
from ..memory import Mapping
from . import abi, system
from .abi import Call
from .calls import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_SHARED,
    PERSONALITY_QUERY,
    READ_IMPLIES_EXEC,
    SHM_RDONLY,
    Decoder,
    Request,
)
from .inject import Registers
from .machine import Area, Protect, is_watched
from .system import CallStop
from .tracees import AddressSpace, Backed, Process, Task

if TYPE_CHECKING:
    from .engine import Engine

_EXEC, _WRITE, _READ = Protection.EXEC, Protection.WRITE, Protection.READ
_KINDS = {
    Call.MMAP: EventKind.MMAP,
    Call.MPROTECT: EventKind.MPROTECT,
    Call.PKEY_MPROTECT: EventKind.PKEY_MPROTECT,
    Call.MUNMAP: EventKind.MUNMAP,
    Call.MREMAP: EventKind.MREMAP,
    Call.SHMAT: EventKind.SHMAT,
}
#: Failures that can have changed a part.
_PARTIAL = frozenset({errno.ENOMEM, errno.EACCES})
_DISCARDING = frozenset({4, 8, 9, 24})  # MADV_DONTNEED, _FREE, _REMOVE, _DONTNEED_LOCKED
_CLONE, _CLONE3, _CLONE_I386 = 56, 435, 120
_CLONE_VM = 0x100
_PROT_GROWSDOWN = 0x01000000
_COMPAT_NAMES = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp")
#: Calls in which the kernel writes to memory, or refuses to work on mappings that differ.
_WRITTEN_BY_KERNEL = frozenset({Call.READ, Call.PREAD, Call.RECVFROM, Call.MREMAP})
_MEMORY_FILE = re.compile(r"/proc/(?:\d+/task/)?(\d+)/mem")
_CHANGES_RANGES = frozenset({Call.MUNMAP, Call.MREMAP, Call.MADVISE, Call.REMAP_FILE_PAGES})
_WRITES_TO_FILES = frozenset({Call.WRITE, Call.PWRITE, Call.WRITEV, Call.FTRUNCATE, Call.FALLOCATE})


class Effects:
    """Follows the calls of all tracees."""

    def __init__(self, engine: Engine, machine: abi.Machine) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._names = tuple(machine.arguments)
        self._decoder = Decoder(tuple(machine.abis))

    # Entry

    def enter(self, task: Task, stop: CallStop) -> None:
        """A thread is about to make a call; change it where needed, and let it go on."""
        engine = self._engine
        request = None
        if not task.process.silent:
            request = self._decoder.decode(stop, lambda at, length: engine.tracer.read(task.tid, at, length))
        if request is not None:
            if self._opens_first(task, request):
                return
            self._look_before(task, request)
            request = self._prepared(task, request)
        if request is not None:
            task.request, task.in_call = request, True
            if request.instead is not None:
                self._change(task, request)
        engine.resume(task)

    def _opens_first(self, task: Task, request: Request) -> bool:
        """Have pages made writable that the kernel is about to write to, or wants to find all alike.

        The call is then made again, and comes here once more.
        """
        if request.call not in _WRITTEN_BY_KERNEL or not task.space.watched.executing:
            return False
        engine = self._engine
        commands = engine.machine.open(
            task.space.watched, request.address - request.address % PAGE_SIZE, request.end
        )
        if not commands:
            return False
        engine.before_call(task, lambda task, registers: engine.carry_out(task, commands, registers))
        return True

    def _look_before(self, task: Task, request: Request) -> None:
        """Record what a process has inherited and is about to lose."""
        if not task.process.inherited.starts:
            return
        if request.call in (Call.EXECVE, Call.EXECVEAT):
            self.look_at_inherited(task)
        elif request.call in _CHANGES_RANGES or request.call in (Call.MPROTECT, Call.PKEY_MPROTECT):
            self.look_at_inherited(task, request.address, request.end)

    def look_at_inherited(self, task: Task, start: int = 0, end: int = 1 << 64) -> None:
        """Record the executable memory in a range that another process made."""
        inherited = task.process.inherited
        for first, last, _ in list(inherited.within(start, end)):
            inherited.put(first, last, None)
            for low, high, backed in list(task.space.known.within(first, last)):
                if backed.protection & _EXEC:
                    self._look(task, low, high, backed.protection, Status.WATCHED | backed.status)

    @staticmethod
    def inherit(process: Process, space: AddressSpace) -> None:
        """A new process has executable memory from the start; what files say need not be recorded."""
        for start, end, backed in space.known.within(0, 1 << 64):
            if backed.protection & _EXEC and (not backed.inode or backed.status & Status.UNLINKED):
                process.inherited.put(start, end, True)

    def _share(self, task: Task, start: int, end: int) -> None:
        """Others that share the memory have got something to execute."""
        for other in {each.process for each in task.space.tasks} - {task.process}:
            other.inherited.put(start, end, True)

    def _prepared(self, task: Task, request: Request) -> Request | None:
        """What to make of a call; None if its exit says nothing to us."""
        space = task.space
        prepare = {
            Call.MMAP: self._before_mmap,
            Call.MPROTECT: self._before_mprotect,
            Call.PKEY_MPROTECT: self._before_mprotect,
            Call.SHMAT: self._before_shmat,
        }.get(request.call)
        if prepare is not None:
            return prepare(space, request)
        if request.call is Call.PERSONALITY:
            return request.without_exec()
        if request.call is Call.BRK:
            return request if space.implies_exec else None
        if request.call is Call.PWRITE and self._memory_written_to(task, request) is not None:
            return request
        if request.call in _WRITES_TO_FILES:
            return request if self._engine.machine.shares else None
        if request.call in _CHANGES_RANGES:
            end = max(request.end, request.address + PAGE_SIZE)  # mremap of nothing makes a copy
            return request if self._concerns(space, request.address, end) else None
        return None

    def _before_mmap(self, space: AddressSpace, request: Request) -> Request | None:
        shared = bool(request.flags & MAP_SHARED)
        space.has_shared |= shared
        request = replace(request, protection=self._wanted(space, request.protection))
        if is_watched(request.protection, shared=shared):
            return request.without_exec()
        request = request.with_protection() if space.implies_exec else request
        matters = request.protection & _EXEC or request.flags & (MAP_SHARED | MAP_FIXED)
        return request if matters else None

    def _before_shmat(self, space: AddressSpace, request: Request) -> Request:
        space.has_shared = True
        request = replace(request, protection=self._wanted(space, request.protection))
        return request.without_exec() if request.protection & _EXEC else request

    def _before_mprotect(self, space: AddressSpace, request: Request) -> Request | None:
        request = replace(request, protection=self._wanted(space, request.protection))
        if not request.protection & _EXEC:
            return request if self._concerns(space, request.address, request.end) else None
        shared = space.has_shared and any(
            mapping.shared for mapping in self._mappings(space, request.address, request.end)
        )
        if is_watched(request.protection, shared=shared):
            return request.without_exec()
        return request.with_protection() if space.implies_exec else request

    @staticmethod
    def _wanted(space: AddressSpace, protection: Protection) -> Protection:
        return protection | _EXEC if space.implies_exec and protection & _READ else protection

    @staticmethod
    def _concerns(space: AddressSpace, start: int, end: int) -> bool:
        """Whether [start, end) has memory that was executable, or that we watch."""
        return any(True for _ in space.known.within(start, end)) or any(
            True for _ in space.watched.areas.within(start, end)
        )

    def _change(self, task: Task, request: Request) -> None:
        assert request.instead is not None
        number, arguments = request.instead
        names = _COMPAT_NAMES if request.compat else self._names
        values = dict(zip(names, arguments, strict=False))
        registers = self._engine.registers(task)
        self._engine.tracer.set_registers(task.tid, registers.changed(orig_rax=number, **values))

    def _change_back(self, task: Task, request: Request, result: int | None = None) -> None:
        names = _COMPAT_NAMES if request.compat else self._names
        registers = self._engine.registers(task)
        values = {
            name: registers[name] if old & 0xFFFFFFFF == registers[name] else old
            for name, old in zip(names, request.arguments, strict=False)
        }
        if result is not None:
            values["rax"] = result
        self._engine.tracer.set_registers(task.tid, registers.changed(orig_rax=request.number, **values))

    # Exit

    def leave(self, task: Task, request: Request, result: int) -> None:
        """A call is over."""
        if request.call is Call.PERSONALITY:
            self._after_personality(task, request, result)
            return
        if request.instead is not None:
            self._change_back(task, request)
        if request.call is Call.MMAP:
            self._after_placing(task, request, result, result, request.length)
            return
        after = {
            Call.SHMAT: self._after_shmat,
            Call.MPROTECT: self._after_mprotect,
            Call.PKEY_MPROTECT: self._after_mprotect,
            Call.MUNMAP: self._after_munmap,
            Call.MREMAP: self._after_mremap,
            Call.BRK: self._after_brk,
            Call.REMAP_FILE_PAGES: self._after_remap,
            Call.MADVISE: self._after_madvise,
        }.get(request.call, self._after_write)
        after(task, request, result)

    def _after_madvise(self, task: Task, request: Request, result: int) -> None:
        if request.arguments[2] in _DISCARDING:
            self._open(task, request.address, request.end)

    def _open(self, task: Task, start: int, end: int) -> None:
        commands = self._engine.machine.open(task.space.watched, start, end)
        if commands:
            self._engine.carry_out(task, commands, self._engine.registers(task))

    def _after_personality(self, task: Task, request: Request, result: int) -> None:
        space, asked = task.space, request.arguments[0] & 0xFFFFFFFF
        shown = result | READ_IMPLIES_EXEC if space.implies_exec and result >= 0 else result
        self._change_back(task, request, shown)
        if asked != PERSONALITY_QUERY and result >= 0:
            space.implies_exec = bool(asked & READ_IMPLIES_EXEC)
            space.every_call |= space.implies_exec

    def _event(self, task: Task, request: Request, result: int, start: int, length: int, **more: Any) -> int:
        """Record a call. It is an event only where execute plays a part."""
        fields: dict[str, Any] = {
            "protection": int(request.protection),
            "result": _signed(result),
            "arguments": tuple(request.arguments),
            "caller_ip": request.ip,
            "caller_sp": request.sp,
            **more,
        }
        fields["status"] = int(fields.get("status", 0)) | (Status.COMPAT if request.compat else 0)
        return self._engine.records.event(task, _KINDS[request.call], start, length, **fields)

    def _after_placing(self, task: Task, request: Request, result: int, start: int, length: int) -> None:
        """Memory was mapped at ``start``."""
        space, wanted = task.space, request.protection
        if _failed(result):
            if wanted & _EXEC:
                self._event(task, request, result, request.address, length)
            return
        end = start + -(-length // PAGE_SIZE) * PAGE_SIZE
        self._gone(space, start, end)
        anonymous = request.flags & (MAP_ANONYMOUS | MAP_SHARED | MAP_HUGETLB) == MAP_ANONYMOUS
        if request.flags & MAP_GROWSDOWN:
            space.growing.add(start)
        if wanted & _EXEC:
            mapping = _anonymous(start, end, wanted) if anonymous else self._mapping(space, start)
            self._executable(task, request, result, start, end, [mapping] if mapping else [])
        elif request.flags & MAP_SHARED and (mapping := self._mapping(space, start)) is not None:
            self._adopt(task, space, mapping)

    def _after_shmat(self, task: Task, request: Request, result: int) -> None:
        start = result
        if request.result_at and not _failed(result):
            start = int.from_bytes(self._engine.tracer.read(task.tid, request.result_at, 4), "little")
        mapping = None if _failed(result) else self._mapping(task.space, start)
        length = mapping.end - mapping.start if mapping is not None else 0
        flags = MAP_SHARED | (request.flags & SHM_RDONLY)
        self._after_placing(task, replace(request, flags=flags), result, start, length)

    def _executable(
        self, task: Task, request: Request, result: int, start: int, end: int, mappings: list[Mapping]
    ) -> None:
        """The target asked for execute in [start, end), and thinks that it has it."""
        space, wanted = task.space, request.protection
        first = mappings[0] if mappings else None
        backed = Backed.of(first, wanted) if first is not None else Backed(wanted)
        watched = is_watched(wanted, shared=any(mapping.shared for mapping in mappings))
        before = space.known.find(start)
        previous = space.known.values[before].protection if before >= 0 else Protection.NONE
        status = Status.WATCHED if watched else Status.NONE
        if before < 0 and request.call is not Call.MMAP:
            status |= Status.PREVIOUS_UNKNOWN
        status |= Status.SEVERAL_MAPPINGS if len(mappings) > 1 else Status.NONE
        status |= Status.PARTIAL if _failed(result) else Status.NONE
        status |= self._recent(space, first)
        for mapping in mappings:
            self._engine.records.path(task, mapping)
            space.known.put(max(start, mapping.start), min(end, mapping.end), Backed.of(mapping, wanted))
        cause = self._event(
            task,
            request,
            result,
            start,
            end - start,
            backed=backed,
            status=int(status),
            previous_protection=int(previous),
            page_count=0
            if watched
            else sum((min(end, each.end) - max(start, each.start)) // PAGE_SIZE for each in mappings),
        )
        self._share(task, start, end)
        if watched:
            for mapping in mappings:
                low, high = max(start, mapping.start), min(end, mapping.end)
                self._watch(task, space, low, high, mapping, wanted)
        else:
            self._engine.machine.forget(space.watched, start, end)
            self._engine.records.pages(task, cause, start, end, mappings)

    @staticmethod
    def _recent(space: AddressSpace, mapping: Mapping | None) -> Status:
        if mapping is None or not mapping.linked or space.memory is None:
            return Status.NONE
        return Status.RECENT if space.memory.is_recent(mapping) else Status.NONE

    def _watch(
        self, task: Task, space: AddressSpace, start: int, end: int, mapping: Mapping, wanted: Protection
    ) -> None:
        """Withhold execute from [start, end) of ``mapping``, which the kernel has granted without."""
        backing = (mapping.device, mapping.inode) if mapping.shared and mapping.inode else None
        origin = mapping.offset - mapping.start if backing else 0
        area = Area(wanted, backing, origin, self._page_size(space, mapping) if mapping.inode else PAGE_SIZE)
        commands = self._engine.machine.watch(space.watched, start, end, area)
        space.every_call = True
        if commands:
            self._engine.carry_out(task, commands, self._engine.registers(task))
        if backing is not None:
            for other in {each.space for each in self._engine.tasks.values() if not each.process.silent}:
                for view in other.memory.mappings() if other.memory is not None else ():
                    if (view.device, view.inode) == backing and view.shared:
                        self._adopt(task, other, view)

    def _adopt(self, task: Task, space: AddressSpace, view: Mapping) -> None:
        """Watch another view of memory that is watched, if it can be written to."""
        backing = (view.device, view.inode)
        watched = space.watched.area(view.start) is not None
        if watched or not view.protection & _WRITE or not self._engine.machine.knows(backing):
            return
        area = Area(view.protection, backing, view.offset - view.start, self._page_size(space, view))
        commands = self._engine.machine.watch(space.watched, view.start, view.end, area)
        space.every_call = True
        if commands:
            self._engine.carry_out(task, commands, self._engine.registers(task))

    def _after_mprotect(self, task: Task, request: Request, result: int) -> None:
        space, start, end = task.space, request.address, request.end
        wanted = request.protection
        if request.arguments[2] & _PROT_GROWSDOWN and (mapping := self._mapping(space, start)):
            start = mapping.start
            request = replace(request, address=start, length=end - start)
            space.growing.add(start)
        if _failed(result):
            if wanted & _EXEC:
                end = self._changed_until(space, request, -_signed(result))
                if end <= start:
                    self._event(task, request, result, start, request.length)
                    return
            else:
                return
        if wanted & _EXEC:
            self._executable(task, request, result, start, end, self._mappings(space, start, end))
            return
        pieces = list(space.known.within(start, end))
        previous = pieces[0][2].protection if pieces else Protection.NONE
        if any(backed.protection & _EXEC for _, _, backed in pieces):
            self._event(
                task,
                request,
                result,
                start,
                end - start,
                backed=pieces[0][2],
                previous_protection=int(previous),
            )
        for first, last, backed in pieces:
            space.known.put(first, last, replace(backed, protection=wanted))
        areas = list(space.watched.areas.within(start, end))
        self._engine.machine.forget(space.watched, start, end)
        for first, last, area in areas:
            if area.backing is not None and wanted & _WRITE:
                view = replace(area, wanted=wanted)
                commands = self._engine.machine.watch(space.watched, first, last, view)
                self._engine.carry_out(task, commands, self._engine.registers(task))

    def _changed_until(self, space: AddressSpace, request: Request, error: int) -> int:
        """How far a failed mprotect has come: to the first hole, or the first mapping that is as before."""
        if error not in _PARTIAL:
            return 0
        reached = request.address
        granted = request.protection
        if request.instead is not None:
            granted &= ~_EXEC
        for mapping in self._mappings(space, request.address, request.end):
            if mapping.start > reached or mapping.protection != granted:
                break
            reached = min(mapping.end, request.end)
        return reached

    def _after_munmap(self, task: Task, request: Request, result: int) -> None:
        if _failed(result):
            return
        pieces = list(task.space.known.within(request.address, request.end))
        executable = [backed for _, _, backed in pieces if backed.protection & _EXEC]
        self._gone(task.space, request.address, request.end)
        if executable:
            shown = replace(request, protection=Protection.NONE)
            self._event(
                task,
                shown,
                result,
                request.address,
                request.end - request.address,
                backed=executable[0],
                previous_protection=int(executable[0].protection),
                status=int(Status.SEVERAL_MAPPINGS if len(pieces) > 1 else Status.NONE),
            )

    def _gone(self, space: AddressSpace, start: int, end: int) -> None:
        """What was in [start, end) is not there any more."""
        space.known.put(start, end, None)
        self._engine.machine.forget(space.watched, start, end)
        if space.contents:
            for page in [page for page in space.contents if start <= page < end]:
                del space.contents[page]
        space.flips.pop(start, None)

    def _after_mremap(self, task: Task, request: Request, result: int) -> None:
        """Executable memory was moved, grown or cut."""
        space = task.space
        if _failed(result):
            return
        size = -(-request.arguments[2] // PAGE_SIZE) * PAGE_SIZE
        number = space.known.find(request.address)
        backed = space.known.values[number] if number >= 0 else None
        area = space.watched.area(request.address)
        keeps = request.length == 0 or request.flags & 4  # MREMAP_DONTUNMAP
        if not keeps:
            self._gone(space, request.address, request.end)
        self._gone(space, result, result + size)
        mapping = self._mapping(space, result)
        if backed is None or mapping is None:
            return
        wanted = backed.protection if area is None else area.wanted
        if area is not None and mapping.protection & _EXEC:
            self._withhold_from(task, result, result + size, wanted)
        if wanted & _EXEC:
            asked = replace(request, protection=wanted)
            self._executable(task, asked, result, result, result + size, [mapping])
        elif area is not None:
            self._watch(task, space, result, result + size, mapping, wanted)

    def _memory_written_to(self, task: Task, request: Request) -> Task | None:
        """A thread whose memory a write to /proc/PID/mem goes to, if it is one."""
        try:
            link = str(Path(f"/proc/{task.tid}/fd/{request.arguments[0] & 0xFFFFFFFF}").readlink())
        except OSError:
            return None
        found = _MEMORY_FILE.fullmatch(link)
        return self._engine.tasks.get(int(found[1])) if found else None

    def _after_remap(self, task: Task, request: Request, result: int) -> None:
        """Other pages of the same file are mapped at the address now."""
        space, area = task.space, task.space.watched.area(request.address)
        mapping = self._mapping(space, request.address)
        if area is not None and mapping is not None:
            self._withhold_from(task, request.address, request.end, area.wanted)
            self._watch(task, space, request.address, request.end, mapping, area.wanted)

    def _withhold_from(self, task: Task, start: int, end: int, wanted: Protection) -> None:
        """Take execute from a range that got it along with what was mapped there."""
        command = Protect(task.space.watched, start, end, wanted & ~_EXEC)
        self._engine.carry_out(task, [command], self._engine.registers(task))

    def _after_write(self, task: Task, request: Request, result: int) -> None:
        """A file was written to; if it is mapped executable, that is a write to the memory."""
        written = self._memory_written_to(task, request) if request.call is Call.PWRITE else None
        if written is not None:
            start = request.arguments[3] - request.arguments[3] % PAGE_SIZE
            end = -(-(request.arguments[3] + max(result, 0)) // PAGE_SIZE) * PAGE_SIZE
            for first, last, backed in list(written.space.known.within(start, end)):
                if backed.protection & _EXEC:
                    self._look(written, first, last, backed.protection, Status.WATCHED | backed.status)
            return
        try:
            found = Path(f"/proc/{task.tid}/fd/{request.arguments[0] & 0xFFFFFFFF}").stat()
        except OSError:
            return
        backing = (os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino)
        if self._engine.machine.knows(backing):
            commands = self._engine.machine.open_backing(backing)
            self._engine.carry_out(task, commands, self._engine.registers(task))

    def _after_brk(self, task: Task, request: Request, result: int) -> None:
        """The heap of a program for which all that can be read can be executed has grown."""
        space = task.space
        if space.break_end and result > space.break_end:
            start, end = -(-space.break_end // PAGE_SIZE) * PAGE_SIZE, -(-result // PAGE_SIZE) * PAGE_SIZE
            if start < end:
                wanted = _READ | _WRITE | _EXEC
                space.known.put(start, end, Backed(wanted))
                self._engine.machine.watch(space.watched, start, end, Area(wanted))
                space.every_call = True
        space.break_end = result

    # Programs

    def program_begins(self, task: Task) -> None:
        """Execve is over: record the program, and withhold what it has writable and executable."""
        engine, space, owner = self._engine, task.space, task.process
        engine.open_memory(space, task.tid)
        if owner.silent or space.memory is None:
            engine.resume(task)
            return
        mappings = space.memory.mappings()
        program = self._program(task, mappings)
        backed = Backed.of(program, Protection.NONE) if program is not None else None
        engine.records.event(task, EventKind.EXEC, backed=backed)
        engine.records.program(task, 0, program)
        self._personality(task)
        self.withhold(task, mappings)
        engine.resume(task)

    def begin_watching(self, task: Task, mappings: list[Mapping]) -> None:
        """Withhold execute in a process that has been running for a while."""
        self._personality(task)
        self.withhold(task, mappings)

    def give_back(self, task: Task, registers: Registers | None = None) -> None:
        """Give the target's memory the protections that it asked for."""
        engine, space = self._engine, task.space
        registers = registers or engine.registers(task)
        engine.carry_out(task, engine.machine.release(space.watched), registers)
        if space.implies_exec:
            value = engine.inject(task, registers, Call.PERSONALITY, PERSONALITY_QUERY)
            engine.inject(task, registers, Call.PERSONALITY, value | READ_IMPLIES_EXEC)
            space.implies_exec = False

    def _program(self, task: Task, mappings: list[Mapping]) -> Mapping | None:
        try:
            inode = Path(f"/proc/{task.tid}/exe").stat().st_ino
        except OSError:
            return None
        return next((mapping for mapping in mappings if mapping.inode == inode), None)

    def _personality(self, task: Task) -> None:
        """Take READ_IMPLIES_EXEC from the kernel; we do what it does."""
        try:
            value = int(Path(f"/proc/{task.tid}/personality").read_text(), 16)
        except (OSError, ValueError):
            return
        if value & READ_IMPLIES_EXEC:
            registers = self._engine.registers(task)
            self._engine.inject(task, registers, Call.PERSONALITY, value & ~READ_IMPLIES_EXEC)
            task.space.implies_exec = task.space.every_call = True

    def withhold(self, task: Task, mappings: list[Mapping]) -> None:
        """Learn what is executable, and withhold execute where it has to be."""
        space, registers = task.space, self._engine.registers(task)
        for mapping in mappings:
            space.has_shared |= mapping.shared
            if mapping.name == b"[heap]":
                space.break_end = mapping.end
            if not mapping.protection & _EXEC or mapping.name == b"[vsyscall]":
                continue
            space.known.put(mapping.start, mapping.end, Backed.of(mapping, mapping.protection))
            if is_watched(mapping.protection, shared=mapping.shared):
                if mapping.name == b"[stack]":
                    space.growing.add(mapping.start)
                granted = mapping.protection & ~_EXEC
                command = Protect(space.watched, mapping.start, mapping.end, granted)
                self._engine.carry_out(task, [command], registers)
                self._watch(task, space, mapping.start, mapping.end, mapping, mapping.protection)

    def clone_flags(self, task: Task, event: int) -> int:
        """How a thread that has just been made shares with the one that made it (clone(2))."""
        registers = self._engine.registers(task)
        number = registers["orig_rax"]
        first = registers[_COMPAT_NAMES[0] if registers.compat else self._names[0]]
        if number == _CLONE3:
            return int.from_bytes(self._engine.tracer.read(task.tid, first, 8), "little")
        if number == (_CLONE_I386 if registers.compat else _CLONE):
            return first
        return _CLONE_VM if event == system.EVENT_VFORK else 0

    def reconcile(self, space: AddressSpace) -> None:
        """Learn which pages of a forked copy can be executed."""
        executable: Ranges[bool] = Ranges()
        for mapping in space.memory.mappings() if space.memory is not None else ():
            if mapping.protection & _EXEC:
                executable.put(mapping.start, mapping.end, True)
        self._engine.machine.reconcile(space.watched, executable)

    def notice_growth(self, task: Task, address: int) -> None:
        """Memory that grows downwards by being touched, such as a stack, may have done so."""
        space = task.space
        mapping = self._mapping(space, address)
        if mapping is None:
            return
        following = next(iter(space.watched.areas.within(mapping.start, mapping.end + PAGE_SIZE)), None)
        if following is not None and following[0] in space.growing and mapping.start < following[0]:
            start, _, area = following
            space.growing.add(mapping.start)
            space.watched.areas.put(mapping.start, start, area)
            space.known.put(mapping.start, start, Backed(area.wanted))
            # It grew with the protection of the page above.
            command = Protect(space.watched, mapping.start, start, area.wanted & ~_EXEC)
            self._engine.carry_out(task, [command], self._engine.registers(task))

    def protection_failed(self, task: Task, command: Protect, error: int) -> None:
        """The kernel cannot protect the page by itself (too many mappings, or a special one).

        The memory then gets what it asked for, and counts as not watched.
        """
        space = task.space
        number = space.watched.areas.find(command.start)
        if number < 0 or error not in (errno.ENOMEM, errno.EINVAL):
            return
        areas = space.watched.areas
        start, end, area = areas.starts[number], areas.ends[number], areas.values[number]
        self._engine.machine.forget(space.watched, start, end)
        registers = self._engine.registers(task)
        self._engine.inject(task, registers, Call.MPROTECT, start, end - start, int(area.wanted))
        self._engine.counts["released_regions"] = self._engine.counts.get("released_regions", 0) + 1
        self._look(task, start, end, area.wanted, Status.NONE)

    def _look(self, task: Task, start: int, end: int, protection: Protection, status: Status) -> None:
        """Record what a range holds now."""
        mappings = self._mappings(task.space, start, end)
        pages = sum((min(end, each.end) - max(start, each.start)) // PAGE_SIZE for each in mappings)
        cause = self._engine.records.event(
            task,
            EventKind.LOOK,
            start,
            end - start,
            protection=int(protection),
            previous_protection=int(protection),
            status=int(status),
            page_count=pages,
        )
        self._engine.records.pages(task, cause, start, end, mappings)

    # Looking up

    def _mappings(self, space: AddressSpace, start: int, end: int) -> list[Mapping]:
        """What is mapped in [start, end), from memory where that is all anonymous."""
        pieces = list(space.known.within(start, end))
        covered = sum(last - first for first, last, _ in pieces) == end - start
        if covered and not any(backed.inode or backed.status & Status.SHARED for _, _, backed in pieces):
            return [_anonymous(first, last, backed.protection) for first, last, backed in pieces]
        if space.memory is None:
            return []
        return [each for each in space.memory.mappings() if each.start < end and start < each.end]

    @staticmethod
    def _page_size(space: AddressSpace, mapping: Mapping) -> int:
        """What of a mapping can be protected by itself: a huge page where it has huge pages."""
        if space.memory is None:
            return PAGE_SIZE
        lines = iter(space.memory.details())
        head = f"{mapping.start:08x}-".encode()
        for line in lines:
            if line.startswith(head):
                size = next((each for each in lines if each.startswith(b"KernelPageSize:")), b"")
                found = re.search(rb"\d+", size)
                return int(found[0]) * 1024 if found else PAGE_SIZE
        return PAGE_SIZE

    @staticmethod
    def _mapping(space: AddressSpace, address: int) -> Mapping | None:
        if space.memory is None:
            return None
        for mapping in space.memory.mappings():
            if mapping.start <= address < mapping.end:
                return mapping
        return None


def _anonymous(start: int, end: int, protection: Protection) -> Mapping:
    return Mapping(start, end, protection, False, 0, 0, 0, b"")


def _signed(result: int) -> int:
    return result - (1 << 64) if result >= 1 << 63 else result


def _failed(result: int) -> bool:
    return -4096 < _signed(result) < 0

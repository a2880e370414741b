"""System calls at their entry: which matter, and which are changed.

A request for memory that is to be watched (writable and executable, or executable and shared) is
granted without execute.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...model import PAGE_SIZE, Protection
from . import abi
from .abi import Call
from .calls import (
    MAP_FIXED,
    MAP_SHARED,
    Decoder,
    Request,
)
from .looks import Looks
from .lookup import mappings_in, memory_written_to
from .pages import is_watched
from .system import CallStop
from .tracees import AddressSpace, Task

if TYPE_CHECKING:
    from .engine import Engine

_EXEC, _WRITE, _READ = Protection.EXEC, Protection.WRITE, Protection.READ
_COMPAT_NAMES = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp")
#: Calls in which the kernel writes to memory, or refuses to work on mappings that differ.
_WRITTEN_BY_KERNEL = frozenset({Call.READ, Call.PREAD, Call.RECVFROM, Call.MREMAP})
_CHANGES_RANGES = frozenset({Call.MUNMAP, Call.MREMAP, Call.MADVISE, Call.REMAP_FILE_PAGES})
_WRITES_TO_FILES = frozenset({Call.WRITE, Call.PWRITE, Call.WRITEV, Call.FTRUNCATE, Call.FALLOCATE})


class Entries:
    """Decides what to make of a call."""

    def __init__(self, engine: Engine, machine: abi.Machine, looks: Looks) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._looks = looks
        self._names = tuple(machine.arguments)
        self._decoder = Decoder(tuple(machine.abis))
        self._prepare = {
            Call.MMAP: self._before_mmap,
            Call.MPROTECT: self._before_mprotect,
            Call.PKEY_MPROTECT: self._before_mprotect,
            Call.SHMAT: self._before_shmat,
        }

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
        engine.errands.before_call(
            task, lambda task, registers: engine.errands.carry_out(task, commands, registers)
        )
        return True

    def _look_before(self, task: Task, request: Request) -> None:
        """Record what a process has inherited and is about to lose."""
        if not task.process.inherited.starts:
            return
        if request.call in (Call.EXECVE, Call.EXECVEAT):
            self._looks.look_at_inherited(task)
        elif request.call in _CHANGES_RANGES or request.call in (Call.MPROTECT, Call.PKEY_MPROTECT):
            self._looks.look_at_inherited(task, request.address, request.end)

    def _prepared(self, task: Task, request: Request) -> Request | None:
        """What to make of a call; None if its exit says nothing to us."""
        space = task.space
        prepare = self._prepare.get(request.call)
        if prepare is not None:
            return prepare(space, request)
        if request.call is Call.PERSONALITY:
            return request.without_exec()
        if request.call is Call.BRK:
            return request if space.implies_exec else None
        if request.call is Call.PWRITE and memory_written_to(self._engine.tasks, task, request) is not None:
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
            views = request.protection & _WRITE and space.has_shared and self._engine.machine.shares
            return request if views or self._concerns(space, request.address, request.end) else None
        shared = space.has_shared and any(
            mapping.shared for mapping in mappings_in(space, request.address, request.end)
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
        registers = self._engine.errands.registers(task)
        self._engine.tracer.set_registers(task.tid, registers.changed(orig_rax=number, **values))

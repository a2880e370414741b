"""System calls at their exit: what they did to memory."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...model import PAGE_SIZE, Protection, Status
from . import abi
from .abi import Call
from .calls import (
    MAP_ANONYMOUS,
    MAP_GROWSDOWN,
    MAP_HUGETLB,
    MAP_SHARED,
    PERSONALITY_QUERY,
    READ_IMPLIES_EXEC,
    SHM_RDONLY,
    Request,
)
from .effects import Effects, failed, signed
from .looks import Looks
from .lookup import anonymous, mapping_at, mappings_in, memory_written_to
from .pages import Area
from .tracees import AddressSpace, Backed, Task
from .watching import Watching

if TYPE_CHECKING:
    from .engine import Engine

_EXEC, _WRITE, _READ = Protection.EXEC, Protection.WRITE, Protection.READ
#: Failures that can have changed a part.
_PARTIAL = frozenset({errno.ENOMEM, errno.EACCES})
_DISCARDING = frozenset({4, 8, 9, 24})  # MADV_DONTNEED, _FREE, _REMOVE, _DONTNEED_LOCKED
_PROT_GROWSDOWN = 0x01000000
_COMPAT_NAMES = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp")


class Exits:
    """Follows what calls have done, and records it."""

    def __init__(self, engine: Engine, machine: abi.Machine, watching: Watching, looks: Looks) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._watching, self._looks = watching, looks
        self._effects = Effects(engine, watching, looks)
        self._names = tuple(machine.arguments)
        self._after = {
            Call.SHMAT: self._after_shmat,
            Call.MPROTECT: self._after_mprotect,
            Call.PKEY_MPROTECT: self._after_mprotect,
            Call.MUNMAP: self._after_munmap,
            Call.MREMAP: self._after_mremap,
            Call.BRK: self._after_brk,
            Call.REMAP_FILE_PAGES: self._after_remap,
            Call.MADVISE: self._after_madvise,
        }

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
        self._after.get(request.call, self._after_write)(task, request, result)

    def _change_back(self, task: Task, request: Request, result: int | None = None) -> None:
        names = _COMPAT_NAMES if request.compat else self._names
        registers = self._engine.errands.registers(task)
        values = {
            name: registers[name] if old & 0xFFFFFFFF == registers[name] else old
            for name, old in zip(names, request.arguments, strict=False)
        }
        if result is not None:
            values["rax"] = result
        self._engine.tracer.set_registers(task.tid, registers.changed(orig_rax=request.number, **values))

    def _after_personality(self, task: Task, request: Request, result: int) -> None:
        space, asked = task.space, request.arguments[0] & 0xFFFFFFFF
        shown = result | READ_IMPLIES_EXEC if space.implies_exec and result >= 0 else result
        self._change_back(task, request, shown)
        if asked != PERSONALITY_QUERY and result >= 0:
            space.implies_exec = bool(asked & READ_IMPLIES_EXEC)
            space.every_call |= space.implies_exec

    def _after_placing(self, task: Task, request: Request, result: int, start: int, length: int) -> None:
        """Memory was mapped at ``start``."""
        space, wanted = task.space, request.protection
        if failed(result):
            if wanted & _EXEC:
                self._effects.event(task, request, result, request.address, length)
            return
        end = start + -(-length // PAGE_SIZE) * PAGE_SIZE
        self._effects.gone(space, start, end)
        private = request.flags & (MAP_ANONYMOUS | MAP_SHARED | MAP_HUGETLB) == MAP_ANONYMOUS
        if request.flags & MAP_GROWSDOWN:
            space.growing.add(start)
        if wanted & _EXEC:
            mapping = anonymous(start, end, wanted) if private else mapping_at(space, start)
            self._effects.executable(task, request, result, start, end, [mapping] if mapping else [])
        elif request.flags & MAP_SHARED and (mapping := mapping_at(space, start)) is not None:
            self._watching.adopt(task, space, mapping)

    def _after_shmat(self, task: Task, request: Request, result: int) -> None:
        start = result
        if request.result_at and not failed(result):
            start = int.from_bytes(self._engine.tracer.read(task.tid, request.result_at, 4), "little")
        mapping = None if failed(result) else mapping_at(task.space, start)
        length = mapping.end - mapping.start if mapping is not None else 0
        flags = MAP_SHARED | (request.flags & SHM_RDONLY)
        self._after_placing(task, replace(request, flags=flags), result, start, length)

    def _after_mprotect(self, task: Task, request: Request, result: int) -> None:
        space, start, end = task.space, request.address, request.end
        wanted = request.protection
        if request.arguments[2] & _PROT_GROWSDOWN and (mapping := mapping_at(space, start)):
            start = mapping.start
            request = replace(request, address=start, length=end - start)
            space.growing.add(start)
        if failed(result):
            if wanted & _EXEC:
                end = self._changed_until(space, request, -signed(result))
                if end <= start:
                    self._effects.event(task, request, result, start, request.length)
                    return
            else:
                return
        if wanted & _EXEC:
            self._effects.executable(task, request, result, start, end, mappings_in(space, start, end))
        else:
            self._effects.not_executable(task, request, result, start, end)

    def _changed_until(self, space: AddressSpace, request: Request, error: int) -> int:
        """How far a failed mprotect has come: to the first hole, or the first mapping that is as before."""
        if error not in _PARTIAL:
            return 0
        reached = request.address
        granted = request.protection
        if request.instead is not None:
            granted &= ~_EXEC
        for mapping in mappings_in(space, request.address, request.end):
            if mapping.start > reached or mapping.protection != granted:
                break
            reached = min(mapping.end, request.end)
        return reached

    def _after_munmap(self, task: Task, request: Request, result: int) -> None:
        if failed(result):
            return
        pieces = list(task.space.known.within(request.address, request.end))
        executable = [backed for _, _, backed in pieces if backed.protection & _EXEC]
        self._effects.gone(task.space, request.address, request.end)
        if executable:
            shown = replace(request, protection=Protection.NONE)
            self._effects.event(
                task,
                shown,
                result,
                request.address,
                request.end - request.address,
                backed=executable[0],
                previous_protection=int(executable[0].protection),
                status=int(Status.SEVERAL_MAPPINGS if len(pieces) > 1 else Status.NONE),
            )

    def _after_mremap(self, task: Task, request: Request, result: int) -> None:
        """Executable memory was moved, grown or cut."""
        space = task.space
        if failed(result):
            return
        size = -(-request.arguments[2] // PAGE_SIZE) * PAGE_SIZE
        number = space.known.find(request.address)
        backed = space.known.values[number] if number >= 0 else None
        area = space.watched.area(request.address)
        keeps = request.length == 0 or request.flags & 4  # MREMAP_DONTUNMAP
        if not keeps:
            self._effects.gone(space, request.address, request.end)
        self._effects.gone(space, result, result + size)
        mapping = mapping_at(space, result)
        if backed is None or mapping is None:
            return
        wanted = backed.protection if area is None else area.wanted
        if area is not None and mapping.protection & _EXEC:
            self._watching.withhold_from(task, result, result + size, wanted)
        if wanted & _EXEC:
            asked = replace(request, protection=wanted)
            self._effects.executable(task, asked, result, result, result + size, [mapping])
        elif area is not None:
            self._watching.watch(task, space, result, result + size, mapping, wanted)

    def _after_madvise(self, task: Task, request: Request, result: int) -> None:
        if request.arguments[2] in _DISCARDING:
            self._watching.open(task, request.address, request.end)

    def _after_remap(self, task: Task, request: Request, result: int) -> None:
        """Other pages of the same file are mapped at the address now."""
        space, area = task.space, task.space.watched.area(request.address)
        mapping = mapping_at(space, request.address)
        if area is not None and mapping is not None:
            self._watching.withhold_from(task, request.address, request.end, area.wanted)
            space.known.put(request.address, request.end, Backed.of(mapping, area.wanted))
            self._watching.watch(task, space, request.address, request.end, mapping, area.wanted)

    def _after_write(self, task: Task, request: Request, result: int) -> None:
        """A file was written to; if it is mapped executable, that is a write to the memory."""
        tasks = self._engine.tasks
        written = memory_written_to(tasks, task, request) if request.call is Call.PWRITE else None
        if written is not None:
            start = request.arguments[3] - request.arguments[3] % PAGE_SIZE
            end = -(-(request.arguments[3] + max(result, 0)) // PAGE_SIZE) * PAGE_SIZE
            for first, last, backed in list(written.space.known.within(start, end)):
                if backed.protection & _EXEC:
                    self._looks.look(written, first, last, backed.protection, Status.WATCHED | backed.status)
            return
        try:
            found = Path(f"/proc/{task.tid}/fd/{request.arguments[0] & 0xFFFFFFFF}").stat()
        except OSError:
            return
        backing = (os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino)
        if self._engine.machine.knows(backing):
            commands = self._engine.machine.open_backing(backing)
            self._engine.errands.carry_out(task, commands, self._engine.errands.registers(task))

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

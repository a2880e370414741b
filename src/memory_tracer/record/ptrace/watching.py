"""Withholding execute from memory, and giving it back."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from ...capture.ranges import Ranges
from ...model import PAGE_SIZE, Protection, Status
from ..memory import Mapping
from .abi import Call
from .calls import (
    PERSONALITY_QUERY,
    READ_IMPLIES_EXEC,
)
from .looks import Looks
from .lookup import mapping_at, page_size
from .narrowing import Narrowing
from .pages import Area, Protect, is_watched
from .registers import Registers
from .tracees import AddressSpace, Backed, Task

if TYPE_CHECKING:
    from .engine import Engine

_EXEC, _WRITE, _READ = Protection.EXEC, Protection.WRITE, Protection.READ


class Watching:
    """Keeps the kernel's protections as the machine says."""

    def __init__(self, engine: Engine, looks: Looks, narrowing: Narrowing) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._narrowing = narrowing
        self._looks = looks

    def begin_watching(self, task: Task, mappings: list[Mapping]) -> None:
        """Withhold execute in a process that has been running for a while."""
        self.personality(task)
        self.withhold(task, mappings)

    def withhold(self, task: Task, mappings: list[Mapping]) -> None:
        """Learn what is executable, and withhold execute where it has to be."""
        space, registers = task.space, self._engine.errands.registers(task)
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
                self._engine.errands.carry_out(task, [command], registers)
                self.watch(task, space, mapping.start, mapping.end, mapping, mapping.protection)

    def watch(
        self, task: Task, space: AddressSpace, start: int, end: int, mapping: Mapping, wanted: Protection
    ) -> None:
        """Withhold execute from [start, end) of ``mapping``, which the kernel has granted without."""
        backing = (mapping.device, mapping.inode) if mapping.shared and mapping.inode else None
        origin = mapping.offset - mapping.start if backing else 0
        area = Area(wanted, backing, origin, page_size(space, mapping) if mapping.inode else PAGE_SIZE)
        new = backing is not None and not self._engine.machine.knows(backing)
        commands = self._engine.machine.watch(space.watched, start, end, area)
        if commands:
            self._engine.errands.carry_out(task, commands, self._engine.errands.registers(task))
        if space is task.space:
            self._narrowing.narrow(task)
        else:
            space.every_call = True
        if new:  # views that come later are seen as they are made, or made writable
            for other in {each.space for each in self._engine.tasks.values() if not each.process.silent}:
                other.every_call |= bool(other.windows.starts) and not other.sees_file_writes
                for view in other.memory.mappings() if other.memory is not None else ():
                    if (view.device, view.inode) == backing and view.shared:
                        other.every_call |= other is not space
                        self.adopt(task, other, view)

    def adopt(self, task: Task, space: AddressSpace, view: Mapping) -> None:
        """Watch another view of memory that is watched, if it can be written to."""
        backing = (view.device, view.inode)
        watched = space.watched.area(view.start) is not None
        if watched or not view.protection & _WRITE or not self._engine.machine.knows(backing):
            return
        area = Area(view.protection, backing, view.offset - view.start, page_size(space, view))
        commands = self._engine.machine.watch(space.watched, view.start, view.end, area)
        if commands:
            self._engine.errands.carry_out(task, commands, self._engine.errands.registers(task))
        if space is task.space:
            self._narrowing.narrow(task)
        else:
            space.every_call = True

    def withhold_from(self, task: Task, start: int, end: int, wanted: Protection) -> None:
        """Take execute from a range that got it along with what was mapped there."""
        command = Protect(task.space.watched, start, end, wanted & ~_EXEC)
        self._engine.errands.carry_out(task, [command], self._engine.errands.registers(task))

    def give_back(self, task: Task, registers: Registers | None = None) -> None:
        """Give the target's memory the protections that it asked for."""
        engine, space = self._engine, task.space
        registers = registers or engine.errands.registers(task)
        engine.errands.carry_out(task, engine.machine.release(space.watched), registers)
        if space.implies_exec:
            value = engine.errands.inject(task, registers, Call.PERSONALITY, PERSONALITY_QUERY)
            engine.errands.inject(task, registers, Call.PERSONALITY, value | READ_IMPLIES_EXEC)
            space.implies_exec = False

    def personality(self, task: Task) -> None:
        """Take READ_IMPLIES_EXEC from the kernel; we do what it does."""
        try:
            value = int(Path(f"/proc/{task.tid}/personality").read_text(), 16)
        except (OSError, ValueError):
            return
        if value & READ_IMPLIES_EXEC:
            registers = self._engine.errands.registers(task)
            self._engine.errands.inject(task, registers, Call.PERSONALITY, value & ~READ_IMPLIES_EXEC)
            task.space.implies_exec = task.space.every_call = True

    def notice_growth(self, task: Task, address: int) -> None:
        """Memory that grows downwards by being touched, such as a stack, may have done so."""
        space = task.space
        mapping = mapping_at(space, address)
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
            self._engine.errands.carry_out(task, [command], self._engine.errands.registers(task))

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
        registers = self._engine.errands.registers(task)
        self._engine.errands.inject(task, registers, Call.MPROTECT, start, end - start, int(area.wanted))
        self._engine.counts["released_regions"] = self._engine.counts.get("released_regions", 0) + 1
        self._looks.look(task, start, end, area.wanted, Status.NONE)

    def reconcile(self, space: AddressSpace) -> None:
        """Learn which pages of a forked copy can be executed."""
        executable: Ranges[bool] = Ranges()
        for mapping in space.memory.mappings() if space.memory is not None else ():
            if mapping.protection & _EXEC:
                executable.put(mapping.start, mapping.end, True)
        self._engine.machine.reconcile(space.watched, executable)

    def open(self, task: Task, start: int, end: int) -> None:
        """Make what executes in a range writable again: it has changed behind the protection."""
        commands = self._engine.machine.open(task.space.watched, start, end)
        if commands:
            self._engine.errands.carry_out(task, commands, self._engine.errands.registers(task))

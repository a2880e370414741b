"""What stopped threads do for us: they change protections, make calls, take a step, and show their pages."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ...model import PAGE_SIZE, EventKind, Protection, Status
from . import abi, system
from .inject import CannotInject, Injector
from .pages import Capture, Command, Protect, Space, Step
from .registers import Registers
from .tracees import AddressSpace, Task

if TYPE_CHECKING:
    from .engine import Engine

_CALL_STOP = signal.SIGTRAP | 0x80


class Errands:
    """Carries out what the machine of pages says."""

    def __init__(self, engine: Engine, machine: abi.Machine, injector: Injector) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._machine = machine
        self._injector = injector

    def registers(self, task: Task) -> Registers:
        """The registers of a stopped thread."""
        return self._injector.registers(task.tid)

    def restart(self, task: Task, registers: Registers, number: int | None = None) -> None:
        """Make the call again from which a thread is about to return."""
        number = registers["orig_rax"] if number is None else number
        ip = registers.ip - len(self._machine.call)
        self._engine.tracer.set_registers(
            task.tid, registers.changed(rip=ip, rax=number, orig_rax=0xFFFFFFFFFFFFFFFF)
        )
        self._engine.resume(task)

    def carry_out(
        self, task: Task, commands: Iterable[Command], registers: Registers, address: int = 0
    ) -> None:
        """Do what the machine says. ``task`` is stopped where it can make calls, and stays so."""
        waiting: list[Protect] = []
        for command in commands:
            if isinstance(command, Protect):
                waiting.append(command)
                continue
            self._protect(task, registers, waiting)
            waiting = []
            if isinstance(command, Capture):
                self._capture(task, command, registers, address)
            elif isinstance(command, Step):
                self._injector.step(task)
                registers = self.registers(task)
        self._protect(task, registers, waiting)

    def _protect(self, task: Task, registers: Registers, commands: list[Protect]) -> None:
        own = [command for command in commands if command.space is task.space.watched]
        for command in commands:
            if command.space is not task.space.watched:
                self._protect_elsewhere(command)
        if not own:
            return
        calls = [
            (abi.Call.MPROTECT, (command.start, command.end - command.start, int(command.protection)))
            for command in own
        ]
        try:
            results = self._injector.run(task, registers, calls)
        except CannotInject:
            results = self._injector.run(task, registers, calls)
        for command, result in zip(own, results, strict=True):
            if result < 0:
                self._engine.watching.protection_failed(task, command, -result)

    def _protect_elsewhere(self, command: Protect) -> None:
        """Have a thread of another address space change a protection there."""
        for other in list(self._engine.tasks.values()):
            if other.space.watched is command.space and other.started:
                self.have_do(other, lambda task, registers: self._protect(task, registers, [command]))
                return

    def have_do(self, task: Task, what: Callable[[Task, Registers], None]) -> None:
        """Stop a running thread, wherever it is, do ``what``, and let it go on."""
        tid = task.tid
        known = next((found for found in self._engine.put_off if found[0] == tid), None)
        if known is not None:
            self._engine.put_off.remove(known)
            status = known[1]
        else:
            self._engine.tracer.interrupt(tid)
            _, status = self._engine.tracer.wait(tid)
        event, number = status >> 16, status >> 8 & 0xFF
        if status & 0xFF != 0x7F or event == system.EVENT_EXIT:
            self._engine.later(tid, status)
            return
        if event in (system.EVENT_FORK, system.EVENT_VFORK, system.EVENT_CLONE, system.EVENT_EXEC):
            self._engine.handle(tid, status)  # in the middle of a call; it is stopped again after that
            self.have_do(task, what)
            return
        if event == system.EVENT_SECCOMP or (number == _CALL_STOP and event == 0 and not task.in_call):
            self.before_call(task, what)
            return
        with self.keeping_signal(task, 0 if event or number == _CALL_STOP else number):
            what(task, self.registers(task))
        if event == system.EVENT_STOP:
            self._engine.handle(tid, status)
        else:
            self._engine.later(tid, status)

    @contextlib.contextmanager
    def keeping_signal(self, task: Task, number: int) -> Iterator[None]:
        """Have the signal that a thread has stopped for say the same after it made calls for us."""
        info = self._engine.tracer.signal_bytes(task.tid) if number else b""
        yield
        if info:
            self._engine.tracer.set_signal(task.tid, info)

    def before_call(self, task: Task, what: Callable[[Task, Registers], None]) -> None:
        """Do ``what`` in a thread that is at the entry of a call: leave the call out, then make it again."""
        before = self.registers(task)
        number = before["orig_rax"]
        self._engine.tracer.set_registers(task.tid, before.changed(orig_rax=-1))
        self._engine.tracer.resume(system.PTRACE_SYSCALL, task.tid)
        _, status = self._engine.tracer.wait(task.tid)
        if status >> 8 != _CALL_STOP:
            self._engine.later(task.tid, status)
            return
        registers = self.registers(task)
        what(task, registers)
        self.restart(task, registers, number)

    def inject(self, task: Task, registers: Registers, call: abi.Call, *arguments: int) -> int:
        """Have a stopped thread make one call."""
        return self._injector.run(task, registers, [(call, arguments)])[0]

    def _capture(self, task: Task, command: Capture, registers: Registers, address: int) -> None:
        """Record a page that is about to be executed."""
        place = self._place(command.space)
        number = command.space.areas.find(command.page)
        if place is None or number < 0 or task.process.silent:
            return
        area = command.space.areas.values[number]
        start, end = command.space.areas.starts[number], command.space.areas.ends[number]
        status = Status.WATCHED | (Status.CONTENDED if command.contended else Status.NONE)
        known = place.known.find(command.page)
        backed = place.known.values[known] if known >= 0 else None
        cause = self._engine.records.event(
            task,
            EventKind.FETCH,
            start,
            end - start,
            backed=backed,
            protection=int(area.wanted),
            previous_protection=int(area.wanted & ~Protection.EXEC),
            status=int(status),
            page_count=area.page // PAGE_SIZE,
            caller_ip=registers.ip,
            caller_sp=registers.sp,
            arguments=(address, *(0,) * 5),
        )
        if not cause:
            return
        for page in range(command.page, command.page + area.page, PAGE_SIZE):
            self._engine.records.page(task, cause, page, self._engine.tracer.read_page(task.tid, page))
        self._engine.records.registers(task, cause, registers)
        self._engine.records.stack(task, cause, registers.ip, registers.sp, registers["rbp"])

    def _place(self, space: Space) -> AddressSpace | None:
        for task in self._engine.tasks.values():
            if task.space.watched is space:
                return task.space
        return None

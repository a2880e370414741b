"""The loop: take what threads have stopped for, decide, let them go on.

What system calls do stands in ``entries`` and ``exits``, what faults do in ``machine``; here are the stops of
ptrace(2), the life of threads, and the carrying out of commands.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable

from ...capture.ranges import Ranges
from ...errors import PrivilegeError, TargetError
from ...model import PAGE_SIZE, EventKind, Protection, Status
from ..memory import ProcessMemory
from ..settings import Settings
from . import abi, system
from .entries import Entries
from .exits import Exits
from .inject import CannotInject, Gone, Injector, Registers
from .looks import Looks
from .machine import Capture, Command, Forward, Machine, Protect, Space, Step
from .preflight import yama_scope
from .programs import Programs
from .records import Records
from .sink import Sink
from .system import Tracer
from .tracees import AddressSpace, Process, Task, describe, threads_of
from .watching import Watching

OPTIONS = (
    system.OPTION_SYSGOOD
    | system.OPTION_FORK
    | system.OPTION_VFORK
    | system.OPTION_CLONE
    | system.OPTION_EXEC
    | system.OPTION_EXIT
    | system.OPTION_SECCOMP
)

_SEGV_ACCERR = 2
_CLONE_VM, _CLONE_THREAD = 0x100, 0x10000
_STOPPING = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_CALL_STOP = signal.SIGTRAP | 0x80


#: How long to wait for a thread to stop (seconds), and how long between two looks.
_PATIENCE, _PAUSE = 1.0, 0.0005


def refusal(pid: int, error: OSError) -> PrivilegeError:
    """Say why a process may not be traced."""
    scope = yama_scope()
    if scope:
        return PrivilegeError(
            f"process {pid} cannot be traced: yama forbids it (kernel.yama.ptrace_scope is {scope}); "
            "run with sudo, or start the program with `memory-tracer run`",
            detail=str(error),
        )
    return PrivilegeError(
        f"process {pid} cannot be traced: it is another user's, runs with more privilege, or has a "
        "tracer already; run with sudo",
        detail=str(error),
    )


class Ended(enum.Enum):
    """Why the loop ended."""

    TARGETS = enum.auto()
    COMMAND = enum.auto()
    BELL = enum.auto()


class Engine:
    """Traces threads until none is left, or somebody rings."""

    records: Records
    counts: dict[str, int]

    def __init__(self, settings: Settings) -> None:
        """Trace nobody yet. Everything else must be called by one and the same thread."""
        machine = abi.this_machine()
        assert machine is not None
        self.settings = settings
        self.tracer = Tracer()
        self.cookie = secrets.randbits(32)
        self.machine = Machine()
        self._put_off: deque[tuple[int, int]] = deque()
        self._injector = Injector(self.tracer, machine, self.cookie, self._later)
        self._looks = Looks(self)
        self._watching = Watching(self, self._looks)
        self._entries = Entries(self, machine, self._looks)
        self._exits = Exits(self, machine, self._watching, self._looks)
        self._programs = Programs(self, machine, self._watching)
        self._machine = machine
        self.tasks: dict[int, Task] = {}
        self._early: set[int] = set()
        #: Launched: calls stop at the filter. Else each call is stopped at.
        self.filtered = True
        self.command: int | None = None
        self.on_command_end: Callable[[int], None] = lambda _: None
        self.on_command_start: Callable[[], None] = lambda: None
        self.ends_with_command = False
        self.silent = False

    def _later(self, tid: int, status: int) -> None:
        self._put_off.append((tid, status))

    # Beginning

    def begin(self, sink: Sink) -> None:
        """Write what is found into ``sink``."""
        self.records = Records(self.settings, sink, self.tracer)
        self.counts = sink.recorder

    def launched(self, pid: int) -> None:
        """Trace our own child, which waits to be let go; it is recorded from its execve on."""
        self.tracer.seize(pid, OPTIONS)
        space = AddressSpace()
        self._add(pid, Process(pid, 0, os.getpid(), space, silent=True))
        self.command = pid

    def attach(self, pid: int) -> None:
        """Trace a running process with all its threads. Raises PrivilegeError, TargetError."""
        self.filtered = False
        owner: Process | None = None
        while new := [tid for tid in threads_of(pid) if tid not in self.tasks]:
            for tid in new:
                try:
                    self.tracer.seize(tid, OPTIONS)
                except OSError as error:
                    if system.is_gone(error):
                        continue
                    raise refusal(pid, error) from error
                if owner is None:
                    owner = describe(pid, AddressSpace(every_call=True))
                self._add(tid, owner)
        if owner is None:
            raise TargetError(f"process {pid} ended before it could be traced")
        stopped = self._settled([task for task in self.tasks.values() if task.process is owner])
        self.open_memory(owner.space, pid)
        if stopped and owner.space.memory is not None:
            first = next(iter(stopped))
            self.records.baseline(first)
            self._watching.begin_watching(first, owner.space.memory.mappings())
        for task, number in stopped.items():
            self.resume(task, number)

    # Ending

    def release(self) -> None:
        """Give all targets the protections that they asked for, and record nothing more of them."""
        for space in {task.space for task in self.tasks.values()}:
            task = next(iter(space.tasks), None)
            if task is not None and (space.watched or space.implies_exec):
                self.have_do(task, self._watching.give_back)
        for task in self.tasks.values():
            task.process.silent = True
            task.space.every_call = False

    def detach(self) -> None:
        """Let all targets go, as they would be without us."""
        while unsettled := list(self.tasks.values()):
            stopped = self._settled(unsettled)
            for space in {task.space for task in stopped}:
                self._watching.give_back(next(task for task in stopped if task.space is space))
            for task, number in stopped.items():
                with contextlib.suppress(OSError):
                    self.tracer.resume(system.PTRACE_DETACH, task.tid, number)
            for task in unsettled:
                self._remove(task)

    def _settled(self, tasks: list[Task]) -> dict[Task, int]:
        """Stop threads where they are about to return to user space; with the signals they are to get."""
        stopped: dict[Task, int] = {}
        for task in tasks:
            try:
                number = self._settle(task)
            except OSError as error:
                if not system.is_gone(error):
                    raise
                number = None
            if number is not None and task.tid in self.tasks:
                stopped[task] = number
        return stopped

    def _settle(self, task: Task) -> int | None:
        deadline = time.monotonic() + _PATIENCE
        self.tracer.interrupt(task.tid)
        while task.tid in self.tasks:
            tid, status = self._pending_or_wait(task.tid)
            if not tid:
                if time.monotonic() > deadline:
                    return None  # it waits for a child that runs in its memory
                time.sleep(_PAUSE)
                continue
            event, number = status >> 16, status >> 8 & 0xFF
            if status & 0xFF == 0x7F:
                if event == system.EVENT_STOP:
                    return 0
                if not event and number not in (_CALL_STOP, signal.SIGSEGV):
                    return number
            self.handle(tid, status)
            if task.tid in self.tasks:
                self.tracer.interrupt(task.tid)  # every stop takes a pending interrupt along
        return None

    def _pending_or_wait(self, tid: int) -> tuple[int, int]:
        for found in self._put_off:
            if found[0] == tid:
                self._put_off.remove(found)
                return found
        return self.tracer.wait(tid, os.WNOHANG)

    def _add(self, tid: int, owner: Process) -> Task:
        task = self.tasks[tid] = Task(tid, owner)
        task.started = True
        owner.space.tasks.add(task)
        return task

    # The loop

    def run(self, bell: int) -> Ended:
        """Trace until all have ended, or the child ``bell`` does."""
        ended: list[int] = []
        while self.tasks:
            tid, status = self._put_off.popleft() if self._put_off else self._wait()
            if tid == bell:
                return Ended.BELL
            if tid == self.command and os.WIFEXITED(status) | os.WIFSIGNALED(status):
                ended.append(status)
            self.handle(tid, status)
            if ended and self.ends_with_command:
                return Ended.COMMAND
        return Ended.TARGETS

    def _wait(self) -> tuple[int, int]:
        while True:
            try:
                return self.tracer.wait()
            except InterruptedError:
                continue  # a signal of ours, whose handler has run

    def handle(self, tid: int, status: int) -> None:
        """Do what one status of one thread asks for."""
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            self._ended(tid, status)
            return
        task = self.tasks.get(tid)
        if task is None:
            self._early.add(tid)  # the event of its parent has not come yet
            return
        try:
            self._stopped(task, status >> 16, status >> 8 & 0xFF)
        except Gone:
            pass
        except OSError as error:
            if not system.is_gone(error):
                raise
            # It was killed; its end comes next.

    def _stopped(self, task: Task, event: int, number: int) -> None:
        if event == system.EVENT_STOP:
            self._event_stop(task, number)
        elif event == system.EVENT_SECCOMP:
            if not task.space.every_call:
                self._call(task)
            else:  # seen at its entry already
                self.resume(task)
        elif event in (system.EVENT_FORK, system.EVENT_VFORK, system.EVENT_CLONE):
            self._new_task(task, event)
            self.resume(task)
        elif event == system.EVENT_EXEC:
            self._exec(task)
        elif event == system.EVENT_EXIT:
            if sum(other.process is task.process for other in task.space.tasks) == 1:
                self._looks.look_at_inherited(task)
            self.resume(task)
        elif number == _CALL_STOP:
            self._call(task)
        elif number == signal.SIGSEGV and task.space.watched:
            self._fault(task)
        else:
            self.resume(task, number)

    def _event_stop(self, task: Task, number: int) -> None:
        if number in _STOPPING:
            self.tracer.listen(task.tid)
        else:
            self.resume(task)

    def resume(self, task: Task, number: int = 0) -> None:
        """Let a thread go on, with a signal if one is given or was kept for it."""
        if not number and task.signals:
            number, info = task.signals.pop(0)
            if info:
                self.tracer.set_signal(task.tid, info)
        every = task.space.every_call or task.in_call or task.at_exit is not None
        self.tracer.resume(system.PTRACE_SYSCALL if every else system.PTRACE_CONT, task.tid, number)

    # Calls

    def _call(self, task: Task) -> None:
        stop = self.tracer.call(task.tid)
        if stop.op == system.CALL_EXIT:
            task.in_call = False
            if task.at_exit is not None:
                then, task.at_exit = task.at_exit, None
                then()
            elif self._must_restart(task, stop.result):
                return
            elif task.request is not None:
                request, task.request = task.request, None
                self._exits.leave(task, request, stop.result)
                self.resume(task)
            else:
                self.resume(task)
            return
        task.in_call = task.space.every_call
        self._entries.enter(task, stop)

    def _must_restart(self, task: Task, result: int) -> bool:
        """Whether a call failed only because we withhold a page; then it is made once more."""
        if result != -errno.EFAULT or not task.space.watched.executing or task.restarts > 100:
            if result != -errno.EFAULT:
                task.restarts = 0
            return False
        commands = self.machine.open(task.space.watched, 0, 1 << 64)
        registers = self.registers(task)
        if not commands or registers["orig_rax"] == 0xFFFFFFFFFFFFFFFF:
            return False
        task.restarts += 1
        task.request = None
        self.carry_out(task, commands, registers)
        self.restart(task, registers)
        return True

    def restart(self, task: Task, registers: Registers, number: int | None = None) -> None:
        """Make the call again from which a thread is about to return."""
        number = registers["orig_rax"] if number is None else number
        ip = registers.ip - len(self._machine.call)
        self.tracer.set_registers(
            task.tid, registers.changed(rip=ip, rax=number, orig_rax=0xFFFFFFFFFFFFFFFF)
        )
        self.resume(task)

    def registers(self, task: Task) -> Registers:
        """The registers of a stopped thread."""
        return self._injector.registers(task.tid)

    # Faults

    def _fault(self, task: Task) -> None:
        fault = self.tracer.signal(task.tid)
        if fault.code != _SEGV_ACCERR:
            self.resume(task, signal.SIGSEGV)
            return
        registers = self.registers(task)
        watched = task.space.watched
        if watched.area(fault.address) is None:
            self._watching.notice_growth(task, fault.address)
        commands = self.machine.fault(watched, task.tid, fault.address, registers.ip)
        self.counts["faults"] = self.counts.get("faults", 0) + 1
        self.carry_out(task, commands, registers, fault.address)
        self.resume(task, signal.SIGSEGV if isinstance(commands[-1], Forward) else 0)

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
                self._watching.protection_failed(task, command, -result)

    def _protect_elsewhere(self, command: Protect) -> None:
        """Have a thread of another address space change a protection there."""
        for other in list(self.tasks.values()):
            if other.space.watched is command.space and other.started:
                self.have_do(other, lambda task, registers: self._protect(task, registers, [command]))
                return

    def have_do(self, task: Task, what: Callable[[Task, Registers], None]) -> None:
        """Stop a running thread, wherever it is, do ``what``, and let it go on."""
        tid = task.tid
        known = next((found for found in self._put_off if found[0] == tid), None)
        if known is not None:
            self._put_off.remove(known)
            status = known[1]
        else:
            self.tracer.interrupt(tid)
            _, status = self.tracer.wait(tid)
        event, number = status >> 16, status >> 8 & 0xFF
        if status & 0xFF != 0x7F or event == system.EVENT_EXIT:
            self._later(tid, status)
            return
        if event in (system.EVENT_FORK, system.EVENT_VFORK, system.EVENT_CLONE, system.EVENT_EXEC):
            self.handle(tid, status)  # in the middle of a call; it is stopped again after that
            self.have_do(task, what)
            return
        if event == system.EVENT_SECCOMP or (number == _CALL_STOP and event == 0 and not task.in_call):
            self.before_call(task, what)
            return
        what(task, self.registers(task))
        if event == system.EVENT_STOP:
            self.handle(tid, status)
        else:
            self._later(tid, status)

    def before_call(self, task: Task, what: Callable[[Task, Registers], None]) -> None:
        """Do ``what`` in a thread that is at the entry of a call: leave the call out, then make it again."""
        before = self.registers(task)
        number = before["orig_rax"]
        self.tracer.set_registers(task.tid, before.changed(orig_rax=-1))
        self.tracer.resume(system.PTRACE_SYSCALL, task.tid)
        _, status = self.tracer.wait(task.tid)
        if status >> 8 != _CALL_STOP:
            self._later(task.tid, status)
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
        cause = self.records.event(
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
            self.records.page(task, cause, page, self.tracer.read_page(task.tid, page))
        self.records.stack(task, cause, registers.ip, registers.sp, registers["rbp"])

    def _place(self, space: Space) -> AddressSpace | None:
        for task in self.tasks.values():
            if task.space.watched is space:
                return task.space
        return None

    # Life

    def _new_task(self, parent: Task, event: int) -> None:
        tid = self.tracer.event_message(parent.tid)
        flags = self._programs.clone_flags(parent, event)
        owner = parent.process
        if not flags & _CLONE_THREAD:
            space = parent.space if flags & _CLONE_VM else self._copied(parent.space, tid)
            try:
                owner = describe(tid, space)
            except OSError:
                return  # it has been killed; nobody will hear of it
            owner.silent = parent.process.silent or not self.settings.follow
            self._looks.inherit(owner, space)
            # A copy may lose it by a call that the filter lets pass.
            space.every_call |= space is not parent.space and bool(owner.inherited.starts)
        task = self._add(tid, owner)
        task.in_call = False
        kind = EventKind.FORK if owner is not parent.process else EventKind.THREAD
        if not (parent.process.silent or owner.silent):
            self.records.event(parent, kind, tid=tid, owner=owner, parent_pid=parent.process.pid)
        if tid in self._early:
            self._early.discard(tid)
            self.resume(task)

    def _copied(self, space: AddressSpace, tid: int) -> AddressSpace:
        copy = AddressSpace(
            has_shared=space.has_shared, implies_exec=space.implies_exec, every_call=space.every_call
        )
        copy.known.starts, copy.known.ends = space.known.starts[:], space.known.ends[:]
        copy.known.values = space.known.values[:]
        copy.gadgets = dict(space.gadgets)
        copy.break_end, copy.growing = space.break_end, set(space.growing)
        copy.watched = self.machine.fork(space.watched)
        self.open_memory(copy, tid)
        if copy.watched:
            self._watching.reconcile(copy)
        return copy

    def open_memory(self, space: AddressSpace, tid: int) -> None:
        """Open what /proc says about a process's memory."""
        space.close()
        try:
            space.memory = ProcessMemory(tid, files_since_ns=self.settings.files_since_ns, stopped=True)
        except OSError:
            space.memory = None

    def _exec(self, task: Task) -> None:
        """The process executes another program; ``task`` may have had another ID before."""
        owner = task.process
        for other in [each for each in self.tasks.values() if each.process is owner and each is not task]:
            self._remove(other)
        old = owner.space
        old.tasks.discard(task)
        self._retire(old)
        space = owner.space = AddressSpace(every_call=not self.filtered)
        space.tasks.add(task)
        if task.tid == self.command and owner.silent and not self.silent:
            started = describe(task.tid, space)
            owner.start_ns, owner.parent, owner.uid = started.start_ns, started.parent, started.uid
            owner.namespace_pid, owner.silent = started.namespace_pid, False
            self.on_command_start()
        owner.comm, owner.inherited = b"", Ranges()
        task.request, task.signals = None, []
        task.in_call, task.at_exit = True, lambda: self._programs.program_begins(task)
        self.resume(task)

    def _remove(self, task: Task) -> None:
        self.tasks.pop(task.tid, None)
        self.machine.end(task.tid)
        task.space.tasks.discard(task)
        self._retire(task.space)

    def _retire(self, space: AddressSpace) -> None:
        if not space.tasks:
            self.machine.drop(space.watched)
            space.close()

    def _ended(self, tid: int, status: int) -> None:
        task = self.tasks.get(tid)
        self._early.discard(tid)
        if tid == self.command:
            self.on_command_end(status)
        if task is None:
            return
        leader = tid == task.process.pid
        self.records.event(
            task,
            EventKind.EXIT if leader else EventKind.THREAD_EXIT,
            result=status if leader else 0,
        )
        self._remove(task)

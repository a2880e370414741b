"""The loop: take what threads have stopped for, decide, let them go on.

What system calls do stands in ``entries`` and ``exits``, what faults do in ``machine``; here are the stops of
ptrace(2). ``errands`` carries commands out, ``lives`` follows threads, ``custody`` begins and ends all that.
"""

from __future__ import annotations

import enum
import errno
import os
import secrets
import signal
from collections import deque
from collections.abc import Callable

from ..settings import Settings
from . import abi, system
from .custody import Custody
from .entries import Entries
from .errands import Errands
from .exits import Exits
from .inject import Gone, Injector
from .lives import Lives
from .looks import Looks
from .machine import Machine
from .narrowing import Narrowing
from .pages import Forward
from .programs import Programs
from .records import Records
from .sink import Sink
from .system import Tracer
from .tracees import Task
from .watching import Watching

_SEGV_ACCERR = 2
_STOPPING = frozenset({signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_CALL_STOP = signal.SIGTRAP | 0x80


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
        self.put_off: deque[tuple[int, int]] = deque()
        self.errands = Errands(self, machine, Injector(self.tracer, machine, self.cookie, self.later))
        self._looks = Looks(self)
        self.watching = Watching(self, self._looks, Narrowing(self, machine))
        self._entries = Entries(self, machine, self._looks)
        self._exits = Exits(self, machine, self.watching, self._looks)
        self.lives = Lives(self, Programs(self, machine, self.watching), self._looks)
        self.custody = Custody(self)
        self.tasks: dict[int, Task] = {}
        #: Launched: calls stop at the filter. Else each call is stopped at.
        self.filtered = True
        self.command: int | None = None
        self.on_command_end: Callable[[int], None] = lambda _: None
        self.on_command_start: Callable[[], None] = lambda: None
        self.ends_with_command = False
        self.silent = False

    def later(self, tid: int, status: int) -> None:
        """Handle a thread's status when its turn comes."""
        self.put_off.append((tid, status))

    def begin(self, sink: Sink) -> None:
        """Write what is found into ``sink``."""
        self.records = Records(self.settings, sink, self.tracer)
        self.counts = sink.recorder

    # The loop

    def run(self, bell: int) -> Ended:
        """Trace until all have ended, or the child ``bell`` does."""
        ended: list[int] = []
        while self.tasks:
            tid, status = self.put_off.popleft() if self.put_off else self._wait()
            if tid == bell:
                return Ended.BELL
            if tid == self.command and os.WIFEXITED(status) | os.WIFSIGNALED(status):
                ended.append(status)
            self.handle(tid, status)
            self.records.flush()
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
            self.lives.ends(tid, status)
            return
        task = self.tasks.get(tid)
        if task is None:
            self.lives.early(tid)  # the event of its parent has not come yet
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
            if not task.in_call:
                self._call(task)
            else:  # seen at its entry already
                self.resume(task)
        elif event in (system.EVENT_FORK, system.EVENT_VFORK, system.EVENT_CLONE):
            self.lives.begins(task, event)
            self.resume(task)
        elif event == system.EVENT_EXEC:
            self.lives.executes(task)
        elif event == system.EVENT_EXIT:
            if sum(other.process is task.process for other in task.space.tasks) == 1:
                self._looks.look_at_inherited(task)
            self.resume(task)
        elif number == _CALL_STOP:
            self._call(task)
        elif number == signal.SIGSEGV and (task.space.watched or task.space.watched.losses):
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
        task.in_call = task.space.every_call or bool(task.space.watched)
        self._entries.enter(task, stop)

    def _must_restart(self, task: Task, result: int) -> bool:
        """Whether a call failed only because we withhold a page; then it is made once more."""
        if result != -errno.EFAULT or not task.space.watched.executing or task.restarts > 100:
            if result != -errno.EFAULT:
                task.restarts = 0
            return False
        commands = self.machine.open(task.space.watched, 0, 1 << 64)
        registers = self.errands.registers(task)
        if not commands or registers["orig_rax"] == 0xFFFFFFFFFFFFFFFF:
            return False
        task.restarts += 1
        task.request = None
        self.errands.carry_out(task, commands, registers)
        self.errands.restart(task, registers)
        return True

    # Faults

    def _fault(self, task: Task) -> None:
        fault = self.tracer.signal(task.tid)
        if fault.code != _SEGV_ACCERR:
            self.resume(task, signal.SIGSEGV)
            return
        registers = self.errands.registers(task)
        watched = task.space.watched
        if watched.area(fault.address) is None:
            self.watching.notice_growth(task, fault.address)
        commands = self.machine.fault(watched, task.tid, fault.address, registers.ip)
        self.counts["faults"] = self.counts.get("faults", 0) + 1
        self.errands.carry_out(task, commands, registers, fault.address)
        self.resume(task, signal.SIGSEGV if isinstance(commands[-1], Forward) else 0)

"""Becoming the tracer of threads, and ceasing to be it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from ...errors import PrivilegeError, TargetError
from . import system
from .preflight import forbidden_by_yama, yama_scope
from .tracees import AddressSpace, Process, Task, describe, threads_of

if TYPE_CHECKING:
    from .engine import Engine

OPTIONS = (
    system.OPTION_SYSGOOD
    | system.OPTION_FORK
    | system.OPTION_VFORK
    | system.OPTION_CLONE
    | system.OPTION_EXEC
    | system.OPTION_EXIT
    | system.OPTION_SECCOMP
)

_CALL_STOP = signal.SIGTRAP | 0x80
#: How long to wait for a thread to stop (seconds), and how long between two looks.
_PATIENCE, _PAUSE = 1.0, 0.0005


def refusal(pid: int, error: OSError, *, launched: bool = False) -> PrivilegeError:
    """Say why a process may not be traced."""
    reason = forbidden_by_yama(yama_scope(), launched=launched) or (
        "ptrace is not permitted here; allow it (docker run --cap-add SYS_PTRACE)"
        if launched
        else "it is another user's, runs with more privilege, or has a tracer already; run with sudo"
    )
    return PrivilegeError(f"process {pid} cannot be traced: {reason}", detail=str(error))


class Custody:
    """Takes threads, and lets them go."""

    def __init__(self, engine: Engine) -> None:
        """Work for ``engine``."""
        self._engine = engine

    def launched(self, pid: int) -> None:
        """Trace our own child, which waits to be let go; it is recorded from its execve on."""
        try:
            self._engine.tracer.seize(pid, OPTIONS)
        except OSError as error:
            raise refusal(pid, error, launched=True) from error
        space = AddressSpace()
        self._engine.lives.add(pid, Process(pid, 0, os.getpid(), space, silent=True))
        self._engine.command = pid

    def attach(self, pid: int) -> None:
        """Trace a running process with all its threads. Raises PrivilegeError, TargetError."""
        self._engine.filtered = False
        owner: Process | None = None
        while new := [tid for tid in threads_of(pid) if tid not in self._engine.tasks]:
            for tid in new:
                try:
                    self._engine.tracer.seize(tid, OPTIONS)
                except OSError as error:
                    if system.is_gone(error):
                        continue
                    raise refusal(pid, error) from error
                if owner is None:
                    owner = describe(pid, AddressSpace(every_call=True))
                self._engine.lives.add(tid, owner)
        if owner is None:
            raise TargetError(f"process {pid} ended before it could be traced")
        stopped = self._settled([task for task in self._engine.tasks.values() if task.process is owner])
        self._engine.lives.open_memory(owner.space, pid)
        if stopped and owner.space.memory is not None:
            first = next(iter(stopped))
            self._engine.records.baseline(first)
            with self._engine.errands.keeping_signal(first, stopped[first]):
                self._engine.watching.begin_watching(first, owner.space.memory.mappings())
        for task, number in stopped.items():
            self._engine.resume(task, number)
        self._engine.records.flush()

    def release(self) -> None:
        """Give all targets the protections that they asked for, and record nothing more of them."""
        for space in {task.space for task in self._engine.tasks.values()}:
            task = next(iter(space.tasks), None)
            if task is not None and (space.watched or space.implies_exec):
                self._engine.errands.have_do(task, self._engine.watching.give_back)
        for task in self._engine.tasks.values():
            task.process.silent = True
            task.space.every_call = False
        self._engine.records.flush()

    def detach(self) -> None:
        """Let all targets go, as they would be without us."""
        while unsettled := list(self._engine.tasks.values()):
            stopped = self._settled(unsettled)
            for space in {task.space for task in stopped}:
                task = next(task for task in stopped if task.space is space)
                with self._engine.errands.keeping_signal(task, stopped[task]):
                    self._engine.watching.give_back(task)
            for task, number in stopped.items():
                with contextlib.suppress(OSError):
                    self._engine.tracer.resume(system.PTRACE_DETACH, task.tid, number)
            for task in unsettled:
                self._engine.lives.remove(task)
            self._engine.records.flush()

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
            if number is not None and task.tid in self._engine.tasks:
                stopped[task] = number
        return stopped

    def _settle(self, task: Task) -> int | None:
        deadline = time.monotonic() + _PATIENCE
        self._engine.tracer.interrupt(task.tid)
        while task.tid in self._engine.tasks:
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
            self._engine.handle(tid, status)
            if task.tid in self._engine.tasks:
                self._engine.tracer.interrupt(task.tid)  # every stop takes a pending interrupt along
        return None

    def _pending_or_wait(self, tid: int) -> tuple[int, int]:
        for found in self._engine.put_off:
            if found[0] == tid:
                self._engine.put_off.remove(found)
                return found
        return self._engine.tracer.wait(tid, os.WNOHANG)

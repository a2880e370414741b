"""Threads, processes and address spaces as they come, change and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...capture.ranges import Ranges
from ...model import EventKind
from ..memory import ProcessMemory
from .looks import Looks
from .programs import Programs
from .tracees import AddressSpace, Process, Task, describe

if TYPE_CHECKING:
    from .engine import Engine

_CLONE_VM, _CLONE_THREAD = 0x100, 0x10000


class Lives:
    """Keeps the account of what is traced."""

    def __init__(self, engine: Engine, programs: Programs, looks: Looks) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._programs, self._looks = programs, looks
        self._early: set[int] = set()

    def early(self, tid: int) -> None:
        """A thread has stopped before the event of its parent came."""
        self._early.add(tid)

    def add(self, tid: int, owner: Process) -> Task:
        """A thread is traced from now on."""
        task = self._engine.tasks[tid] = Task(tid, owner)
        task.started = True
        owner.space.tasks.add(task)
        return task

    def begins(self, parent: Task, event: int) -> None:
        """A thread has made another one, or a process."""
        tid = self._engine.tracer.event_message(parent.tid)
        flags = self._programs.clone_flags(parent, event)
        owner = parent.process
        if not flags & _CLONE_THREAD:
            space = parent.space if flags & _CLONE_VM else self._copied(parent.space, tid)
            try:
                owner = describe(tid, space)
            except OSError:
                return  # it has been killed; nobody will hear of it
            owner.silent = parent.process.silent or not self._engine.settings.follow
            self._looks.inherit(owner, space)
            # A copy may lose it by a call that the filter lets pass.
            space.every_call |= (
                space is not parent.space and bool(owner.inherited.starts) and not space.filters
            )
        task = self.add(tid, owner)
        task.in_call = False
        kind = EventKind.FORK if owner is not parent.process else EventKind.THREAD
        if not (parent.process.silent or owner.silent):
            self._engine.records.event(parent, kind, tid=tid, owner=owner, parent_pid=parent.process.pid)
        if tid in self._early:
            self._early.discard(tid)
            self._engine.resume(task)

    def _copied(self, space: AddressSpace, tid: int) -> AddressSpace:
        copy = AddressSpace(
            has_shared=space.has_shared, implies_exec=space.implies_exec, every_call=space.every_call
        )
        copy.filters, copy.windows = space.filters, Ranges(space.windows)
        copy.sees_file_writes = space.sees_file_writes
        copy.known.starts, copy.known.ends = space.known.starts[:], space.known.ends[:]
        copy.known.values = space.known.values[:]
        copy.gadgets = dict(space.gadgets)
        copy.break_end, copy.growing = space.break_end, set(space.growing)
        copy.watched = self._engine.machine.fork(space.watched)
        self.open_memory(copy, tid)
        if copy.watched:
            self._engine.watching.reconcile(copy)
        return copy

    def open_memory(self, space: AddressSpace, tid: int) -> None:
        """Open what /proc says about a process's memory."""
        space.close()
        try:
            space.memory = ProcessMemory(
                tid, files_since_ns=self._engine.settings.files_since_ns, stopped=True
            )
        except OSError:
            space.memory = None

    def executes(self, task: Task) -> None:
        """The process executes another program; ``task`` may have had another ID before."""
        owner = task.process
        for other in [
            each for each in self._engine.tasks.values() if each.process is owner and each is not task
        ]:
            self.remove(other)
        old = owner.space
        old.tasks.discard(task)
        self._retire(old)
        space = owner.space = AddressSpace(every_call=not self._engine.filtered, filters=old.filters)
        space.tasks.add(task)
        if task.tid == self._engine.command and owner.silent and not self._engine.silent:
            started = describe(task.tid, space)
            owner.start_ns, owner.parent, owner.uid = started.start_ns, started.parent, started.uid
            owner.namespace_pid, owner.silent = started.namespace_pid, False
            self._engine.on_command_start()
        owner.comm, owner.inherited = b"", Ranges()
        task.request, task.signals = None, []
        task.in_call, task.at_exit = True, lambda: self._programs.program_begins(task)
        self._engine.resume(task)

    def remove(self, task: Task) -> None:
        """A thread is gone."""
        self._engine.tasks.pop(task.tid, None)
        self._engine.machine.end(task.tid)
        task.space.tasks.discard(task)
        self._retire(task.space)

    def _retire(self, space: AddressSpace) -> None:
        if not space.tasks:
            self._engine.machine.drop(space.watched)
            space.close()

    def ends(self, tid: int, status: int) -> None:
        """A thread has ended."""
        task = self._engine.tasks.get(tid)
        self._early.discard(tid)
        if tid == self._engine.command:
            self._engine.on_command_end(status)
        if task is None:
            return
        leader = tid == task.process.pid
        self._engine.records.event(
            task,
            EventKind.EXIT if leader else EventKind.THREAD_EXIT,
            result=status if leader else 0,
        )
        self.remove(task)

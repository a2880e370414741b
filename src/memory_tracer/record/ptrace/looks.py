"""Looking at memory that another process made executable, or that cannot be watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...model import PAGE_SIZE, EventKind, Protection, Status
from .lookup import mappings_in
from .tracees import AddressSpace, Process, Task

if TYPE_CHECKING:
    from .engine import Engine

_EXEC, _WRITE, _READ = Protection.EXEC, Protection.WRITE, Protection.READ


class Looks:
    """Records ranges of memory as they are."""

    def __init__(self, engine: Engine) -> None:
        """Work for ``engine``."""
        self._engine = engine

    def look_at_inherited(self, task: Task, start: int = 0, end: int = 1 << 64) -> None:
        """Record the executable memory in a range that another process made."""
        inherited = task.process.inherited
        for first, last, _ in list(inherited.within(start, end)):
            inherited.put(first, last, None)
            for low, high, backed in list(task.space.known.within(first, last)):
                if backed.protection & _EXEC:
                    self.look(task, low, high, backed.protection, Status.WATCHED | backed.status)

    @staticmethod
    def inherit(process: Process, space: AddressSpace) -> None:
        """A new process has executable memory from the start; what files say need not be recorded."""
        for start, end, backed in space.known.within(0, 1 << 64):
            if backed.protection & _EXEC and (not backed.inode or backed.status & Status.UNLINKED):
                process.inherited.put(start, end, True)

    def share(self, task: Task, start: int, end: int) -> None:
        """Others that share the memory have got something to execute."""
        for other in {each.process for each in task.space.tasks} - {task.process}:
            other.inherited.put(start, end, True)

    def look(self, task: Task, start: int, end: int, protection: Protection, status: Status) -> None:
        """Record what a range holds now."""
        mappings = mappings_in(task.space, start, end)
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

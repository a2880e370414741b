"""Programs and threads as they begin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...model import EventKind, Protection
from ..memory import Mapping
from . import abi, system
from .tracees import Backed, Task
from .watching import Watching

if TYPE_CHECKING:
    from .engine import Engine

_CLONE, _CLONE3, _CLONE_I386 = 56, 435, 120
_CLONE_VM = 0x100
_COMPAT_NAMES = ("rbx", "rcx", "rdx", "rsi", "rdi", "rbp")


class Programs:
    """Looks at what has just begun."""

    def __init__(self, engine: Engine, machine: abi.Machine, watching: Watching) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._watching = watching
        self._names = tuple(machine.arguments)

    def program_begins(self, task: Task) -> None:
        """Execve is over: record the program, and withhold what it has writable and executable."""
        engine, space, owner = self._engine, task.space, task.process
        engine.lives.open_memory(space, task.tid)
        if owner.silent or space.memory is None:
            engine.resume(task)
            return
        mappings = space.memory.mappings()
        program = self._program(task, mappings)
        backed = Backed.of(program, Protection.NONE) if program is not None else None
        engine.records.event(task, EventKind.EXEC, backed=backed)
        engine.records.program(task, 0, program)
        self._watching.personality(task)
        self._watching.withhold(task, mappings)
        engine.resume(task)

    def _program(self, task: Task, mappings: list[Mapping]) -> Mapping | None:
        try:
            inode = Path(f"/proc/{task.tid}/exe").stat().st_ino
        except OSError:
            return None
        return next((mapping for mapping in mappings if mapping.inode == inode), None)

    def clone_flags(self, task: Task, event: int) -> int:
        """How a thread that has just been made shares with the one that made it (clone(2))."""
        registers = self._engine.errands.registers(task)
        number = registers["orig_rax"]
        first = registers[_COMPAT_NAMES[0] if registers.compat else self._names[0]]
        if number == _CLONE3:
            return int.from_bytes(self._engine.tracer.read(task.tid, first, 8), "little")
        if number == (_CLONE_I386 if registers.compat else _CLONE):
            return first
        return _CLONE_VM if event == system.EVENT_VFORK else 0

"""Stopping at fewer calls while a process has memory that is watched: a second filter says which.

A process that was started with a filter gets another one, for the calls that matter from then on, among
them all with an argument that points near what is watched. Filters cannot be taken off again, so there are
only a few in a process's life, each for a wide window; then each of its calls is stopped at.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ...capture.ranges import Ranges
from ...model import PAGE_SIZE, Protection
from .abi import Call, Machine
from .calls import MAP_ANONYMOUS, MAP_PRIVATE
from .filter import build_watching_filter
from .inject import CannotInject
from .registers import Registers
from .tracees import AddressSpace, Task

if TYPE_CHECKING:
    from .engine import Engine

#: What is stopped at too, around what is watched: before it for buffers that reach into it, then rounded.
_MARGIN = 1 << 20
_FIRST_ROUNDING, _ROUNDING = 1 << 24, 1 << 28
#: So many filters a process gets, and so many windows one of them has.
_MOST_FILTERS, _MOST_WINDOWS = 8, 8

_SET_MODE_FILTER, _TSYNC = 1, 1
_PROGRAM = struct.Struct("=H6xQ")
_INSTRUCTION_BYTES = 8


class Narrowing:
    """Installs filters in targets."""

    def __init__(self, engine: Engine, machine: Machine) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._abi = machine.abis[0]

    def narrow(self, task: Task) -> None:
        """What is watched in the memory of ``task``, which can make calls, has changed: see what matters."""
        space = task.space
        if space.every_call or self._covered(space):
            return
        if not self._can(task) or not self._install(task):
            space.every_call = True

    def _covered(self, space: AddressSpace) -> bool:
        if self._engine.machine.shares and not space.sees_file_writes:
            return False
        areas = space.watched.areas
        return all(
            sum(high - low for low, high, _ in space.windows.within(start, end)) == end - start
            for start, end in zip(areas.starts, areas.ends, strict=True)
        )

    def _can(self, task: Task) -> bool:
        """Whether a filter would be for all who use the memory, and only a few are there."""
        alone = all(other.process is task.process for other in task.space.tasks)
        return self._engine.filtered and alone and task.space.filters < _MOST_FILTERS

    def _install(self, task: Task) -> bool:
        space, registers = task.space, self._engine.errands.registers(task)
        windows = self._windows(space)
        if registers.compat or len(windows.starts) > _MOST_WINDOWS:
            return False
        with_writes = self._engine.machine.shares
        program = build_watching_filter(
            self._abi,
            self._engine.cookie,
            list(zip(windows.starts, windows.ends, strict=True)),
            with_writes=with_writes,
        )
        try:
            done = self._filter(task, registers, program)
        except CannotInject:
            return False
        if done:
            space.filters += 1
            space.sees_file_writes |= with_writes
            for start, end in zip(windows.starts, windows.ends, strict=True):
                space.windows.put(start, end, True)
        return done

    def _windows(self, space: AddressSpace) -> Ranges[bool]:
        rounding = _ROUNDING if space.filters else _FIRST_ROUNDING
        windows: Ranges[bool] = Ranges()
        areas = space.watched.areas
        for start, end in zip(areas.starts, areas.ends, strict=True):
            low = max(start - _MARGIN, 0) // rounding * rounding
            high = -(-end // rounding) * rounding
            if not windows.ends or windows.ends[-1] < low:
                windows.put(low, high, True)
            else:
                windows.ends[-1] = max(windows.ends[-1], high)
        return windows

    def _filter(self, task: Task, registers: Registers, program: bytes) -> bool:
        """Have the thread take a filter for all threads of its process, from a page that it maps for that."""
        engine = self._engine
        length = -(-(len(program) + _PROGRAM.size) // PAGE_SIZE) * PAGE_SIZE
        protection = int(Protection.READ | Protection.WRITE)
        # Offset and descriptor must be what they are, so this one is not marked as ours; no filter minds.
        place = engine.errands.inject(
            task, registers, Call.MMAP, 0, length, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0
        )
        if place < 0:
            return False
        head = _PROGRAM.pack(len(program) // _INSTRUCTION_BYTES, place + _PROGRAM.size)
        result = -1
        if engine.tracer.write(task.tid, place, head + program):
            result = engine.errands.inject(task, registers, Call.SECCOMP, _SET_MODE_FILTER, _TSYNC, place)
        engine.errands.inject(task, registers, Call.MUNMAP, place, length)
        return result == 0

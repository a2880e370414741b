"""What was mapped where in a process at some moment, as far as the events say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..analyze.triggers import succeeded
from ..model import REGION_KINDS, EventKind, Protection, Region, Status
from .ranges import Ranges
from .relations import Relations
from .texts import Texts

#: Kinds after which a range is mapped anew, whatever was there before.
_MAPS = frozenset({EventKind.MMAP, EventKind.MREMAP, EventKind.SHMAT, EventKind.EXEC_MAPPING})
#: Kinds that change how a range can be accessed, whatever is mapped there.
_PROTECTS = frozenset({EventKind.MPROTECT, EventKind.PKEY_MPROTECT})
#: Kinds that leave everything as it was, and one that says too little.
_NO_CHANGE = frozenset({EventKind.MADVISE, EventKind.UNKNOWN})
#: Kinds that begin or end an address space.
_LIFE = (EventKind.FORK, EventKind.EXEC, EventKind.EXIT)
#: Of several mappings the first one's backing is given, of an unknown one none.
_VAGUE = int(Status.SEVERAL_MAPPINGS | Status.MAPPING_UNKNOWN)
#: As numbers: operators of flags take microseconds, and all events of a capture are walked through.
_MAPPING_UNKNOWN, _EXEC = int(Status.MAPPING_UNKNOWN), int(Protection.EXEC)
#: Ranges that children have of their parents, in all at one time; beyond, nothing is known of them.
_INHERITED_LIMIT = 1 << 22
#: Rows turned into Python values at a time.
_BLOCK = 1 << 14


class _Step(NamedTuple):
    """The columns of an event that may change what is mapped."""

    row: int
    process: int
    kind: int
    status: int
    ordinal: int
    pid: int
    parent_pid: int
    address: int
    length: int
    device: int
    inode: int
    file_offset: int
    protection: int


class _Backing(NamedTuple):
    """What is behind a range: of a file, where its byte of address 0 would be."""

    ordinal: int
    device: int
    inode: int
    origin: int

    def continues(self, other: _Backing) -> bool:
        """Whether both say the same of the addresses they share. Anonymous memory is all the same."""
        return self[1:] == other[1:] or not (self.device or other.device)


class _Space:
    """What is known of one address space: what is behind its ranges, and which can be executed."""

    def __init__(self, parent: _Space | None = None) -> None:
        self.backings: Ranges[_Backing] = Ranges(parent.backings if parent else None)
        self.executable: Ranges[bool] = Ranges(parent.executable if parent else None)
        self.inherited = self.size

    @property
    def size(self) -> int:
        return len(self.backings.starts) + len(self.executable.starts)


class Mappings:
    """Answers what was mapped at an address right before an event.

    The events are walked through once as long as the questions are in order of sequence, and from
    the start again where they are not.
    """

    def __init__(self, relations: Relations, texts: Texts) -> None:
        self._relations = relations
        self._texts = texts
        self._ordinals = relations.events["ordinal"][: relations.recorded_count]
        self._done, self._next = -1, self._restart()

    def at(self, sequence: int, address: int) -> Region | None:
        """Return the mapping that held ``address`` in the process of the event numbered ``sequence``."""
        space = self._space_at(sequence)
        number = space.backings.find(address) if space else -1
        return self._region(space.backings, number) if space and number >= 0 else None

    def all_before(self, sequence: int) -> list[Region]:
        """Return all mappings known in the process of the event numbered ``sequence``, by address."""
        space = self._space_at(sequence)
        if space is None:
            return []
        return [self._region(space.backings, number) for number in range(len(space.backings.starts))]

    def executable_at(self, sequence: int, address: int) -> bool:
        """Return whether ``address`` lay in a known mapping that could be executed."""
        space = self._space_at(sequence)
        return space is not None and min(space.backings.find(address), space.executable.find(address)) >= 0

    def _space_at(self, sequence: int) -> _Space | None:
        """Return the address space of the process of an event, as it was before."""
        row = int(np.searchsorted(self._ordinals, np.uint64(sequence)))
        if row == len(self._ordinals) or self._ordinals[row] != sequence or self._relations.foreign[row]:
            return None
        if row <= self._done:
            self._done, self._next = -1, self._restart()
        while self._next is not None and self._next.row < row:
            self._apply(self._next)
            self._done, self._next = self._next.row, next(self._steps, None)
        return self._spaces.get(int(self._relations.event_process[row]))

    def _restart(self) -> _Step | None:
        """Forget everything, and return the first step."""
        self._spaces: defaultdict[int, _Space] = defaultdict(_Space)
        #: The latest process of each PID.
        self._latest: dict[int, int] = {}
        self._inherited = 0
        self._steps = self._all_steps()
        return next(self._steps, None)

    def _all_steps(self) -> Iterator[_Step]:
        events = self._relations.events[: len(self._ordinals)]
        kinds, status = events["kind"], events["status"]
        known = np.isin(kinds, list(REGION_KINDS - _NO_CHANGE)) & succeeded(events)
        vague = (status & _VAGUE) != 0
        known &= ~vague | np.isin(kinds, [*_MAPS, *_PROTECTS, EventKind.MUNMAP])
        chosen = np.flatnonzero(known | np.isin(kinds, _LIFE))
        for start in range(0, len(chosen), _BLOCK):
            rows = chosen[start : start + _BLOCK]
            block = events[rows]
            columns = [block[name].tolist() for name in _Step._fields[2:]]
            yield from map(_Step, rows.tolist(), self._relations.event_process[rows].tolist(), *columns)

    def _apply(self, step: _Step) -> None:
        self._latest[step.pid] = step.process
        if step.kind in _LIFE:
            self._inherited -= self._spaces.pop(step.process, _Space()).inherited
            parent = self._spaces.get(self._latest.get(step.parent_pid, -1))
            if step.kind == EventKind.FORK and parent and self._inherited < _INHERITED_LIMIT:
                self._spaces[step.process] = _Space(parent)
                self._inherited += parent.size
        elif step.length:
            self._put(self._spaces[step.process], step)

    def _put(self, space: _Space, step: _Step) -> None:
        end, backings = step.address + step.length, space.backings
        can_execute = step.protection & _EXEC and step.kind != EventKind.MUNMAP
        space.executable.put(step.address, end, True if can_execute else None)
        if step.kind in _PROTECTS and step.status & _VAGUE:
            return
        if step.kind == EventKind.MUNMAP or step.status & _MAPPING_UNKNOWN:
            backings.put(step.address, end, None)
            return
        origin = step.file_offset - step.address if step.device else 0
        backing = _Backing(step.ordinal, step.device, step.inode if step.device else 0, origin)
        if step.kind not in _MAPS:
            number = backings.find(step.address)
            if number >= 0 and end <= backings.ends[number] and backings.values[number].continues(backing):
                return
        backings.put(step.address, end, backing)

    def _region(self, backings: Ranges[_Backing], number: int) -> Region:
        start, backing = backings.starts[number], backings.values[number]
        length = backings.ends[number] - start
        if not backing.device:
            return Region(start, length)
        path = self._texts.path(backing.device, backing.inode, backing.ordinal)
        offset = (backing.origin + start) % (1 << 64)
        return Region(start, length, path, backing.device, backing.inode, offset)

"""Which processes are recorded, when they are not named by PID: criteria, and their form for the kernel."""

from __future__ import annotations

import ctypes
import enum
import mmap
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..errors import TargetError, UsageError
from ..wire.layout import COMM_BYTES
from .cgroups import cgroup_id, container_ids

#: ``struct scope_key`` of memory_tracer.h: generation, kind, what is compared.
KEY = struct.Struct("<2I16s")
EFFECT = struct.Struct("<I")
#: The map holds two generations of rules.
MAX_RULES = 4000

_INCLUDE, _EXCLUDE = 1 << 0, 1 << 1
_HEAD_EXCLUDES = 16

#: A line of /proc/self/maps: start, device, inode.
_MAPPING = re.compile(r"^([0-9a-f]+)-\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+)", re.MULTILINE)
_MINOR_BITS = 20


class Kind(enum.IntEnum):
    """``enum scope_kind`` of memory_tracer.h."""

    HEAD = 0
    CGROUP = 1
    UID = 2
    COMM = 3
    EXE = 4
    PID = 5


@dataclass(frozen=True, slots=True)
class Criteria:
    """Properties of processes. One of each sort that is given must hold.

    ``cgroups`` are paths of control groups (version 2), whose descendants count; ``containers`` ids or
    names; ``uids`` real user ids, as the initial user namespace has them; ``comms`` names of processes;
    ``exes`` paths of programs.
    """

    cgroups: tuple[str | Path, ...] = ()
    containers: tuple[str, ...] = ()
    uids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    exes: tuple[str | Path, ...] = ()
    pids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for comm in self.comms:
            if not 0 < len(os.fsencode(comm)) < COMM_BYTES:
                raise UsageError(f"a process name has 1 to {COMM_BYTES - 1} bytes: {comm!r} never matches")
        for name in self.containers:
            if not name:
                raise UsageError("a container's id or name cannot be empty")
        for number in (*self.uids, *self.pids):
            if not 0 <= number < 1 << 32:
                raise UsageError(f"{number} is no user or process id")

    def rules(self) -> Iterator[tuple[Kind, bytes]]:
        """What the kernel program compares. Raises TargetError for what is not there."""
        for path in self.cgroups:
            yield Kind.CGROUP, _pair(cgroup_id(path))
        for name in self.containers:
            for number in container_ids(name):
                yield Kind.CGROUP, _pair(number)
        for uid in self.uids:
            yield Kind.UID, _pair(uid)
        for comm in self.comms:
            yield Kind.COMM, os.fsencode(comm).ljust(COMM_BYTES, b"\0")
        for path in self.exes:
            yield Kind.EXE, _pair(*_inode_and_device(Path(path)))
        for pid in self.pids:
            yield Kind.PID, _pair(pid)

    def describe(self) -> dict[str, list[str | int]]:
        """The criteria as they stand in a capture's metadata."""
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: [value if isinstance(value, int) else str(value) for value in values]
            for name, values in given.items()
            if values
        }


@dataclass(frozen=True, slots=True)
class Scope:
    """The processes for which ``include`` holds and nothing of ``exclude``; by default all.

    The recorder itself is never among them.
    """

    include: Criteria = field(default_factory=Criteria)
    exclude: Criteria = field(default_factory=Criteria)

    def rules(self, generation: int) -> dict[bytes, bytes]:
        """The entries of the map ``scope_rules``, for this ``generation``; looks paths and names up now."""
        effects: dict[tuple[Kind, bytes], int] = {}
        head = 1 << Kind.HEAD
        for criteria, effect, shift in (
            (self.include, _INCLUDE, 0),
            (self.exclude, _EXCLUDE, _HEAD_EXCLUDES),
        ):
            for kind, value in criteria.rules():
                effects[kind, value] = effects.get((kind, value), 0) | effect
                head |= 1 << kind << shift
        if len(effects) >= MAX_RULES:
            raise UsageError(f"a scope has {MAX_RULES - 1} criteria at most, and this one {len(effects)}")
        effects[Kind.HEAD, bytes(16)] = head
        return {
            KEY.pack(generation, kind, value): EFFECT.pack(effect)
            for (kind, value), effect in effects.items()
        }

    def describe(self) -> dict[str, object]:
        """The scope as it stands in a capture's metadata."""
        return {"include": self.include.describe(), "exclude": self.exclude.describe()}


def _pair(first: int, second: int = 0) -> bytes:
    return struct.pack("<2Q", first, second)


def _inode_and_device(path: Path) -> tuple[int, int]:
    """A program's inode and device as the kernel has them: stat(2) says other ones on some file systems."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise TargetError(f"the program {str(path)!r} cannot be opened: {error.strerror}") from error
    try:
        # Private, so that nothing is ever written to the file; writable, because ctypes asks for that.
        with mmap.mmap(descriptor, 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
            start = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
            mappings = Path("/proc/self/maps").read_text(errors="replace")
    except (OSError, ValueError) as error:
        raise TargetError(f"{str(path)!r} is no program ({error})") from error
    finally:
        os.close(descriptor)
    for address, major, minor, inode in _MAPPING.findall(mappings):
        if int(address, 16) == start:
            return int(inode), int(major, 16) << _MINOR_BITS | int(minor, 16)
    raise TargetError(f"{str(path)!r} cannot be found among our own mappings")

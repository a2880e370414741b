"""The threads that are traced, the processes they belong to, and the address spaces they share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from ...capture.ranges import Ranges
from ...model import Protection, Status
from .. import process
from ..memory import Mapping, ProcessMemory
from .calls import Request
from .pages import Space


@dataclass(frozen=True, slots=True)
class Backed:
    """Executable memory as the target knows it: what it asked for, and what is behind it.

    ``origin`` plus an address is the offset in the file.
    """

    protection: Protection
    device: int = 0
    inode: int = 0
    origin: int = 0
    status: Status = Status.NONE
    name: bytes = b""

    @classmethod
    def of(cls, mapping: Mapping, protection: Protection) -> Backed:
        """What ``mapping`` is, with ``protection`` instead of its own."""
        status = Status.SHARED if mapping.shared else Status.NONE
        status |= Status.UNLINKED if mapping.unlinked else Status.NONE
        origin = mapping.offset - mapping.start if mapping.inode else 0
        return cls(
            protection,
            mapping.device,
            mapping.inode,
            origin,
            status,
            b"" if mapping.special else mapping.name,
        )

    def mapping(self, start: int, end: int) -> Mapping:
        """The reverse: what is mapped in [start, end) as far as this says."""
        shared, offset = bool(self.status & Status.SHARED), self.origin + start if self.inode else 0
        return Mapping(start, end, self.protection, shared, offset, self.device, self.inode, self.name)

    @property
    def lasts(self) -> bool:
        """Whether what is behind it cannot change but by calls on the memory: no file that has a name."""
        return not self.inode or bool(self.status & Status.UNLINKED)


@dataclass(slots=True, eq=False)
class AddressSpace:
    """Memory that threads share."""

    watched: Space = field(default_factory=Space)
    #: What is executable, as far as calls told.
    known: Ranges[Backed] = field(default_factory=Ranges)
    #: Whether it may have shared memory: then mappings must be looked up.
    has_shared: bool = False
    #: Whether what can be read can be executed (personality(2)); withheld from the kernel.
    implies_exec: bool = False
    #: Whether each system call is stopped at.
    every_call: bool = False
    #: How many filters of ours its processes have for that, where they stop, and whether at writes to files.
    filters: int = 0
    windows: Ranges[bool] = field(default_factory=Ranges)
    sees_file_writes: bool = False
    break_end: int = 0
    #: Where watched memory begins that grows downwards.
    growing: set[int] = field(default_factory=set)
    tasks: set[Task] = field(default_factory=set)
    memory: ProcessMemory | None = None
    #: Where there is an instruction that makes a call, by whether of the 32-bit ABI.
    gadgets: dict[bool, int] = field(default_factory=dict)
    flips: dict[int, int] = field(default_factory=dict)
    #: Content of the pages that are compared, as last recorded.
    contents: dict[int, bytes] = field(default_factory=dict)
    #: The size of pages of a file, by device and inode.
    page_sizes: dict[tuple[int, int], int] = field(default_factory=dict)

    def close(self) -> None:
        """Free what is held open."""
        if self.memory is not None:
            self.memory.__exit__()
            self.memory = None


@dataclass(slots=True, eq=False)
class Process:
    """A traced process."""

    pid: int
    start_ns: int
    parent: int
    space: AddressSpace
    #: Still our own launcher, or a descendant that nobody asked for: nothing is recorded.
    silent: bool = False
    comm: bytes = b""
    comm_ns: int = 0
    uid: int = 0
    namespace_pid: int = 0
    #: Executable memory that another process made, and nobody has recorded of this one.
    inherited: Ranges[bool] = field(default_factory=Ranges)


@dataclass(slots=True, eq=False)
class Task:
    """A traced thread."""

    tid: int
    process: Process
    #: The call about memory that it is in, if any.
    request: Request | None = None
    #: Whether its next stop at a call is an exit.
    in_call: bool = False
    #: What to do at the exit instead of what a request asks for.
    at_exit: Callable[[], None] | None = None
    #: Signals that came while it did something for us, with what they say.
    signals: list[tuple[int, bytes]] = field(default_factory=list)
    restarts: int = 0
    started: bool = False

    @property
    def space(self) -> AddressSpace:
        """Its memory."""
        return self.process.space


def describe(pid: int, space: AddressSpace) -> Process:
    """Ask the kernel about a process; raises OSError when it is gone."""
    found = Process(pid, process.start_time_ns(pid), process.parent_pid(pid), space)
    found.uid = process.uid(pid)
    found.namespace_pid = process.namespace_id(pid)
    return found


def threads_of(pid: int) -> list[int]:
    """The threads of a process now; none when it is gone."""
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return []

"""What a capture is made of: events, pages, regions, processes and losses.

All objects are immutable values. Addresses and sizes are in bytes, times in nanoseconds; a
``timestamp_ns`` counts from boot without suspend (``CLOCK_MONOTONIC``), a ``wall_time`` is UTC.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from .notebook import Described

PAGE_SIZE = 4096
#: Addresses have 64 bits.
ADDRESS_END = 1 << 64


class Protection(enum.IntFlag):
    """Memory protection, with the values of ``PROT_*`` in mmap(2)."""

    NONE = 0
    READ = 1
    WRITE = 2
    EXEC = 4

    def __str__(self) -> str:
        """Return the ``r-x`` form used by /proc/PID/maps."""
        return "".join(
            letter if self & bit else "-"
            for letter, bit in zip("rwx", (Protection.READ, Protection.WRITE, Protection.EXEC), strict=True)
        )


class EventKind(enum.IntEnum):
    """What happened. Values are those of ``enum event_kind`` in memory_tracer.h.

    ``UNKNOWN`` never comes from the kernel: it stands for an event whose own record is lost while
    pages of it are there, and for a kind this version does not know.
    """

    UNKNOWN = 0
    MMAP = 1
    MPROTECT = 2
    PKEY_MPROTECT = 3
    MUNMAP = 4
    MREMAP = 5
    SHMAT = 6
    MADVISE = 7
    BASELINE = 16
    EXEC_MAPPING = 17
    LOOK = 18
    SAMPLE = 19
    FETCH = 20
    FORK = 32
    THREAD = 33
    EXEC = 34
    EXIT = 35
    THREAD_EXIT = 36

    def __str__(self) -> str:
        return self.name.lower()


class LookArgument(enum.IntEnum):
    """What the arguments of a look's record say. Values of ``enum look_argument``."""

    BEFORE = 0
    NUMBER = 1
    COMPAT = 2
    CALLER = 3


#: Kinds that say something about a memory region (the others are steps of a process's life).
REGION_KINDS = frozenset(kind for kind in EventKind if kind < EventKind.FORK)


class Missing(enum.IntEnum):
    """Why a page's bytes are not in the capture. Values of ``enum missing_reason``.

    ``ABSENT`` is no loss: the page was never touched, or was discarded, and is zeros when it is read.
    The reader alone gives ``UNKNOWN``, for a reason this version does not know, and ``DAMAGED``.
    """

    UNKNOWN = 0
    RING_FULL = 1
    UNREADABLE = 2
    SWAPPED = 3
    NOT_PRESENT = 4
    DEFERRED = 5
    GONE = 6
    LIMIT = 7
    ABSENT = 8
    DAMAGED = 255

    def __str__(self) -> str:
        return self.name.lower().replace("_", "-")

    @property
    def sentence(self) -> str:
        """The reason in words, to be put after "because"."""
        return {
            Missing.UNKNOWN: "of a reason this version does not know",
            Missing.RING_FULL: "the ring buffer was full",
            Missing.UNREADABLE: "the kernel could not read it",
            Missing.SWAPPED: "it was swapped out",
            Missing.NOT_PRESENT: "it was not in the process's page tables",
            Missing.DEFERRED: "it lay beyond the work allowed per call",
            Missing.GONE: "it was gone before user space could read it",
            Missing.LIMIT: "the capture's size limit was reached",
            Missing.ABSENT: "there are none: it was never touched, or was discarded, and reads as zeros",
            Missing.DAMAGED: "its place in the file is damaged",
        }[self]


class Status(enum.IntFlag):
    """What is special about an event. Values of ``enum event_status``."""

    NONE = 0
    ARGUMENTS_UNKNOWN = 1 << 0
    MAPPING_UNKNOWN = 1 << 1
    PREVIOUS_UNKNOWN = 1 << 2
    SEVERAL_MAPPINGS = 1 << 3
    SHARED = 1 << 4
    UNLINKED = 1 << 5
    HOT = 1 << 6
    PARTIAL = 1 << 7
    MAPPINGS_INCOMPLETE = 1 << 8
    RECENT = 1 << 9
    VIEWED = 1 << 10
    COMPAT = 1 << 11
    WATCHED = 1 << 12
    CONTENDED = 1 << 13


class Evidence(enum.IntFlag):
    """How it is known that the bytes of a page were executed, and not only executable.

    Stacks follow frame pointers. In code that was compiled without them, a chain can lead to values
    that are no return addresses, so ``STACK`` alone is a weaker sign than the other two.
    """

    NONE = 0
    SAMPLED = 1 << 0  #: the sampler found the instruction pointer in the page
    CALLER = 1 << 1  #: a recorded call came from the page
    FAULT = 1 << 3  #: the first fetch from the page faulted, and was then let through
    STACK = 1 << 2  #: a return address on a recorded caller's stack follows a call in the page


#: Kinds that are no call: memory was looked at, and what had changed since was recorded.
OBSERVATION_KINDS = frozenset({EventKind.LOOK, EventKind.SAMPLE, EventKind.FETCH})


@dataclass(frozen=True, slots=True)
class Region(Described):
    """A range of one address space and what backs it."""

    start: int
    length: int
    path: str | None = None
    device: int | None = None
    inode: int | None = None
    offset: int | None = None

    @property
    def end(self) -> int:
        """First address after the region."""
        return self.start + self.length

    def offset_of(self, address: int) -> int:
        """Where ``address`` is in the file that backs the region, or in the region when there is none."""
        return (self.offset or 0) + address - self.start

    @property
    def file_backed(self) -> bool:
        """True when an inode (file, memfd, System V segment) backs the region."""
        return self.inode is not None


@dataclass(frozen=True, slots=True)
class Outcome(Described):
    """What became of the pages of one event, in pages."""

    captured: int = 0
    unchanged: int = 0
    absent: int = 0
    in_file: int = 0
    not_present: int = 0
    unreadable: int = 0
    swapped: int = 0
    deferred: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Registers:
    """A thread's general registers, by the kernel's names for them (``rip``, ``rax``, ``eflags``)."""

    names: tuple[str, ...]
    values: tuple[int, ...]

    def __getitem__(self, name: str) -> int:
        """Return one of them; raises KeyError for a name that the machine does not have."""
        try:
            return self.values[self.names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    def items(self) -> Iterator[tuple[str, int]]:
        """Return names and values, in the kernel's order."""
        return zip(self.names, self.values, strict=True)


@dataclass(frozen=True, slots=True)
class Event(Described):
    """A call, a mapping or a step in a process's life.

    ``caller`` is the instruction pointer of the thread that caused it. ``stack`` is its user stack,
    innermost first: the instruction pointer, the word on top of the stack if it points to code that
    the capture knows, then return addresses as the frame pointers give them; empty when it is not
    known. ``Capture.mapping_at`` says what is mapped there. A look before a write from outside was
    caused by another process, a look of a pass by the recorder. ``fault_address`` and ``registers`` are
    those of the thread that was about to execute what a ``FETCH`` captured.
    """

    sequence: int
    timestamp_ns: int
    wall_time: datetime
    pid: int
    tid: int
    process_start_ns: int
    comm: str
    kind: EventKind
    arguments: tuple[int, ...]
    result: int | None
    protection: Protection
    previous_protection: Protection | None
    region: Region | None
    status: Status = Status.NONE
    caller: int | None = None
    stack: tuple[int, ...] = ()
    parent_pid: int | None = None
    uid: int | None = None
    namespace_pid: int | None = None
    page_count: int = 0
    coalesced: int = 0
    coalesced_since_ns: int | None = None
    outcome: Outcome | None = None
    fault_address: int | None = None
    registers: Registers | None = None

    @property
    def succeeded(self) -> bool:
        """False for a call that returned an error (a part may have changed: ``Status.PARTIAL``)."""
        return self.result is None or self.kind >= EventKind.FORK or not -4095 <= self.result < 0


@dataclass(frozen=True, slots=True, repr=False)
class Page(Described):
    """One page of memory at the moment an event made it executable.

    ``fetched``: it was not in memory then, and was faulted in before the call returned. ``late``: user
    space read it, some time after.
    """

    pid: int
    tid: int
    comm: str
    address: int
    content: bytes | None
    missing: Missing | None
    event: EventKind
    protection: Protection
    previous_protection: Protection | None
    timestamp_ns: int
    wall_time: datetime
    generation: int
    sequence: int
    region: Region
    process_start_ns: int
    late: bool = False
    fetched: bool = False
    sha256: str | None = None
    evidence: Evidence = Evidence.NONE

    def __repr__(self) -> str:
        what = f"missing: {self.missing}" if self.content is None else f"generation {self.generation}"
        return (
            f"<Page {self.address:#x} {self.protection} {what}, {self.event} at {self.timestamp_ns} ns, "
            f"pid {self.pid} ({ascii(self.comm)[1:-1]})>"
        )


@dataclass(frozen=True, slots=True)
class MissingRun(Described):
    """Neighbouring pages of one event whose bytes never came, ``length`` bytes from ``address``."""

    sequence: int
    timestamp_ns: int
    wall_time: datetime
    pid: int
    tid: int
    process_start_ns: int
    comm: str
    event: EventKind
    address: int
    length: int
    missing: Missing


@dataclass(frozen=True, slots=True)
class Process(Described):
    """One process of the capture. (pid, start_time_ns) identifies it; a PID alone may be reused."""

    pid: int
    start_time_ns: int
    parent_pid: int | None
    comm: str
    path: str | None
    command_line: tuple[str, ...]
    uid: int | None
    first_seen_ns: int
    ended_ns: int | None
    wait_status: int | None
    #: Its PID as it sees itself, in a PID namespace of its own.
    namespace_pid: int | None = None


@dataclass(frozen=True, slots=True)
class Loss(Described):
    """One reason why the capture shows less than happened."""

    reason: str
    count: int
    unit: str
    explanation: str

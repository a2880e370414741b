"""Pages from which execute is withheld, and what is to be done with them: the words of ``machine``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...capture.ranges import Ranges
from ...model import PAGE_SIZE, Protection

#: What is behind a shared page: device and inode.
Backing = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Area:
    """What the target asked for. ``origin`` plus an address is the offset in ``backing``.

    ``page`` is the size of what can be protected by itself.
    """

    wanted: Protection
    backing: Backing | None = None
    origin: int = 0
    page: int = PAGE_SIZE

    def page_of(self, address: int) -> int:
        """The first address of the page that holds ``address``."""
        return address - address % self.page


@dataclass(slots=True, eq=False)
class Space:
    """The watched part of one address space. Pages are named by their first address."""

    areas: Ranges[Area] = field(default_factory=Ranges)
    executing: set[int] = field(default_factory=set)
    turns: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    contended: set[int] = field(default_factory=set)
    #: How often something that was watched ceased to be.
    losses: int = 0

    def __bool__(self) -> bool:
        """Whether anything is watched."""
        return bool(self.areas.starts)

    def area(self, address: int) -> Area | None:
        """What the target asked for at ``address``, if that is watched."""
        number = self.areas.find(address)
        return self.areas.values[number] if number >= 0 else None


@dataclass(frozen=True, slots=True)
class Protect:
    """Give [start, end) this protection."""

    space: Space
    start: int
    end: int
    protection: Protection


@dataclass(frozen=True, slots=True)
class Capture:
    """Record a page: nobody can write to it now, and it is about to be executed."""

    space: Space
    page: int
    contended: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Let the thread do one instruction, with all others that fault waiting."""


@dataclass(frozen=True, slots=True)
class Go:
    """Let the thread try again; the fault was of our making."""


@dataclass(frozen=True, slots=True)
class Forward:
    """The fault is the target's own."""


Command = Protect | Capture | Step | Go | Forward


def is_watched(wanted: Protection, *, shared: bool) -> bool:
    """Whether memory with this protection can be executed with bytes that no call announced."""
    writable = wanted & Protection.WRITE or shared
    return bool(wanted & Protection.EXEC and writable)


def protect(space: Space, page: int, area: Area, protection: Protection) -> Protect:
    """Give a page this protection."""
    return Protect(space, page, page + area.page, protection)


def joined(commands: list[Command]) -> Iterator[Command]:
    """Neighbouring pages that get the same protection with one command."""
    held: Protect | None = None
    for command in commands:
        if not isinstance(command, Protect):
            raise TypeError(command)
        follows = held is not None and (held.space, held.end) == (command.space, command.start)
        if held is not None and follows and held.protection == command.protection:
            held = Protect(held.space, held.start, command.end, held.protection)
            continue
        if held is not None:
            yield held
        held = command
    if held is not None:
        yield held

"""Who may write and who may execute: the state of every page from which execute is withheld.

Knows no kernel: faults and granted calls go in, commands come out, to be carried out in order. The
rule it keeps is that no page can be written (through any of its addresses) while it can be executed
(at any of them), except for the one instruction of an ``Inside`` step.

A page is in one of two states. *Open*: it has what the target asked for, without execute. *Executing*:
it has what the target asked for, without write. The first fetch from an open page, and the first write
to an executing one, fault; each turns the page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from ...capture.ranges import Ranges
from ...model import PAGE_SIZE, Protection
from .pages import Area, Backing, Capture, Command, Forward, Go, Protect, Space, Step, joined, protect

#: An instruction is shorter than this.
_LONGEST_INSTRUCTION = 16
#: After so many writes of one instruction in a row that others undid, it is stepped over.
TURNS_BEFORE_STEP = 8


@dataclass(slots=True)
class _Last:
    """The last fault of a thread: where, at which turn, and how often in a row."""

    address: int
    ip: int
    turn: int
    count: int = 1


class Machine:
    """All spaces of a recording."""

    def __init__(self) -> None:
        """Watch nothing yet."""
        self._spaces: dict[Backing, list[Space]] = defaultdict(list)
        self._last: dict[int, _Last] = {}
        #: For each thread the losses of its space when it last faulted where nothing is watched.
        self._seen: dict[int, int] = {}

    def knows(self, backing: Backing) -> bool:
        """Whether memory with this behind it is watched anywhere."""
        return bool(self._spaces.get(backing))

    @property
    def shares(self) -> bool:
        """Whether anything watched is shared."""
        return any(self._spaces.values())

    def open_backing(self, backing: Backing) -> list[Command]:
        """Somebody wrote to ``backing``, and not through memory: what it holds is to be seen again."""
        commands: list[Command] = []
        for space in self._spaces.get(backing, ()):
            for page in sorted(space.executing):
                area = space.area(page)
                if area is not None and area.backing == backing and page in space.executing:
                    commands += self._open(space, page, area)
        return commands

    # What calls did

    def watch(self, space: Space, start: int, end: int, area: Area) -> list[Command]:
        """The target asked for ``area`` in [start, end), and has it without execute."""
        commands = self._close(space, start, end, area)
        space.areas.put(start, end, area)
        if area.backing and space not in self._spaces[area.backing]:
            self._spaces[area.backing].append(space)
        return commands

    def _close(self, space: Space, start: int, end: int, area: Area) -> list[Command]:
        """Open what is executing elsewhere of the memory that ``area`` makes writable here."""
        self.forget(space, start, end)
        if area.backing is None or not area.wanted & Protection.WRITE:
            return []
        first, last = start + area.origin, end + area.origin
        return [
            command
            for other in self._spaces.get(area.backing, ())
            for page in sorted(other.executing)
            if (there := other.area(page)) is not None
            and there.backing == area.backing
            and first <= page + there.origin < last
            for command in self._open(other, page, there)
        ]

    def forget(self, space: Space, start: int, end: int) -> None:
        """Nothing is withheld in [start, end) any more: it is unmapped, or asked for otherwise."""
        if any(True for _ in space.areas.within(start, end)):
            space.losses += 1
        space.areas.put(start, end, None)
        pages = (end - start) // PAGE_SIZE
        if pages < len(space.executing):
            gone = {page for page in range(start, end, PAGE_SIZE) if page in space.executing}
        else:
            gone = {page for page in space.executing if start <= page < end}
        space.executing -= gone

    def fork(self, space: Space) -> Space:
        """A copy of an address space, as fork makes it."""
        copy = Space(Ranges(space.areas), set(space.executing))
        for spaces in self._spaces.values():
            if space in spaces:
                spaces.append(copy)
        return copy

    def drop(self, space: Space) -> None:
        """An address space is gone."""
        for spaces in self._spaces.values():
            if space in spaces:
                spaces.remove(space)
        space.losses += bool(space)
        space.areas = Ranges()
        space.executing.clear()

    def end(self, tid: int) -> None:
        """A thread is gone."""
        self._last.pop(tid, None)
        self._seen.pop(tid, None)

    def open(self, space: Space, start: int, end: int) -> list[Command]:
        """Make the executing pages of [start, end) writable again, for the kernel to write to them."""
        commands: list[Command] = []
        for page in sorted(page for page in space.executing if start <= page < end):
            area = space.area(page)
            if area is not None and page in space.executing:
                commands += self._open(space, page, area)
        return list(joined(commands))

    def release(self, space: Space) -> list[Command]:
        """Give everything the protection that was asked for, and watch no more."""
        areas = space.areas
        commands: list[Command] = [
            Protect(space, start, end, area.wanted)
            for start, end, area in zip(areas.starts, areas.ends, areas.values, strict=True)
        ]
        self.drop(space)
        return commands

    def reconcile(self, space: Space, executable: Ranges[bool]) -> None:
        """Learn from the kernel which pages can be executed, in a copy that may be younger than ours."""
        executing: set[int] = set()
        for start, end, area in list(space.areas.within(0, 1 << 64)):
            for first, last, _ in executable.within(start, end):
                executing.update(range(area.page_of(first), last, area.page))
        space.executing = executing

    # Faults

    def fault(self, space: Space, tid: int, address: int, ip: int) -> list[Command]:
        """Thread ``tid`` may not do at ``address`` what the instruction at ``ip`` wants to."""
        area = space.area(address)
        if area is None:
            # It may have come before we gave back what it missed; if not, it comes once more.
            stale = self._seen.get(tid, 0) != space.losses
            self._seen[tid] = space.losses
            return [Go()] if stale else [Forward()]
        page = area.page_of(address)
        fetch = 0 <= address - ip < _LONGEST_INSTRUCTION
        last = self._last.get(tid)
        again = last is not None and (last.address, last.ip) == (address, ip)
        unchanged = again and last is not None and last.turn == space.turns[page]
        count = last.count + 1 if last is not None and again else 1
        busy = page in space.executing or any(True for _ in self._executing_views(space, page, area))
        commands: list[Command]
        if fetch and area.wanted & Protection.EXEC and page not in space.executing:
            commands = self._execute(space, page, area)
        elif area.wanted & Protection.WRITE and busy and (unchanged or not fetch):
            commands = self._write(space, page, area, ip, count)
            count %= TURNS_BEFORE_STEP
        elif area.wanted & Protection.WRITE and area.backing and not (fetch or unchanged):
            # The view that was executing is gone, and took with it what this one was to get back.
            commands = [protect(space, page, area, area.wanted & ~Protection.EXEC), Go()]
        elif (fetch or area.wanted & Protection.WRITE) and not unchanged:
            commands = [Go()]  # somebody else's fault turned the page meanwhile
        else:
            commands = [Forward()]
        self._last[tid] = _Last(address, ip, space.turns[page], count)
        return commands

    def _execute(self, space: Space, page: int, area: Area) -> list[Command]:
        """Take write away from all views of an open page, then let this one be executed."""
        commands: list[Command] = []
        space.turns[page] += 1
        for other, there, view in self._views(space, page, area):
            if view.wanted & Protection.WRITE and (other, there) != (space, page):
                closed = view.wanted & ~(Protection.WRITE | Protection.EXEC)
                commands.append(protect(other, there, view, closed))
        space.executing.add(page)
        commands.append(protect(space, page, area, area.wanted & ~Protection.WRITE))
        contended = page in space.contended
        space.contended.discard(page)
        return [*commands, Capture(space, page, contended), Go()]

    def _write(self, space: Space, page: int, area: Area, ip: int, count: int) -> list[Command]:
        """Open an executing page, unless the writing instruction itself lies in it."""
        code = self._code_in(space, page, area, ip)
        if code is not None:
            space.contended.discard(page)
            allowed = area.wanted if code == page else area.wanted & ~Protection.EXEC
            closed = allowed & ~Protection.WRITE
            return [
                protect(space, page, area, allowed),
                Step(),
                protect(space, page, area, closed),
                Capture(space, code),
                Go(),
            ]
        commands = self._open(space, page, area)
        if count >= TURNS_BEFORE_STEP:
            space.contended.add(page)
            commands.append(Step())
        return [*commands, Go()]

    def _code_in(self, space: Space, page: int, area: Area, ip: int) -> int | None:
        """The executing page with the instruction at ``ip``, if it is the memory of ``page``."""
        for code in (area.page_of(ip), area.page_of(ip + _LONGEST_INSTRUCTION - 1)):
            if code == page and page in space.executing:
                return page
            for other, there, _ in self._executing_views(space, page, area):
                if other is space and there == code:
                    return code
        return None

    def _open(self, space: Space, page: int, area: Area) -> list[Command]:
        """Take execute away from all views, then give write to those that want it."""
        views = [(space, page, area), *self._views(space, page, area)]
        first: list[Command] = []
        then: list[Command] = []
        done = set()
        for other, there, view in views:
            if (id(other), there) in done:
                continue
            done.add((id(other), there))
            if there in other.executing:
                other.executing.discard(there)
                other.turns[there] += 1
                first.append(protect(other, there, view, view.wanted & ~Protection.EXEC))
            elif view.wanted & Protection.WRITE:
                then.append(protect(other, there, view, view.wanted & ~Protection.EXEC))
        return first + then

    def _views(self, space: Space, page: int, area: Area) -> Iterator[tuple[Space, int, Area]]:
        """All places at which the memory of a shared page is watched, this one included."""
        if area.backing is None:
            return
        offset = page + area.origin
        for other in self._spaces.get(area.backing, ()):
            areas = other.areas
            for start, end, view in zip(areas.starts, areas.ends, areas.values, strict=True):
                if view.backing == area.backing and start <= offset - view.origin < end:
                    yield other, offset - view.origin, view

    def _executing_views(self, space: Space, page: int, area: Area) -> Iterator[tuple[Space, int, Area]]:
        for other, there, view in self._views(space, page, area):
            if there in other.executing:
                yield other, there, view

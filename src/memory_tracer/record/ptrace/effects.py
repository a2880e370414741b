"""What calls did to a range of memory: it can be executed, cannot any more, or is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...model import PAGE_SIZE, EventKind, Protection, Status
from ..memory import Mapping
from .abi import Call
from .calls import Request
from .looks import Looks
from .lookup import mappings_in
from .pages import is_watched
from .tracees import AddressSpace, Backed, Task
from .watching import Watching

if TYPE_CHECKING:
    from .engine import Engine

_EXEC, _WRITE = Protection.EXEC, Protection.WRITE
_KINDS = {
    Call.MMAP: EventKind.MMAP,
    Call.MPROTECT: EventKind.MPROTECT,
    Call.PKEY_MPROTECT: EventKind.PKEY_MPROTECT,
    Call.MUNMAP: EventKind.MUNMAP,
    Call.MREMAP: EventKind.MREMAP,
    Call.SHMAT: EventKind.SHMAT,
}


class Effects:
    """Records them, and keeps the account of what is executable."""

    def __init__(self, engine: Engine, watching: Watching, looks: Looks) -> None:
        """Work for ``engine``."""
        self._engine = engine
        self._watching, self._looks = watching, looks

    def event(self, task: Task, request: Request, result: int, start: int, length: int, **more: Any) -> int:
        """Record a call. It is an event only where execute plays a part."""
        fields: dict[str, Any] = {
            "protection": int(request.protection),
            "result": signed(result),
            "arguments": tuple(request.arguments),
            "caller_ip": request.ip,
            "caller_sp": request.sp,
            **more,
        }
        fields["status"] = int(fields.get("status", 0)) | (Status.COMPAT if request.compat else 0)
        return self._engine.records.event(task, _KINDS[request.call], start, length, **fields)

    def executable(
        self, task: Task, request: Request, result: int, start: int, end: int, mappings: list[Mapping]
    ) -> None:
        """The target asked for execute in [start, end), and thinks that it has it."""
        space, wanted = task.space, request.protection
        first = mappings[0] if mappings else None
        backed = Backed.of(first, wanted) if first is not None else Backed(wanted)
        watched = is_watched(wanted, shared=any(mapping.shared for mapping in mappings))
        before = space.known.find(start)
        previous = space.known.values[before].protection if before >= 0 else Protection.NONE
        status = Status.WATCHED if watched else Status.NONE
        if before < 0 and request.call is not Call.MMAP:
            status |= Status.PREVIOUS_UNKNOWN
        status |= Status.SEVERAL_MAPPINGS if len(mappings) > 1 else Status.NONE
        status |= Status.PARTIAL if failed(result) else Status.NONE
        status |= self._recent(space, first)
        for mapping in mappings:
            self._engine.records.path(task, mapping)
            space.known.put(max(start, mapping.start), min(end, mapping.end), Backed.of(mapping, wanted))
        cause = self.event(
            task,
            request,
            result,
            start,
            end - start,
            backed=backed,
            status=int(status),
            previous_protection=int(previous),
            page_count=0
            if watched
            else sum((min(end, each.end) - max(start, each.start)) // PAGE_SIZE for each in mappings),
        )
        self._looks.share(task, start, end)
        if watched:
            for mapping in mappings:
                low, high = max(start, mapping.start), min(end, mapping.end)
                self._watching.watch(task, space, low, high, mapping, wanted)
        else:
            self._engine.machine.forget(space.watched, start, end)
            self._engine.records.pages(task, cause, start, end, mappings)

    @staticmethod
    def _recent(space: AddressSpace, mapping: Mapping | None) -> Status:
        if mapping is None or not mapping.linked or space.memory is None:
            return Status.NONE
        return Status.RECENT if space.memory.is_recent(mapping) else Status.NONE

    def not_executable(self, task: Task, request: Request, result: int, start: int, end: int) -> None:
        """The target asked for [start, end) without execute, and has it so."""
        space, wanted = task.space, request.protection
        pieces = list(space.known.within(start, end))
        previous = pieces[0][2].protection if pieces else Protection.NONE
        if any(backed.protection & _EXEC for _, _, backed in pieces):
            self.event(
                task,
                request,
                result,
                start,
                end - start,
                backed=pieces[0][2],
                previous_protection=int(previous),
            )
        for first, last, backed in pieces:
            space.known.put(first, last, replace(backed, protection=wanted))
        areas = list(space.watched.areas.within(start, end))
        self._engine.machine.forget(space.watched, start, end)
        for first, last, area in areas:
            if area.backing is not None and wanted & _WRITE:
                view = replace(area, wanted=wanted)
                commands = self._engine.machine.watch(space.watched, first, last, view)
                self._engine.errands.carry_out(task, commands, self._engine.errands.registers(task))
        if wanted & _WRITE and space.has_shared and self._engine.machine.shares and not pieces:
            for mapping in mappings_in(space, start, end):
                if mapping.shared:
                    self._watching.adopt(task, space, mapping)

    def gone(self, space: AddressSpace, start: int, end: int) -> None:
        """What was in [start, end) is not there any more."""
        space.known.put(start, end, None)
        self._engine.machine.forget(space.watched, start, end)
        if space.contents:
            for page in [page for page in space.contents if start <= page < end]:
                del space.contents[page]
        space.flips.pop(start, None)
        for compat in [compat for compat, at in space.gadgets.items() if start <= at < end]:
            del space.gadgets[compat]


def signed(result: int) -> int:
    """A call's result as the C library sees it."""
    return result - (1 << 64) if result >= 1 << 63 else result


def failed(result: int) -> bool:
    """Whether it is an error."""
    return -4096 < signed(result) < 0

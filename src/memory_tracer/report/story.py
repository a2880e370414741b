"""What a report tells, gathered from a capture: pure values, ready to be printed or serialised."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..analyze.processes import identity
from ..analyze.recognize import first_bytes, recognize
from ..model import ADDRESS_END, PAGE_SIZE, EventKind, Page, Region

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture

#: How a program and its libraries become executable without anything unusual going on.
_PLAIN_KINDS = frozenset({EventKind.MMAP, EventKind.MUNMAP, EventKind.BASELINE, EventKind.EXEC_MAPPING})


#: A file may claim any times; beyond 64 bits they are not times.
_LONGEST_NS = 1 << 63


@dataclass(frozen=True, slots=True)
class Sight:
    """One region and what its latest bytes look like; None where no bytes are in the capture.

    ``caller`` is the mapping its first call came from; None where the capture does not know.
    """

    history: RegionHistory
    looks_like: str | None
    first_bytes: str | None
    caller: Region | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """The regions of a capture: those that stand out (first the most telling), and the rest."""

    striking: Sequence[RegionHistory]
    plain: Sequence[RegionHistory]
    sights: Sequence[Sight]

    @property
    def next_look(self) -> RegionHistory | None:
        """The region to look at first: the most telling one with bytes in the capture."""
        return next((history for history in (*self.striking, *self.plain) if history.pages), None)


def tell(capture: Capture, *, limit: int | None = None, everything: bool = False) -> Story:
    """Gather the story; ``limit`` bounds the regions looked into, ``everything`` includes plain ones."""
    histories = by_telling(capture.regions())
    striking = [history for history in histories if stands_out(history)]
    plain = histories[len(striking) :]
    shown = (histories if everything else striking)[:limit]
    from_where = callers(capture, shown)
    return Story(striking, plain, [_look(capture, history, from_where) for history in shown])


def by_telling(histories: Sequence[RegionHistory]) -> list[RegionHistory]:
    """Return those that stand out, the most telling first, and then the others as they were."""
    striking = sorted((history for history in histories if stands_out(history)), key=_telling)
    return [*striking, *(history for history in histories if not stands_out(history))]


def callers(capture: Capture, histories: Sequence[RegionHistory]) -> dict[int, Region | None]:
    """Return by event the mapping a call came from, asked for in the order the capture answers best."""
    calls = sorted((h.caller_event, h.caller) for h in histories if h.caller_event is not None and h.caller)
    return {sequence: capture.mapping_at(sequence, address) for sequence, address in calls}


def stands_out(history: RegionHistory) -> bool:
    """Tell code made at run time from what execve and the dynamic linker map from linked files."""
    if history.rwx or history.unlinked or history.generations > 1:
        return True
    if history.kinds[:1] == (EventKind.EXEC_MAPPING,) and history.region.file_backed:
        return False  # the program itself; if it was made just now, its bytes are there too
    if history.region.file_backed:
        return not _PLAIN_KINDS.issuperset(history.kinds)
    return set(history.kinds) != {EventKind.EXEC_MAPPING}  # the vDSO


def _telling(history: RegionHistory) -> tuple[bool, bool, int]:
    """Regions with bytes first, then those no linked file backs, then in order of time."""
    linked = history.region.file_backed and not history.unlinked
    return not history.pages, linked, history.first_ns


def _look(capture: Capture, history: RegionHistory, from_where: Mapping[int, Region | None]) -> Sight:
    caller = None if history.caller_event is None else from_where.get(history.caller_event)
    page = _first_page(capture, history) if history.pages else None
    if page is None or page.content is None:
        return Sight(history, None, None, caller)
    return Sight(history, recognize(page.content), first_bytes(page.content), caller)


def _first_page(capture: Capture, history: RegionHistory) -> Page | None:
    """Return the last content of the region's first page, or else the first page that has any."""
    region = history.region
    first = deque(_pages(capture, history, region.start + PAGE_SIZE), maxlen=1)
    return first[0] if first else next(_pages(capture, history, region.end), None)


def _pages(capture: Capture, history: RegionHistory, end: int) -> Iterator[Page]:
    wanted = identity(history.pid, history.process_start_ns)
    pages = capture.pages(
        pid=history.pid, start=history.region.start, end=min(end, ADDRESS_END), missing=False
    )
    return (page for page in pages if identity(page.pid, page.process_start_ns) == wanted)


def metadata_text(metadata: Mapping[str, Any], *keys: str) -> str | None:
    """Return the text at a path of keys in a capture's metadata; None where it is no text."""
    value: Any = metadata
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else None


def command_of(metadata: Mapping[str, Any]) -> list[str] | None:
    """Return the command that was run; None for an attach."""
    command = metadata.get("command")
    return [str(word) for word in command] if isinstance(command, list) and command else None


def targets_of(metadata: Mapping[str, Any]) -> list[int]:
    """Return the PIDs that were attached to."""
    targets = metadata.get("targets")
    return [pid for pid in targets if isinstance(pid, int)] if isinstance(targets, list) else []


def duration_ns(capture: Capture) -> int | None:
    """Return how long the recording took, in nanoseconds; None when it was not closed in order."""
    created, ended = capture.metadata.get("created_ns"), (capture.end or {}).get("ended_ns")
    if not isinstance(created, int) or not isinstance(ended, int):
        return None
    duration = ended - created
    return duration if 0 <= duration < _LONGEST_NS else None

"""What a report tells, gathered from a capture: pure values, ready to be printed or serialised."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..analyze.latest import LatestPages
from ..analyze.processes import Identity, identity
from ..analyze.recognize import ELF_HEADER, SHELLCODE, first_bytes, recognize
from ..model import EventKind, Evidence, Region
from .origins import UNKNOWN_ORIGIN, Origin, origins

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture

#: How a program and its libraries become executable without anything unusual going on.
_PLAIN_KINDS = frozenset({EventKind.MMAP, EventKind.MUNMAP, EventKind.BASELINE, EventKind.EXEC_MAPPING})


#: What stands out only where no runtime made the code.
_EXECUTED = "was executed"

#: A file may claim any times; beyond 64 bits they are not times.
_LONGEST_NS = 1 << 63


@dataclass(frozen=True, slots=True)
class Sight:
    """One region and what its latest bytes look like; None where no bytes are in the capture.

    ``caller`` is the mapping its first call came from; None where the capture does not know. ``findings``
    say in a few words what stands out.
    """

    history: RegionHistory
    looks_like: str | None
    first_bytes: str | None
    caller: Region | None = None
    origin: Origin = UNKNOWN_ORIGIN
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """The regions that one runtime made in one process; ``path`` is the file it was recognised by."""

    runtime: str
    path: str | None
    histories: Sequence[RegionHistory]


@dataclass(frozen=True, slots=True)
class Story:
    """The regions of a capture: those that stand out (first the most telling), of runtimes, and the rest.

    ``sights`` are of the first of them that were asked for.
    """

    striking: Sequence[RegionHistory]
    generated: Sequence[Generated]
    plain: Sequence[RegionHistory]
    sights: Sequence[Sight]

    @property
    def histories(self) -> Sequence[RegionHistory]:
        """All regions, the most telling first."""
        of_runtimes = (history for group in self.generated for history in group.histories)
        return [*self.striking, *of_runtimes, *self.plain]

    @property
    def next_look(self) -> RegionHistory | None:
        """The region to look at first: the most telling one with bytes in the capture."""
        return next((history for history in self.histories if history.pages), None)


def tell(capture: Capture, *, limit: int | None = None, everything: bool = False) -> Story:
    """Gather the story; ``everything`` includes plain mappings in its sights.

    With ``limit`` there are sights of that many regions that no runtime made.
    """
    histories = by_telling(capture.regions())
    count = sum(map(stands_out, histories))
    unusual, plain = histories[:count], histories[count:]
    looks = _Looks(capture, histories if everything else unusual)
    found = zip(unusual, origins(capture, unusual, plain), strict=True)
    sights = [looks.at(history, origin) for history, origin in found]
    striking = sorted((sight for sight in sights if not _as_runtimes_do(sight)), key=_finding)
    made = [sight for sight in sights if _as_runtimes_do(sight)]
    shown = striking[:limit] if limit is not None else [*striking, *made]
    if everything:
        shown += [looks.at(history, UNKNOWN_ORIGIN) for history in plain]
    return Story([sight.history for sight in striking], _grouped(made), plain, shown)


def _as_runtimes_do(sight: Sight) -> bool:
    """Tell whether a runtime made the region, and nothing in it is other than runtimes make it."""
    return sight.origin.runtime is not None and not set(sight.findings) - {_EXECUTED}


def _finding(sight: Sight) -> tuple[bool, bool, int]:
    linked = sight.history.region.file_backed and not sight.history.unlinked
    return not sight.history.pages, linked, -len(sight.findings)


def _grouped(sights: Sequence[Sight]) -> list[Generated]:
    groups: dict[tuple[Identity, str, str | None], list[RegionHistory]] = {}
    for sight in sights:
        history, origin = sight.history, sight.origin
        path = origin.asked_by.path if origin.asked_by else None
        who = identity(history.pid, history.process_start_ns)
        groups.setdefault((who, origin.runtime or "", path), []).append(history)
    return [Generated(runtime, path, group) for (_, runtime, path), group in groups.items()]


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


class _Looks:
    """Looks at regions: what they hold, who called for them, what is to be said of them."""

    def __init__(self, capture: Capture, histories: Sequence[RegionHistory]) -> None:
        self._callers = callers(capture, histories)
        self._latest = LatestPages(capture)

    def at(self, history: RegionHistory, origin: Origin) -> Sight:
        caller = None if history.caller_event is None else self._callers.get(history.caller_event)
        content = self._latest.first(history)
        if content is None:
            return Sight(history, None, None, caller, origin, tuple(_findings(history, None)))
        words = recognize(content)
        return Sight(history, words, first_bytes(content), caller, origin, tuple(_findings(history, words)))


def _findings(history: RegionHistory, looks_like: str | None) -> Iterator[str]:
    """Yield what stands out of a region, as far as it is not of a linked file."""
    if history.region.file_backed and not history.unlinked:
        return
    if history.unlinked and history.kinds[:1] == (EventKind.EXEC_MAPPING,):
        yield "program without a file"
    if looks_like == ELF_HEADER:
        yield "ELF image"
    if looks_like and looks_like.startswith(SHELLCODE):
        yield SHELLCODE
    if history.evidence & Evidence.CALLER:
        yield "makes system calls"
    elif history.evidence:
        yield _EXECUTED


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


def subject_of(metadata: Mapping[str, Any]) -> str:
    """Return what a capture is about: the command, or the processes that were attached to."""
    command = command_of(metadata)
    if command:
        return shlex.join(command)
    return "attached to " + (", ".join(map(str, targets_of(metadata))) or _scope_of(metadata))


def _scope_of(metadata: Mapping[str, Any]) -> str:
    """Return which processes a recording without PIDs was about; it may have been changed since."""
    filters = metadata.get("filters")
    scope = filters.get("scope") if isinstance(filters, Mapping) else None
    if not isinstance(scope, Mapping):
        return "nothing known"
    words = [_criteria(scope.get("include"), "") or "all processes", _criteria(scope.get("exclude"), "not ")]
    return "; ".join(filter(None, words))


def _criteria(criteria: object, before: str) -> str:
    if not isinstance(criteria, Mapping):
        return ""
    return "; ".join(
        f"{before}{name} {', '.join(map(str, values))}"
        for name, values in criteria.items()
        if isinstance(values, list)
    )


def duration_ns(capture: Capture) -> int | None:
    """Return how long the recording took, in nanoseconds; None when it was not closed in order."""
    created, ended = capture.metadata.get("created_ns"), (capture.end or {}).get("ended_ns")
    if not isinstance(created, int) or not isinstance(ended, int):
        return None
    duration = ended - created
    return duration if 0 <= duration < _LONGEST_NS else None

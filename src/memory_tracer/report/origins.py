"""Who asked for the memory that code was made in, and whether that is a known runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analyze.processes import Identity, identity
from ..analyze.runtimes import asked_by, is_jitdump, name_of
from ..model import OBSERVATION_KINDS, Region

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture

#: What a JIT compiler is called that announces itself to perf(1) and has no name we know.
ANNOUNCED = "JIT compiler"


@dataclass(frozen=True, slots=True)
class Origin:
    """``asked_by`` is the mapping whose code made a region executable, ``runtime`` the name of its owner.

    Both are None where they are not known.
    """

    asked_by: Region | None = None
    runtime: str | None = None


UNKNOWN_ORIGIN = Origin()


def origins(
    capture: Capture, histories: Sequence[RegionHistory], others: Sequence[RegionHistory] = ()
) -> list[Origin]:
    """Return the origin of each of ``histories``; ``others`` may announce jitdump files."""
    dumps = [history for history in others if is_jitdump(history.region)]
    asking = dict(_asking(capture, [*histories, *dumps]))
    announced = {
        (_process(history), _file(mapping))
        for history in dumps
        if (mapping := asking.get(history.caller_event))
    }
    found = [_origin(history, asking.get(history.caller_event), announced) for history in histories]
    owned: dict[Identity, list[tuple[Region, Origin]]] = {}
    for history, origin in zip(histories, found, strict=True):
        if origin.runtime:
            owned.setdefault(_process(history), []).append((history.region, origin))
    return [
        origin if _says_who_asked(history, origin) else _around(history, owned.get(_process(history), ()))
        for history, origin in zip(histories, found, strict=True)
    ]


def _asking(
    capture: Capture, histories: Sequence[RegionHistory]
) -> Iterator[tuple[int | None, Region | None]]:
    """Yield for each first call the mapping that asked, in the order the capture answers best."""
    for sequence in sorted({h.caller_event for h in histories if h.caller_event is not None}):
        stack = capture.stack_at(sequence)
        yield sequence, asked_by(capture.mapping_at(sequence, address) for address in stack)


def _origin(
    history: RegionHistory,
    mapping: Region | None,
    announced: set[tuple[Identity, tuple[int | None, int | None]]],
) -> Origin:
    if mapping is None:
        return UNKNOWN_ORIGIN
    runtime = name_of(mapping.path)
    if runtime is None and mapping.file_backed and (_process(history), _file(mapping)) in announced:
        runtime = ANNOUNCED
    return Origin(mapping, runtime)


def _says_who_asked(history: RegionHistory, origin: Origin) -> bool:
    """Tell whether the first event was a call for this memory: a look comes with any other call."""
    return origin.asked_by is not None and not OBSERVATION_KINDS.issuperset(history.kinds[:1])


def _around(history: RegionHistory, owned: Sequence[tuple[Region, Origin]]) -> Origin:
    """Return the origin of the region that this one, which was only looked at, is a part of."""
    start, end = history.region.start, history.region.end
    return next(
        (origin for region, origin in owned if region.start <= start and end <= region.end), UNKNOWN_ORIGIN
    )


def _process(history: RegionHistory) -> Identity:
    return identity(history.pid, history.process_start_ns)


def _file(mapping: Region) -> tuple[int | None, int | None]:
    return mapping.device, mapping.inode

"""What the page shows, as JSON: the capture as a whole, its processes, and its regions.

Everything that was captured is made harmless here (``terminal.clean``): what is left cannot mislead a
reader. That it cannot become markup or a script either is the matter of ``page.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..analyze.places import place
from ..analyze.processes import command_text, identity, process_tree
from ..analyze.timeline import start_ns
from ..export.objects import Object
from ..model import Evidence, Region
from ..report.origins import Origin, origins
from ..report.story import callers, duration_ns, metadata_text, stands_out, subject_of
from ..report.text import describe_loss, ending
from ..terminal import clean, format_count, format_duration, format_size
from .bands import Band, bands
from .strips import Strip, strips

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture
    from ..model import Process

#: Characters of a name, path or command line.
_TEXT_LIMIT = 200
#: The browser's numbers are exact up to here (2^53); what a file says may be any number.
_LATEST_NS = 1 << 53


def heading_object(capture: Capture) -> Object:
    """Return what is said of the capture as a whole."""
    metadata = capture.metadata
    duration = duration_ns(capture)
    means = (("engine",), ("hook",), ("host", "release"), ("host", "machine"))
    return {
        "title": _text(subject_of(metadata)),
        "capture": _text(capture.path.name),
        "facts": [
            f"{capture.wall_time(start_ns(capture)):%Y-%m-%d %H:%M:%S} UTC",
            "not closed in order" if duration is None else format_duration(duration),
            *(_text(text) for keys in means if (text := metadata_text(metadata, *keys))),
            format_count(capture.event_count, "event"),
            f"{format_count(capture.page_count, 'page')} ({capture.unique_pages:,} different)",
            format_size(capture.stored_bytes),
        ],
        "complete": capture.complete,
        "losses": [describe_loss(loss) for loss in capture.losses],
    }


def process_objects(capture: Capture) -> Iterator[tuple[tuple[int, int], Object]]:
    """Yield the processes as a tree, parents first, each after what identifies it."""
    for depth, process in process_tree(capture.processes):
        yield identity(process.pid, process.start_time_ns), _process_object(depth, process, capture)


def _process_object(depth: int, process: Process, capture: Capture) -> Object:
    origin = start_ns(capture)
    return {
        "depth": depth,
        "pid": process.pid,
        "comm": _text(process.comm),
        "command": _text(command_text(process)),
        "first": _time(process.first_seen_ns - origin),
        "ended": None if process.ended_ns is None else _time(process.ended_ns - origin),
        "ending": ending(process, capture),
    }


def region_objects(
    capture: Capture, histories: Sequence[RegionHistory], processes: Mapping[tuple[int, int], int]
) -> Iterator[Object]:
    """Yield the regions; ``processes`` are the places of processes in the page's list."""
    from_where = callers(capture, histories)
    makers = origins(capture, histories, histories)
    origin = start_ns(capture)
    parts = zip(histories, makers, bands(capture, histories), strips(capture, histories), strict=True)
    for history, maker, band, strip in parts:
        caller = None if history.caller_event is None else from_where.get(history.caller_event)
        process = processes.get(identity(history.pid, history.process_start_ns))
        region = _region_object(history, process, caller) | _maker_object(maker)
        yield region | _drawn(band, origin) | _strip_object(strip)


def _region_object(history: RegionHistory, process: int | None, caller: Region | None) -> Object:
    region = history.region
    path = _text(caller.path or "") if caller else None
    return {
        "process": process,
        "pid": history.pid,
        "comm": _text(history.comm),
        "start": f"{region.start:x}",
        "end": f"{region.end:x}",
        "size": format_size(region.length),
        "backing": _backing(region),
        "plain": not stands_out(history),
        "rwx": history.rwx,
        "unlinked": history.unlinked,
        "shared": history.shared,
        "protection": str(history.protection),
        "events": [str(kind) for kind in history.kinds],
        "flips": history.flips,
        "pages": history.pages,
        "missing": history.missing,
        "caller": None if history.caller is None else place(history.caller, caller, path),
        "executed": [str(flag.name).lower() for flag in Evidence(history.evidence)],
    }


def _maker_object(maker: Origin) -> Object:
    return {
        "runtime": maker.runtime,
        "asked_by": None if maker.asked_by is None else _text(maker.asked_by.path or "") or None,
    }


def _backing(region: Region) -> str:
    if region.path is not None:
        return _text(region.path)
    return f"inode {region.inode}" if region.file_backed else "anonymous"


def _drawn(band: Band, origin: int) -> Object:
    return {
        "steps": [[_time(time - origin), protection] for time, protection in band.steps],
        "more_steps": band.more_steps,
        "marks": [[_time(time - origin), number] for time, number in band.marks],
        "generations": band.generations,
    }


def _strip_object(strip: Strip) -> Object:
    return {
        "strip": [[page, round(bits, 2)] for page, bits in strip.cells],
        "strip_pages": strip.pages,
        "looks_like": strip.looks_like,
        "first_bytes": strip.first_bytes,
    }


def _time(nanoseconds: int) -> int:
    return max(-_LATEST_NS, min(nanoseconds, _LATEST_NS))


def _text(text: str) -> str:
    return clean(text, _TEXT_LIMIT)

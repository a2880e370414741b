"""The story of a capture as one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..export.objects import Object, loss_object, process_object, region_object
from ..show.symbols import functions_in
from .story import Generated, Sight, Story, command_of, duration_ns, metadata_text, targets_of

if TYPE_CHECKING:
    from ..capture.reader import Capture
    from ..show.symbols import SymbolFiles


def report_object(capture: Capture, story: Story, names: SymbolFiles, *, following: str) -> Object:
    """Return the object of the report (``"type": "report"``); ``following`` is the next command.

    ``names`` are those of generated functions.
    """
    return {
        "type": "report",
        "command": command_of(capture.metadata),
        "targets": targets_of(capture.metadata),
        "engine": metadata_text(capture.metadata, "engine"),
        "hook": metadata_text(capture.metadata, "hook"),
        "duration_ns": duration_ns(capture),
        "events": capture.event_count,
        "pages": capture.page_count,
        "unique_pages": capture.unique_pages,
        "stored_bytes": capture.stored_bytes,
        "complete": capture.complete,
        "losses": [loss_object(loss) for loss in capture.losses],
        "processes": [process_object(process) for process in capture.processes],
        "plain_mappings": len(story.plain),
        "generated": [_generated_object(capture, group, names) for group in story.generated],
        "regions": [_sight_object(capture, sight, names) for sight in story.sights],
        "next": following,
    }


def _sight_object(capture: Capture, sight: Sight, names: SymbolFiles) -> Object:
    asked_by = sight.origin.asked_by
    return region_object(sight.history) | {
        "looks_like": sight.looks_like,
        "first_bytes": sight.first_bytes,
        "findings": list(sight.findings),
        "runtime": sight.origin.runtime,
        "asked_by": None if asked_by is None else asked_by.path,
        "functions": [function.name for function in functions_in(capture, names, [sight.history])],
    }


def _generated_object(capture: Capture, group: Generated, names: SymbolFiles) -> Object:
    first = group.histories[0]
    return {
        "runtime": group.runtime,
        "path": group.path,
        "pid": first.pid,
        "process_start_ns": first.process_start_ns,
        "comm": first.comm,
        "regions": len(group.histories),
        "pages": sum(history.pages for history in group.histories),
        "content_bytes": sum(history.content_bytes for history in group.histories),
        "rwx": any(history.rwx for history in group.histories),
        "functions": [function.name for function in functions_in(capture, names, group.histories)],
    }

"""The story of a capture as one JSON object."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..export.objects import Object, loss_object, process_object, region_object
from .story import Sight, Story, command_of, duration_ns, metadata_text, targets_of

if TYPE_CHECKING:
    from ..capture.reader import Capture


def report_object(capture: Capture, story: Story, *, following: str) -> Object:
    """Return the object of the report (``"type": "report"``); ``following`` is the next command."""
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
        "regions": [_sight_object(sight) for sight in story.sights],
        "next": following,
    }


def _sight_object(sight: Sight) -> Object:
    looks = {"looks_like": sight.looks_like, "first_bytes": sight.first_bytes}
    return region_object(sight.history) | looks

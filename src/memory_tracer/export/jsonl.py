"""Everything in a capture as JSON lines, in the order it was recorded.

The first line is the capture (``"type": "capture"``), then its processes, then events, pages and
runs of missing pages by ``sequence``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from ..analyze.timeline import in_order
from ..model import Event, Page
from .objects import Object, event_object, line, loss_object, missing_object, page_object, process_object

if TYPE_CHECKING:
    from ..capture.filters import FilterOptions
    from ..capture.reader import Capture


def write_jsonl(capture: Capture, filters: FilterOptions, stream: IO[str], *, content: bool) -> int:
    """Write the lines to ``stream`` and return how many; with ``content`` pages carry theirs in base64."""
    count = 0
    for value in _objects(capture, filters, content):
        stream.write(line(value))
        count += 1
    return count


def _objects(capture: Capture, filters: FilterOptions, content: bool) -> Iterator[Object]:
    yield {
        "type": "capture",
        "metadata": dict(capture.metadata),
        "counters": {name: dict(values) for name, values in capture.counters.items()},
        "end": None if capture.end is None else dict(capture.end),
        "complete": capture.complete,
        "losses": [loss_object(loss) for loss in capture.losses],
    }
    yield from map(process_object, capture.processes)
    for record in in_order(capture.events(**filters), capture.page_rows(**filters)):
        if isinstance(record, Event):
            yield event_object(record)
        elif isinstance(record, Page):
            yield _page(record, content)
        else:
            yield missing_object(record)


def _page(page: Page, content: bool) -> Object:
    value = page_object(page)
    if content:
        value["content"] = None if page.content is None else base64.b64encode(page.content).decode("ascii")
    return value

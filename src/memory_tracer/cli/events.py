"""``memory-tracer events``."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..analyze.processes import describe_wait_status
from ..analyze.timeline import start_ns
from ..export.objects import event_object
from ..model import REGION_KINDS, Event, EventKind
from ..terminal import Column, clean, format_seconds, format_size
from .arguments import Selection, capture_argument, filter_options, json_option, limit_option
from .listing import ADDRESS, PID, TIME, backing, change, open_capture, print_objects, print_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLUMNS = (
    TIME,
    PID,
    Column("TID", right=True),
    Column("COMM"),
    Column("EVENT", style="bold"),
    ADDRESS,
    Column("SIZE", right=True),
    Column("PROT"),
    Column("RESULT"),
    Column("BACKING"),
)


@click.command()
@capture_argument
@filter_options
@limit_option
@json_option
def command(file: Path, selection: Selection, limit: int | None, as_json: bool) -> None:
    """List the calls, mappings and process steps in the capture FILE, in order.

    TIME is in seconds from the start of the capture.

    \b
    Example: who turned memory executable with mprotect in the first second?
      memory-tracer events sample.mtrace --event mprotect --protection x --until 1
    """
    with open_capture(file) as capture:
        events = capture.events(**selection.filters(capture))
        if as_json:
            print_objects(capture, events, event_object, limit=limit)
            return
        origin = start_ns(capture)
        print_rows(capture, events, _COLUMNS, lambda event: _row(event, origin), noun="events", limit=limit)


def _row(event: Event, origin: int) -> Sequence[str]:
    region = event.region
    on_region = event.kind in REGION_KINDS
    return (
        format_seconds(event.timestamp_ns - origin),
        str(event.pid),
        str(event.tid),
        clean(event.comm),
        str(event.kind),
        hex(region.start) if region else "-",
        format_size(region.length) if region else "-",
        change(event.previous_protection, event.protection) if on_region else "-",
        _result(event),
        backing(region) if region else "-",
    )


def _result(event: Event) -> str:
    if event.result is None:
        return "-"
    if event.kind is EventKind.EXIT:
        return describe_wait_status(event.result)
    if not event.succeeded:
        return errno.errorcode.get(-event.result, f"error {-event.result}")
    return hex(event.result & (2**64 - 1)) if event.kind is EventKind.MMAP else str(event.result)

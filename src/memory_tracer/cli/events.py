"""``memory-tracer events``."""

from __future__ import annotations

import errno
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..analyze.places import place
from ..analyze.processes import describe_wait_status
from ..analyze.timeline import start_ns
from ..export.objects import Object, event_object, frame_object
from ..model import REGION_KINDS, Event, EventKind
from ..terminal import Column, clean, format_seconds, format_size
from .arguments import Selection, capture_argument, filter_options, json_option, limit_option
from .listing import ADDRESS, PID, TIME, backing, change, open_capture, print_objects, print_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..capture.reader import Capture

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
@click.option("--stack", "stacks", is_flag=True, help="With the caller's stack, as file and offset.")
@limit_option
@json_option
def command(file: Path, selection: Selection, stacks: bool, limit: int | None, as_json: bool) -> None:
    """List the calls, mappings and process steps in the capture FILE, in order.

    TIME is in seconds from the start of the capture. With --stack each event has one line for each
    frame of its caller's stack, innermost first; an address is named by what was mapped there, if
    that is in the capture.

    \b
    Example: who turned memory executable with mprotect in the first second?
      memory-tracer events sample.mtrace --event mprotect --protection x --until 1
    """
    with open_capture(file) as capture:
        events = capture.events(**selection.filters(capture))
        if as_json:
            to_object = (lambda event: _with_frames(capture, event)) if stacks else event_object
            print_objects(capture, events, to_object, limit=limit)
            return
        origin = start_ns(capture)
        if stacks:
            columns = (*_COLUMNS, Column("STACK"))
            rows = (row for event in islice(events, limit) for row in _stack_rows(capture, event, origin))
            print_rows(capture, rows, columns, lambda row: row, noun="events", limit=None)
            return
        print_rows(capture, events, _COLUMNS, lambda event: _row(event, origin), noun="events", limit=limit)


def _with_frames(capture: Capture, event: Event) -> Object:
    frames = [frame_object(at, capture.mapping_at(event.sequence, at)) for at in event.stack]
    return event_object(event) | {"frames": frames}


def _stack_rows(capture: Capture, event: Event, origin: int) -> Iterator[Sequence[str]]:
    """Yield the event's row with the first frame, and one more for each other frame."""
    first, *others = event.stack or (None,)
    yield (*_row(event, origin), _frame(capture, event, first))
    for address in others:
        yield (*[""] * len(_COLUMNS), _frame(capture, event, address))


def _frame(capture: Capture, event: Event, address: int | None) -> str:
    if address is None:
        return "-"
    mapping = capture.mapping_at(event.sequence, address)
    if mapping is None:
        return hex(address)
    return f"{address:#x} {place(address, mapping, clean(mapping.path or ''))}"


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

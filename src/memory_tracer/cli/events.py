"""``memory-tracer events``."""

from __future__ import annotations

import errno
from itertools import islice, zip_longest
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
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..capture.reader import Capture

#: How many registers fit beside an event.
_PER_LINE = 4

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
@click.option("--registers", is_flag=True, help="With the thread's registers (ptrace engine).")
@limit_option
@json_option
def command(
    file: Path, selection: Selection, stacks: bool, registers: bool, limit: int | None, as_json: bool
) -> None:
    """List the calls, mappings and process steps in the capture FILE, in order.

    TIME is in seconds from the start of the capture. With --stack each event has one line for each
    frame of its caller's stack, innermost first; an address is named by what was mapped there, if
    that is in the capture. With --registers there are lines for the address that faulted and the
    registers when it did, for each page that the ptrace engine captured right before it was executed.
    With --json both are there without being asked for.

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
        more: dict[str, Callable[[Event], list[str]]] = {}
        if stacks:
            more["STACK"] = lambda event: _frames(capture, event)
        if registers:
            more["REGISTERS"] = _registers
        if more:
            columns = (*_COLUMNS, *map(Column, more))
            rows = (row for event in islice(events, limit) for row in _rows(event, origin, more.values()))
            print_rows(capture, rows, columns, lambda row: row, noun="events", limit=None)
            return
        print_rows(capture, events, _COLUMNS, lambda event: _row(event, origin), noun="events", limit=limit)


def _with_frames(capture: Capture, event: Event) -> Object:
    frames = [frame_object(at, capture.mapping_at(event.sequence, at)) for at in event.stack]
    return event_object(event) | {"frames": frames}


def _rows(event: Event, origin: int, more: Iterable[Callable[[Event], list[str]]]) -> Iterator[Sequence[str]]:
    """Yield the event's row with the first line of each further column, and rows for their other lines."""
    head = _row(event, origin)
    for lines in zip_longest(*(lines_of(event) or ["-"] for lines_of in more), fillvalue=""):
        yield (*head, *lines)
        head = [""] * len(_COLUMNS)


def _frames(capture: Capture, event: Event) -> list[str]:
    return [_frame(capture, event, address) for address in event.stack]


def _registers(event: Event) -> list[str]:
    """Return the address that faulted, and some registers a line."""
    if event.registers is None:
        return []
    shown = [f"{name}={value:#x}" for name, value in event.registers.items()]
    lines = [" ".join(shown[at : at + _PER_LINE]) for at in range(0, len(shown), _PER_LINE)]
    return [f"fault={event.fault_address:#x}", *lines]


def _frame(capture: Capture, event: Event, address: int) -> str:
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

"""A view as text: a heading, the runs of bytes, and one line for each run that is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from ..analyze.places import place
from ..analyze.runs import Run
from ..analyze.timeline import start_ns
from ..model import Missing
from ..terminal import clean, console, format_count, format_seconds, format_size

if TYPE_CHECKING:
    from ..capture.reader import Capture
    from .view import View

#: Turns the bytes at an address into lines.
Lines = Callable[[bytes, int], Iterator[str]]


def print_view(capture: Capture, view: View, lines: Lines) -> None:
    """Print the view to standard output."""
    screen = console(sys.stdout)
    for heading in _heading(capture, view):
        screen.print(heading, style="bold")
    for run in view.runs():
        if run.content is None:
            lost = run.missing not in (None, Missing.ABSENT)
            screen.print(describe_missing(run), style="red" if lost else "dim")
            continue
        for text in lines(run.content, run.address):
            sys.stdout.write(text + "\n")


def describe_missing(run: Run) -> str:
    """Return one line for bytes that are not there: where, how many and why."""
    where = f"{run.address:#014x}  {format_size(run.size)}"
    if run.missing is Missing.ABSENT:
        return f"{where} of zeros: never touched, or discarded"
    if run.missing is None:
        return f"{where} without record: never touched, or as in the file behind it"
    return f"{where} missing because {Missing(run.missing).sentence}"


def _heading(capture: Capture, view: View) -> Iterator[str]:
    history, region, image = view.history, view.history.region, view.image
    backing = clean(region.path) if region.path is not None else "anonymous"
    yield (
        f"# {region.start:#x}-{region.end:#x} {image.protection} {format_size(region.length)}, {backing}, "
        f"pid {history.pid} ({clean(history.comm)})"
    )
    if history.caller is not None and history.caller_event is not None:
        mapping = capture.mapping_at(history.caller_event, history.caller)
        path = clean(mapping.path or "") if mapping else None
        yield f"# first made executable by {place(history.caller, mapping, path)}"
    yield f"# {moment(capture, view)}"


def moment(capture: Capture, view: View) -> str:
    """Return which generation the view shows, since when, and how much of it is known."""
    image = view.image
    return (
        f"generation {image.generation}, after {image.event} at "
        f"{format_seconds(image.timestamp_ns - start_ns(capture))} s, "
        f"{format_count(sum(held.content is not None for held in image.pages.values()), 'page')} known"
    )

"""What a verb says on standard error beside its output."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from ..terminal import clean, format_count

if TYPE_CHECKING:
    from ..capture.reader import Capture


def command_line(verb: str, capture: Capture, *arguments: str) -> str:
    """Return a command to type next, quoted for a shell; not clean yet."""
    return " ".join(["memory-tracer", verb, shlex.quote(str(capture.path)), *arguments])


def warn_incomplete(capture: Capture) -> None:
    """Say that the capture is incomplete, and how to see in what, when it is."""
    if not capture.complete:
        reasons = format_count(len(capture.losses), "reason")
        note(f"this capture is incomplete for {reasons}: {command_line('verify', capture)}")


def note(sentence: str) -> None:
    """Print ``sentence`` on standard error, made clean: it may hold names of files and processes."""
    click.echo(f"memory-tracer: {clean(sentence)}", err=True)

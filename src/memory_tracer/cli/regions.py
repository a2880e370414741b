"""``memory-tracer regions``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..analyze.timeline import start_ns
from ..export.objects import region_object
from ..terminal import Column, clean, format_seconds, format_size
from .arguments import Selection, capture_argument, filter_options, json_option, limit_option
from .listing import (
    ADDRESS,
    EXECUTED,
    PID,
    PROTECTION,
    TIME,
    backing,
    evidence_words,
    open_capture,
    print_objects,
    print_rows,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..analyze.regions import RegionHistory

_COLUMNS = (
    TIME,
    PID,
    Column("COMM"),
    ADDRESS,
    Column("SIZE", right=True),
    PROTECTION,
    Column("FLIPS", right=True),
    Column("GENERATIONS", right=True),
    Column("PAGES", right=True),
    Column("MISSING", right=True, style=lambda cell: "" if cell == "0" else "red"),
    EXECUTED,
    Column("EVENTS"),
    Column("HISTORY", style=lambda cell: "red" if cell.endswith("gaps") else ""),
    Column("BACKING"),
)


@click.command()
@capture_argument
@filter_options
@limit_option
@json_option
def command(file: Path, selection: Selection, limit: int | None, as_json: bool) -> None:
    """List the memory in the capture FILE that was or became executable, one line per region.

    TIME is when it first happened, in seconds from the start of the capture. FLIPS counts the
    events, GENERATIONS the distinct contents of the region's most rewritten page, PAGES those with
    bytes in the capture, MISSING those without. EXECUTED says how it is known that some of these
    were executed.

    HISTORY says what brought the bytes: calls of the process, what was found executable already,
    looks, passes and samples that found something new, and pages read late. It has gaps where the
    memory could be written to while it was executable: then bytes can be missing between two of them.

    \b
    Example: generated code only, leaving out programs and libraries:
      memory-tracer regions sample.mtrace --exclude-file-backed
    """
    with open_capture(file) as capture:
        histories = capture.regions(**selection.filters(capture))
        if as_json:
            print_objects(capture, histories, region_object, limit=limit)
            return
        origin = start_ns(capture)
        print_rows(capture, histories, _COLUMNS, lambda h: _row(h, origin), noun="regions", limit=limit)


def _row(history: RegionHistory, origin: int) -> Sequence[str]:
    return (
        format_seconds(history.first_ns - origin),
        str(history.pid),
        clean(history.comm),
        hex(history.region.start),
        format_size(history.region.length),
        "rwx" if history.rwx else str(history.protection),
        str(history.flips),
        str(history.generations),
        str(history.pages),
        str(history.missing),
        evidence_words(history.evidence),
        ",".join(map(str, history.kinds)),
        _history(history),
        backing(history.region),
    )


def _history(history: RegionHistory) -> str:
    counts = dataclasses.asdict(history.triggers).items()
    words = [f"{name} {count:,}" for name, count in counts if count]
    return ", ".join([*words, "gaps"] if history.open_to_writes else words) or "-"

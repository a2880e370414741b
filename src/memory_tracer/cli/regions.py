"""``memory-tracer regions``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..analyze.timeline import start_ns
from ..export.objects import region_object
from ..terminal import Column, clean, format_seconds, format_size
from .arguments import Selection, capture_argument, filter_options, json_option, limit_option
from .listing import ADDRESS, PID, PROTECTION, TIME, backing, open_capture, print_objects, print_rows

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
    Column("EVENTS"),
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
    bytes in the capture, MISSING those without.

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
        ",".join(map(str, history.kinds)),
        backing(history.region),
    )

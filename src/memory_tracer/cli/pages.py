"""``memory-tracer pages``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..analyze.timeline import start_ns
from ..export.objects import page_object
from ..model import Page
from ..terminal import Column, clean, format_seconds
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

_COLUMNS = (
    TIME,
    PID,
    Column("COMM"),
    Column("EVENT", style="bold"),
    ADDRESS,
    PROTECTION,
    Column("GENERATION", right=True),
    EXECUTED,
    Column("BACKING"),
    Column("SHA-256", style=lambda cell: "red" if cell.startswith("missing") else ""),
)


@click.command()
@capture_argument
@filter_options
@click.option("--no-missing", is_flag=True, help="Leave out pages whose bytes are not in the capture.")
@click.option("--executed", is_flag=True, help="Only pages whose bytes are known to have been executed.")
@limit_option
@json_option
def command(
    file: Path,
    selection: Selection,
    no_missing: bool,
    executed: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """List every page in the capture FILE, captured or missing, in order.

    TIME is in seconds from the start of the capture; GENERATION counts the distinct contents seen
    at this address of this process. EXECUTED says how it is known that these bytes were executed, and
    not only executable: the sampler found them executing, a recorded call came from them (caller), or
    a caller's stack returns to them.

    \b
    Example: every content one page ever had:
      memory-tracer pages sample.mtrace --address 0x7f00aa550000
    """
    with open_capture(file) as capture:
        pages = capture.pages(missing=not no_missing, executed=executed, **selection.filters(capture))
        if as_json:
            print_objects(capture, pages, page_object, limit=limit)
            return
        origin = start_ns(capture)
        print_rows(capture, pages, _COLUMNS, lambda page: _row(page, origin), noun="pages", limit=limit)


def _row(page: Page, origin: int) -> Sequence[str]:
    return (
        format_seconds(page.timestamp_ns - origin),
        str(page.pid),
        clean(page.comm),
        f"{page.event}{' (late)' if page.late else ' (fetched)' if page.fetched else ''}",
        hex(page.address),
        str(page.protection),
        str(page.generation),
        evidence_words(page.evidence),
        backing(page.region),
        page.sha256 or f"missing: {page.missing}",
    )

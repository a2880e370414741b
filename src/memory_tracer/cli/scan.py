"""``memory-tracer scan``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..analyze.timeline import start_ns
from ..errors import UsageError
from ..terminal import Column, clean, format_count, format_seconds, progress
from ..version import VERSION
from .arguments import Selection, capture_argument, filter_options, json_option, limit_option
from .listing import ADDRESS, PID, TIME, backing, open_capture, print_objects, print_rows
from .notice import note, warn_incomplete

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..scan.search import Match, Search

_COLUMNS = (
    TIME,
    PID,
    Column("COMM"),
    ADDRESS,
    Column("SIZE", right=True),
    Column("RULE", style="bold red"),
    Column("PATTERN"),
    Column("BYTES"),
    Column("GENERATION", right=True),
    Column("PLACES", right=True),
    Column("BACKING"),
)
#: Bytes of a match in the table.
_BYTES = 8


@click.command()
@capture_argument
@click.option(
    "--rules",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="A file of rules, or a directory of *.yar; otherwise the starter rules. Repeatable.",
)
@filter_options
@limit_option
@json_option
@click.option("--sarif", "as_sarif", is_flag=True, help="One SARIF 2.1.0 document.")
def command(
    file: Path,
    rules: tuple[Path, ...],
    selection: Selection,
    limit: int | None,
    as_json: bool,
    as_sarif: bool,
) -> int:
    """Search every generation of all code in the capture FILE with YARA rules.

    Each different page is scanned once, together with the new pages beside it; matches may cross into
    pages that were there at the same time. PLACES counts the pages that had this content. A rule's
    condition sees the pages that one event brought in one piece (4 MiB at most).

    The starter rules find ELF images, common shellcode and packer stubs: a match is worth a look, and
    proves nothing. The exit status is 1 when something could not be scanned.

    \b
    Example: what did the sample unpack?
      memory-tracer scan sample.mtrace --exclude-file-backed --rules ./rules
    """
    from ..scan.objects import match_object
    from ..scan.rulebook import BUNDLED, compile_rules
    from ..scan.sarif import write_sarif
    from ..scan.search import Search, rules_of

    if as_json and as_sarif:
        raise UsageError("--json and --sarif are two forms of the same; give one of them")
    compiled = compile_rules(rules or (BUNDLED,))
    with open_capture(file) as capture:
        search = Search(capture, compiled)
        stretches = progress(search.stretches(selection.filters(capture)), "pieces scanned:")
        matches: Iterator[Match] = islice(chain.from_iterable(stretches), limit)
        if as_json:
            print_objects(capture, matches, match_object, limit=None)
        elif as_sarif:
            write_sarif(sys.stdout, file, VERSION, rules_of(compiled), matches)
            warn_incomplete(capture)
        else:
            origin = start_ns(capture)
            print_rows(
                capture, matches, _COLUMNS, lambda match: _row(match, origin), noun="bytes", limit=None
            )
        return _say_what_was_not_scanned(search)


def _row(match: Match, origin: int) -> Sequence[str]:
    dots = "…" if match.length > _BYTES else ""
    return (
        format_seconds(match.timestamp_ns - origin),
        str(match.page.pid),
        clean(match.page.comm),
        hex(match.address),
        str(match.length),
        match.rule.name,
        match.pattern or "-",
        match.excerpt[:_BYTES].hex(" ") + dots,
        str(match.page.generation),
        str(match.places),
        backing(match.page.region),
    )


def _say_what_was_not_scanned(search: Search) -> int:
    if search.unfinished:
        note(f"{format_count(search.unfinished, 'piece')} took too long and were not scanned to the end")
    if search.damaged:
        note(f"{format_count(search.damaged, 'damaged page')} were taken as zeros")
    if search.limited:
        note(f"{format_count(search.limited, 'pattern')} matched too often; not all matches are shown")
    return 1 if search.unfinished or search.damaged or search.limited else 0

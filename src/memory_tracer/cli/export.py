"""``memory-tracer export``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..analyze.timeline import start_ns
from ..errors import OutputError, UsageError
from ..terminal import format_count, format_size, progress
from .arguments import Seconds, Selection, capture_argument, filter_options
from .listing import open_capture
from .notice import note, warn_incomplete

if TYPE_CHECKING:
    from ..capture.filters import FilterOptions
    from ..capture.reader import Capture


_FORMATS = ("raw", "jsonl", "parquet", "core", "elf")


@click.command()
@capture_argument
@click.option("--format", "form", type=click.Choice(_FORMATS), required=True, help="What to write.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Directory (raw, parquet, elf) or file (jsonl, core) to create.",
)
@click.option("--force", is_flag=True, help="Replace an earlier export.")
@click.option("--at", type=Seconds(), help="core, elf: as it was at this second of the capture.")
@click.option("--no-content", is_flag=True, help="jsonl, parquet: leave out the pages' bytes.")
@filter_options
def command(
    file: Path,
    form: str,
    output: Path | None,
    force: bool,
    at: int | None,
    no_content: bool,
    selection: Selection,
) -> None:
    """Write the capture FILE for other tools.

    \b
    raw      one file per region and generation, and index.json
    jsonl    one JSON object per event and page (default: to standard output)
    parquet  tables, one per file, for DuckDB, pandas or Polars
    core     the memory of one process for gdb, --at a time or as last known
    elf      programs and libraries that were in memory, and other code

    Of raw, parquet and elf a directory is created (default: FILE's name with -raw and so on), of core
    a file (FILE's name with the PID and .core). The filters choose regions (raw) or pages.

    Of elf, index.json names what is missing. Headers and data, which are never executable, are in the
    capture when it was recorded with --prot any.

    \b
    Example: the program that a packer hides:
      memory-tracer export sample.mtrace --format elf --exclude-file-backed
    """
    if at is not None and form not in ("core", "elf"):
        raise UsageError("--at is for --format core and elf")
    if no_content and form not in ("jsonl", "parquet"):
        raise UsageError("--no-content is for --format jsonl and parquet")
    with open_capture(file) as capture:
        filters = selection.filters(capture)
        at_ns = None if at is None else start_ns(capture) + at
        if form == "raw":
            _raw(capture, filters, output or Path(f"{file.stem}-raw"), force)
        elif form == "parquet":
            _parquet(capture, filters, output or Path(f"{file.stem}-parquet"), force, not no_content)
        elif form == "core":
            _core(capture, filters, at_ns, output, force)
        elif form == "elf":
            _elf(capture, filters, at_ns, output or Path(f"{file.stem}-elf"), force)
        else:
            _jsonl(capture, filters, output, force, not no_content)
        warn_incomplete(capture)


def _raw(capture: Capture, filters: FilterOptions, output: Path, force: bool) -> None:
    from ..export.raw import export_raw

    files = size = 0
    for export in progress(export_raw(capture, filters, output, force=force), "regions written:"):
        files, size = len(export.entries), export.size
    note(f"wrote {format_count(files, 'file')}, {format_size(size)}, to {output}")


def _parquet(capture: Capture, filters: FilterOptions, output: Path, force: bool, content: bool) -> None:
    from ..export.parquet import export_parquet

    written: Counter[str] = Counter()
    steps = export_parquet(capture, filters, output, content=content, force=force)
    for table, rows in progress(steps, "batches written:"):
        written[table] += rows
    counts = (format_count(rows, f"row of {table}", f"rows of {table}") for table, rows in written.items())
    note(f"wrote {', '.join(counts)} to {output}")


def _core(
    capture: Capture, filters: FilterOptions, at_ns: int | None, output: Path | None, force: bool
) -> None:
    from ..capture.output import create_output
    from ..export.core import plan_core, write_core

    core = plan_core(capture, filters, at_ns)
    path = output or Path(f"{capture.path.stem}-{core.process.pid}.core")
    descriptor = create_output(path, replace=force, owner=None)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            damaged = sum(progress(write_core(capture, core, stream), "blocks written:"))
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error
    note(f"wrote {format_count(core.pages, 'page')} of process {core.process.pid} to {path}")
    if damaged:
        note(f"{format_count(damaged, 'damaged page')} became zeros")


def _elf(capture: Capture, filters: FilterOptions, at_ns: int | None, output: Path, force: bool) -> None:
    from ..export.elf import export_elf

    files = 0
    for written in progress(export_elf(capture, filters, output, at_ns, force=force), "files written:"):
        files += 1
        entry, image = written.entry, written.image
        if entry["kind"] == "image":
            lacks = sum(hole.size for hole in image.holes)
            note(f"{entry['file']}: {'complete' if entry['complete'] else f'lacks {format_size(lacks)}'}")
        if written.damaged:
            note(f"{entry['file']}: {format_count(written.damaged, 'damaged page')} became zeros")
    note(f"wrote {format_count(files, 'file')} to {output}")


def _jsonl(capture: Capture, filters: FilterOptions, output: Path | None, force: bool, content: bool) -> None:
    from ..capture.output import create_output
    from ..export.jsonl import write_jsonl

    if output is None:
        write_jsonl(capture, filters, sys.stdout, content=content)
        return
    descriptor = create_output(output, replace=force, owner=None)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            lines = write_jsonl(capture, filters, stream, content=content)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror}") from error
    note(f"wrote {format_count(lines, 'line')} to {output}")

"""``memory-tracer show``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..analyze.timeline import start_ns
from ..errors import UsageError
from .arguments import Number, Seconds, capture_argument, symbols_option
from .listing import open_capture
from .notice import note, warn_incomplete

if TYPE_CHECKING:
    from ..capture.reader import Capture
    from ..show.view import View


@click.command()
@capture_argument
@click.argument("address", type=Number())
@click.option("--pid", type=click.IntRange(1, 2**32 - 1), help="The process, where several have ADDRESS.")
@click.option("--at", type=Seconds(), help="As it was at this second of the capture.")
@click.option("--generation", type=click.IntRange(min=1), metavar="N", help="As its N-th content was.")
@click.option("--size", type=Number(), help="This many bytes; otherwise to the end of the region.")
@click.option("--hex", "form", flag_value="hex", default="hex", help="A hex dump (the default).")
@click.option("--disasm", "form", flag_value="disasm", help="Instructions.")
@click.option("--raw", "form", flag_value="raw", help="The bytes themselves, to a file or pipe.")
@click.option(
    "--bits", type=click.Choice(["32", "64"]), help="Word size of the code; otherwise what the calls say."
)
@symbols_option
def command(
    file: Path,
    address: int,
    pid: int | None,
    at: int | None,
    generation: int | None,
    size: int | None,
    form: str,
    bits: str | None,
    symbol_files: tuple[Path, ...],
) -> None:
    """Print what was in memory at ADDRESS, from there to the end of its region.

    The last known bytes are shown unless --at or --generation says otherwise. Missing pages are
    lines that say why they are missing.

    \b
    Example: the instructions a packer wrote first:
      memory-tracer show sample.mtrace 0x7f00aa550000 --generation 1 --disasm
    """
    from ..show.view import find_view

    if at is not None and generation is not None:
        raise UsageError("--at and --generation both choose a moment; give one of them")
    if size == 0:
        raise UsageError("--size must be at least 1")
    if symbol_files and form != "disasm":
        raise UsageError("--symbols names instructions; add --disasm")
    if form == "raw" and sys.stdout.isatty():
        raise UsageError("--raw does not print to a terminal; add > FILE")
    with open_capture(file) as capture:
        until_ns = None if at is None else start_ns(capture) + at
        view = find_view(capture, address, pid=pid, size=size, generation=generation, until_ns=until_ns)
        if form == "raw":
            _write_raw(view)
        else:
            _print_text(capture, view, form, bits, symbol_files)
        warn_incomplete(capture)


def _write_raw(view: View) -> None:
    from ..show.raw import write_raw
    from ..show.text import describe_missing

    for hole in write_raw(view.runs(), sys.stdout.buffer):
        note(f"zeros instead of {describe_missing(hole)}")


def _print_text(
    capture: Capture, view: View, form: str, bits: str | None, symbol_files: tuple[Path, ...]
) -> None:
    from ..show.disassembly import for_capture
    from ..show.hexdump import hexdump
    from ..show.symbols import SymbolFiles, named_lines, pids_of
    from ..show.text import print_view

    if form == "hex":
        print_view(capture, view, hexdump)
        return
    disassembler = for_capture(capture, view.history, int(bits) if bits else None)
    symbols = SymbolFiles(symbol_files).of(*pids_of(capture, view.history))
    print_view(capture, view, named_lines(disassembler, symbols))

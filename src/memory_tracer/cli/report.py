"""``memory-tracer report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .arguments import capture_argument, symbols_option
from .listing import open_capture
from .notice import command_line

if TYPE_CHECKING:
    from ..capture.reader import Capture
    from ..report.story import Story


@click.command()
@capture_argument
@click.option("--all", "everything", is_flag=True, help="Show every process, region and mapping.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with all regions made at run time.")
@symbols_option
def command(file: Path, everything: bool, as_json: bool, symbol_files: tuple[Path, ...]) -> None:
    """Tell the story of the capture FILE on one screen.

    What ran and for how long; what is missing from the capture, if anything; the processes and how
    they ended; the code made at run time, the most telling first; and what to type next.

    The code of known runtimes is one line for each. A runtime is known by the name of the file that asked
    for the memory, which is no proof: the line has its path, and what holds an ELF image or makes system
    calls itself is not counted to it.

    \b
    Example:
      memory-tracer report sample.mtrace
    """
    from ..report.story import tell
    from ..show.symbols import SymbolFiles

    names = SymbolFiles(symbol_files)
    with open_capture(file) as capture:
        if as_json:
            from ..export.objects import line
            from ..report.document import report_object

            story = tell(capture, everything=everything)
            sys.stdout.write(line(report_object(capture, story, names, following=_next(capture, story))))
            return
        from ..report.text import REGIONS_SHOWN, print_report

        story = tell(capture, limit=None if everything else REGIONS_SHOWN, everything=everything)
        print_report(capture, story, names, everything=everything, following=_next(capture, story))


def _next(capture: Capture, story: Story) -> str:
    """Return the command that shows the most telling region."""
    history = story.next_look
    if history is None:
        return command_line("events", capture)
    start = history.region.start
    sharing = {other.pid for other in story.histories if other.region.start <= start < other.region.end}
    process = ("--pid", str(history.pid)) if len(sharing) > 1 else ()
    return command_line("show", capture, hex(start), *process, "--disasm")

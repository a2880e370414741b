"""``memory-tracer html``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..errors import OutputError, UsageError
from ..terminal import format_size, progress
from .arguments import Selection, Size, capture_argument, filter_options
from .listing import open_capture
from .notice import note, warn_incomplete


@click.command()
@capture_argument
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The file to create.  [default: FILE's name.html]"
)
@click.option("--force", is_flag=True, help="Replace an earlier one.")
@click.option(
    "--max-size", type=Size(), default="16M", help="Leave out what does not fit into this.  [default: 16M]"
)
@filter_options
def command(file: Path, output: Path | None, force: bool, max_size: int, selection: Selection) -> None:
    """Make one page about the capture FILE, to be opened in a browser.

    It has a timeline of the address space, a table to be searched, and the bytes and instructions of
    regions. It needs no network, and holds captured bytes: give it to nobody who must not have them.
    What did not fit is named on the page. The filters choose regions.

    \b
    Example:
      memory-tracer html sample.mtrace -o sample.html
    """
    from ..capture.output import create_output
    from ..html.page import SMALLEST_SIZE, Page

    if max_size < SMALLEST_SIZE:
        raise UsageError(f"--max-size must be at least {format_size(SMALLEST_SIZE)}")
    with open_capture(file) as capture:
        path = output or Path(f"{file.stem}.html")
        page = Page(capture, capture.regions(**selection.filters(capture)), max_size)
        descriptor = create_output(path, replace=force, owner=None)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                for _ in progress(page.write(stream), "regions written:"):
                    pass
                size = stream.tell()
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}") from error
        note(f"wrote {format_size(size)} to {path}")
        for what in page.left_out:
            note(f"left out: {what}")
        warn_incomplete(capture)

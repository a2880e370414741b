"""``memory-tracer diff``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..errors import UsageError
from .arguments import Number, capture_argument, json_option
from .listing import open_capture, print_objects
from .notice import warn_incomplete


@click.command()
@capture_argument
@click.argument("address", type=Number())
@click.option("--pid", type=click.IntRange(1, 2**32 - 1), help="The process, where several have ADDRESS.")
@click.option("--from", "old", type=click.IntRange(min=1), metavar="N", help="From this generation.")
@click.option("--to", "new", type=click.IntRange(min=1), metavar="N", help="To this one.")
@click.option("--size", type=Number(), help="This many bytes; otherwise to the end of the region.")
@click.option("--disasm", "form", flag_value="disasm", default="disasm", help="Instructions (the default).")
@click.option("--hex", "form", flag_value="hex", help="Rows of a hex dump.")
@click.option("--bits", type=click.Choice(["32", "64"]), help="Word size of the code.")
@json_option
def command(
    file: Path,
    address: int,
    pid: int | None,
    old: int | None,
    new: int | None,
    size: int | None,
    form: str,
    bits: str | None,
    as_json: bool,
) -> None:
    """Print what changed in the region at ADDRESS between two of its generations.

    Those are the last two unless --from and --to say otherwise. Lines of the older one begin with -,
    of the newer one with +, and the bytes that differ are underlined; ~ marks code that moved. Pages
    that only one of them has are lines that begin with a question mark.

    \b
    Example: what a JIT compiler patched in its third version of a page:
      memory-tracer diff node.mtrace 0x7f00aa550000 --from 2 --to 3
    """
    from ..diff.compare import differences, hex_rows
    from ..diff.objects import difference_object
    from ..diff.text import print_differences
    from ..show.disassembly import for_capture
    from ..show.view import find_view

    if size == 0:
        raise UsageError("--size must be at least 1")
    with open_capture(file) as capture:
        if new is None:
            last = find_view(capture, address, pid=pid, size=size)
            new = last.image.generation if old is None else old + 1
        if old is None:
            old = new - 1
        if old < 1:
            raise UsageError(f"the region at {address:#x} has one generation: there is nothing to compare")
        before = find_view(capture, address, pid=pid, size=size, generation=old)
        after = find_view(capture, address, pid=pid, size=size, generation=new)
        listing = hex_rows
        if form == "disasm":
            listing = for_capture(capture, after.history, int(bits) if bits else None).instructions
        changes = differences(before, after, listing)
        if as_json:
            kept = (change for change in changes if not getattr(change, "stayed", False))
            print_objects(capture, kept, difference_object, limit=None)
            return
        print_differences(capture, before, after, changes)
        warn_incomplete(capture)
    sys.stdout.flush()

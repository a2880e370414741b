"""Differences as text: removed and added lines, the changed bytes underlined, a little around them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ..show.disassembly import BYTES_WIDTH, Instruction
from ..show.text import moment
from ..terminal import console, format_size
from .align import Change
from .compare import Unknown

if TYPE_CHECKING:
    from rich.text import Text

    from ..capture.reader import Capture
    from ..show.view import View

#: Lines that stayed, shown before and after each that did not.
_CONTEXT = 3
#: Mark, address, two spaces: where the bytes begin.
_BYTES_AT = 18
_STYLES = {"-": "red", "+": "green", "~": "cyan"}


def print_differences(capture: Capture, old: View, new: View, changes: Iterable[Change | Unknown]) -> None:
    """Print what changed from ``old`` to ``new`` to standard output."""
    screen = console(sys.stdout)
    screen.print(f"--- {moment(capture, old)}", style="bold")
    screen.print(f"+++ {moment(capture, new)}", style="bold")
    some = False
    for change in _with_context(changes):
        some = True
        if change is None:
            screen.print("...", style="dim")
        elif isinstance(change, Unknown):
            screen.print(_unknown(change), style="yellow")
        else:
            for line in _lines(change):
                screen.print(line)
    if not some:
        screen.print("no byte that both generations have differs")


def _with_context(changes: Iterable[Change | Unknown]) -> Iterator[Change | Unknown | None]:
    """Leave out what stayed but for the lines around what did not; None where lines are left out."""
    before: deque[Change] = deque(maxlen=_CONTEXT)
    after = skipped = 0
    shown = False
    for change in changes:
        if isinstance(change, Change) and change.stayed:
            if after:
                after -= 1
                yield change
            else:
                skipped += len(before) == _CONTEXT
                before.append(change)
            continue
        if shown and skipped:
            yield None
        yield from before
        before.clear()
        skipped, shown = 0, True
        after = _CONTEXT if isinstance(change, Change) else 0
        yield change


def _lines(change: Change) -> Iterator[Text]:
    if change.stayed:
        assert change.new is not None
        yield _line(" ", change.new, "")
        return
    if change.moved:
        assert change.old is not None
        assert change.new is not None
        yield _line("~", change.new, f"  (was at {change.old.address:#x})")
        return
    if change.old is not None:
        yield _line("-", change.old, "")
    if change.new is not None:
        yield _line("+", change.new, "", change.changed_bytes)
        if change.changed_bytes:
            yield _underline(change.changed_bytes)


def _line(mark: str, line: Instruction, remark: str, changed: tuple[int, ...] = ()) -> Text:
    from rich.text import Text

    raw = f"{line.raw.hex(' '):<{BYTES_WIDTH}}" if line.raw else ""
    separator = "  " if len(line.raw) * 3 > BYTES_WIDTH else ""
    text = Text(f"{mark} {line.address:#014x}  {raw}{separator}{line.text}{remark}", _STYLES.get(mark, ""))
    for index in changed:
        text.stylize("bold reverse", _BYTES_AT + 3 * index, _BYTES_AT + 3 * index + 2)
    return text


def _underline(changed: tuple[int, ...]) -> Text:
    from rich.text import Text

    marks = [" "] * (_BYTES_AT + 3 * changed[-1] + 2)
    for index in changed:
        start = _BYTES_AT + 3 * index
        marks[start : start + 2] = "^^"
    return Text("".join(marks), "bold")


def _unknown(part: Unknown) -> str:
    reason = "" if part.missing is None else f", because {part.missing.sentence}"
    other = "new" if part.side == "old" else "old"
    return f"? {part.address:#014x}  {format_size(part.size)} only in the {other} one{reason}"

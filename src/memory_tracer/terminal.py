"""What reaches a terminal: text made harmless, numbers made readable, tables that fit.

Names, paths and command lines in a capture were chosen by the traced program. A view must pass
every one of them through :func:`clean`. Nothing here imports rich until something is printed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, islice
from typing import IO, TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

_Item = TypeVar("_Item")

#: Longest text shown of one name, path or command line, in characters (PATH_MAX of Linux).
TEXT_LIMIT = 4096
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
#: Rows looked at before the first is printed, to choose the column widths.
ROWS_MEASURED = 500
#: Seconds of silence before progress is shown.
PROGRESS_DELAY = 1.0


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    r"""Return ``text`` with everything that could act on a terminal or mislead a reader spelled out.

    Control characters, escape sequences, bidirectional and zero-width controls, unassigned and
    private characters become ``\xNN``, ``\uNNNN`` or ``\UNNNNNNNN``; bytes that were not UTF-8
    (``surrogateescape``) become ``\xNN``; a backslash is doubled, so that the result is
    unambiguous. At most ``limit`` characters of ``text`` are kept.
    """
    shortened = text[:limit]
    if not shortened.isprintable() or "\\" in shortened:
        shortened = "".join(
            character if character.isprintable() and character != "\\" else _escape(character)
            for character in shortened
        )
    return shortened + "…" if len(text) > limit else shortened


def _escape(character: str) -> str:
    code = ord(character)
    if character == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383: a byte that did not decode
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def format_size(size: int) -> str:
    """Return ``size`` bytes in binary units: ``512 B``, ``4 KiB``, ``1.5 MiB``."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / 1024**power:.4g} {_UNITS[power - 1]}"


def format_seconds(nanoseconds: int) -> str:
    """Return exact seconds, to be typed back after ``--at`` or ``--since``: ``1.234567891``."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), 10**9)
    return f"{sign}{seconds}.{rest:09d}"


def format_duration(nanoseconds: int) -> str:
    """Return a length of time for people: ``340 ms``, ``1.2 s``, ``2 min 3 s``, ``1 h 5 min``."""
    if nanoseconds < 10**9:
        return f"{nanoseconds / 10**6:.3g} ms"
    if nanoseconds < 60 * 10**9:
        return f"{nanoseconds / 10**9:.1f} s"
    minutes, seconds = divmod(nanoseconds // 10**9, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    return f"{minutes // 60} h {minutes % 60} min"


def format_count(count: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 page``, ``0 pages``, ``12,000 pages``; ``plural`` where an "s" does not make it."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def console(stream: IO[str]) -> Console:
    """Return a rich console that prints lines to ``stream`` as they are, coloured on a terminal.

    Rich itself honours ``NO_COLOR``. Markup, emoji codes and highlighting are off: what is printed
    comes from a capture.
    """
    from rich.console import Console

    return Console(file=stream, markup=False, emoji=False, highlight=False, soft_wrap=True)


#: A rich style, or a function that chooses one for a cell.
Style = str | Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, its side and its style."""

    title: str
    right: bool = False
    style: Style = ""


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> int:
    """Print ``rows`` to standard output as they come and return how many there were.

    On a terminal a line that is too long ends in an ellipsis; anywhere else lines are plain text
    of full width. Cells must be clean. Without rows nothing is printed.
    """
    remaining = iter(rows)
    measured = list(islice(remaining, ROWS_MEASURED))
    if not measured:
        return 0
    titles = [column.title for column in columns]
    widths = [max(map(_cells, cells)) for cells in zip(titles, *measured, strict=True)]
    screen = console(sys.stdout) if sys.stdout.isatty() else None
    _print_row(screen, titles, _padded(columns, widths, titles), ["bold"] * len(columns))
    count = 0
    for row in chain(measured, remaining):
        _print_row(screen, row, _padded(columns, widths, row), [column.style for column in columns])
        count += 1
    return count


def _print_row(
    screen: Console | None, cells: Sequence[str], padded: Iterable[str], styles: Sequence[Style]
) -> None:
    if screen is None:
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
        return
    from rich.text import Text

    line = Text()
    for cell, text, style in zip(cells, padded, styles, strict=True):
        line.append(text, style if isinstance(style, str) else style(cell)).append("  ")
    line.rstrip()
    screen.print(line, soft_wrap=False, no_wrap=True, overflow="ellipsis", crop=True)


def _padded(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> Iterator[str]:
    for column, width, cell in zip(columns, widths, cells, strict=True):
        filler = " " * (width - _cells(cell))
        yield filler + cell if column.right else cell + filler


def _cells(text: str) -> int:
    """How many terminal columns ``text`` takes; East Asian characters take two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def progress(items: Iterable[_Item], activity: str, total: int | None = None) -> Iterator[_Item]:
    """Yield ``items``; after a second, show on a terminal's standard error how far it has come.

    ``total`` is the number of items; it is taken from ``items`` where that has a length.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if not sys.stderr.isatty():
        yield from items
        return
    shown = time.monotonic() + PROGRESS_DELAY
    width = 0
    try:
        for done, item in enumerate(items):
            yield item
            if time.monotonic() >= shown:
                share = f" {min(done + 1, total) * 100 // total} %" if total else f" {done + 1:,}"
                line = f"{activity}{share}"
                width = max(width, len(line))
                sys.stderr.write(f"\r{line:<{width}}")
                sys.stderr.flush()
                shown += PROGRESS_DELAY / 4
    finally:
        if width:
            sys.stderr.write("\r" + " " * width + "\r")
            sys.stderr.flush()

"""Arguments and options several verbs share, and the types that check them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..analyze.timeline import start_ns
from ..errors import UsageError
from ..model import ADDRESS_END, EventKind, Protection

if TYPE_CHECKING:
    from ..capture.filters import FilterOptions
    from ..capture.reader import Capture

_R = TypeVar("_R")

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")


class Number(click.ParamType[int]):
    """An address or a size: decimal, or hexadecimal after ``0x``; at most 64 bits."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; fail with an example when it is none."""
        if isinstance(value, int):
            return value
        if not _NUMBER.fullmatch(value):
            hint = f"; hexadecimal numbers start with 0x: 0x{value}" if _is_bare_hex(value) else ""
            self.fail(f"{value!r} is not a number such as 0x7f00aa550000 or 4096{hint}", param, ctx)
        number = int(value, 16) if value[:2] in ("0x", "0X") else int(value)
        if number >= ADDRESS_END:
            self.fail(f"{value} does not fit 64 bits", param, ctx)
        return number


def _is_bare_hex(text: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{1,16}", text) is not None


class AddressRange(click.ParamType[tuple[int, int]]):
    """``ADDR``, ``ADDR-END`` or ``ADDR+SIZE``, as the half-open range (start, end)."""

    name = "address"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return the range; fail when it is malformed or empty."""
        if isinstance(value, tuple):
            return value
        number = Number()
        separator = "+" if "+" in value else "-"
        first, given, second = value.partition(separator)
        start = number.convert(first, param, ctx)
        if not given:
            return start, start + 1
        end = number.convert(second, param, ctx) + (start if separator == "+" else 0)
        if end <= start:
            self.fail(f"{value!r} ends before it starts", param, ctx)
        return start, end


class Seconds(click.ParamType[int]):
    """Seconds from the start of the capture, as nanoseconds; up to three hundred years."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return nanoseconds; every digit of ``1.234567891`` counts."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(-?)([0-9]{0,11})(?:\.([0-9]{0,9}))?", value)
        if not match or not (match[2] or match[3]):
            self.fail(f"{value!r} is not a number of seconds such as 1.5", param, ctx)
        nanoseconds = int(match[2] or 0) * 10**9 + int((match[3] or "").ljust(9, "0"))
        return -nanoseconds if match[1] else nanoseconds


class Size(click.ParamType[int]):
    """A number of bytes with an optional K, M, G or T (binary units)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        from ..record.settings import parse_size  # readers need none of it, unless they are given a size

        try:
            return parse_size(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


class ProtectionBits(click.ParamType[Protection]):
    """Protection bits that must all be set: ``x``, ``wx``, ``r-x``."""

    name = "protection"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Protection:
        """Return the bits; dashes are ignored."""
        if isinstance(value, Protection):
            return value
        letters = {"r": Protection.READ, "w": Protection.WRITE, "x": Protection.EXEC}
        named = value.replace("-", "")
        if not named or not set(named) <= set(letters):
            self.fail(f"{value!r} is not a protection such as x, wx or r-x", param, ctx)
        return functools.reduce(lambda bits, letter: bits | letters[letter], named, Protection.NONE)


#: What ``show`` and ``report`` take the names of generated functions from.
symbols_option = click.option(
    "--symbols",
    "symbol_files",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Names of generated functions: a perf map or a jitdump.",
)
capture_argument = click.argument("file", type=click.Path(path_type=Path))
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
limit_option = click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="At most this many rows."
)


@dataclass(frozen=True, slots=True)
class Selection:
    """What the filter options chose; times count from the start of the capture."""

    pids: tuple[int, ...]
    addresses: tuple[int, int] | None
    since: int | None
    until: int | None
    kinds: tuple[EventKind, ...]
    protection: Protection | None
    path: str | None
    exclude_file_backed: bool

    def filters(self, capture: Capture) -> FilterOptions:
        """Return the keyword arguments for ``events``, ``pages`` and ``regions`` of ``capture``."""
        origin = start_ns(capture)
        start, end = self.addresses or (None, None)
        return {
            "pid": self.pids or None,
            "start": start,
            "end": end,
            "since_ns": None if self.since is None else origin + self.since,
            "until_ns": None if self.until is None else origin + self.until,
            "kinds": self.kinds or None,
            "protection": self.protection,
            "path": self.path,
            "exclude_file_backed": self.exclude_file_backed,
        }


_FILTER_OPTIONS = (
    click.option(
        "--pid", "pids", type=click.IntRange(1, 2**32 - 1), multiple=True, help="Only this process."
    ),
    click.option(
        "--address",
        "addresses",
        type=AddressRange(),
        metavar="ADDR[-END|+SIZE]",
        help="Only what overlaps this range.",
    ),
    click.option("--since", type=Seconds(), help="Not before this second of the capture."),
    click.option("--until", type=Seconds(), help="Not after this second of the capture."),
    click.option(
        "--event",
        "kinds",
        type=click.Choice([str(kind) for kind in EventKind]),
        multiple=True,
        help="Only this kind of event.",
    ),
    click.option(
        "--protection",
        type=ProtectionBits(),
        metavar="BITS",
        help="Only with all of these bits: x, wx, r-x.",
    ),
    click.option("--path", metavar="TEXT", help="Only backed by a file with TEXT in its path."),
    click.option("--exclude-file-backed", is_flag=True, help="Nothing that a file backs."),
)


def filter_options(function: Callable[..., _R]) -> Callable[..., _R]:
    """Add the filter options to a verb, which gets them as one ``selection: Selection``."""

    @functools.wraps(function)
    def verb(*, kinds: tuple[str, ...], **parameters: Any) -> _R:
        chosen = {name: parameters.pop(name) for name in Selection.__slots__ if name != "kinds"}
        events = tuple(EventKind[kind.upper()] for kind in kinds)
        return function(selection=Selection(kinds=events, **chosen), **parameters)

    for option in reversed(_FILTER_OPTIONS):
        verb = option(verb)
    return verb

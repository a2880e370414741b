"""Find where two views of one range differ, in pieces of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..analyze.runs import Reasons, reason_at, reasons
from ..model import PAGE_SIZE, Missing
from ..show.disassembly import Instruction
from ..show.hexdump import WIDTH, printable
from ..show.view import View
from .align import Change, align

#: Turns the bytes at an address into lines.
Listing = Callable[[bytes, int], Iterator[Instruction]]

#: Changed pages compared at once.
_PAGES_AT_ONCE = 64
#: Unchanged bytes listed before the changed pages, so that decoding is in step where these begin, and
#: after, for the instruction that reaches beyond.
_LEAD = 64
_TAIL = 16


@dataclass(frozen=True, slots=True)
class Unknown:
    """Neighbouring pages whose bytes only one of the views has, or that are missing for other reasons.

    ``side`` is the one that has no bytes: ``old`` or ``new``.
    """

    address: int
    size: int
    side: str
    missing: Missing | None


def differences(old: View, new: View, listing: Listing) -> Iterator[Change | Unknown]:
    """Yield the lines of all pages that differ, those that stayed included, by address.

    Both views are of the same range. Of a page that only one view has, there is an ``Unknown``.
    """
    start = old.start // PAGE_SIZE * PAGE_SIZE
    known = sorted({address for view in (old, new) for address in view.image.pages})
    views = {"old": old, "new": new}
    gaps = {side: reasons(view.image.gaps) for side, view in views.items()}
    group: list[int] = []
    for address in known:
        if not start <= address < old.end:
            continue
        before, after = _content(old, address), _content(new, address)
        changed = before is not None and after is not None and before != after
        if group and (not changed or address != group[-1] + PAGE_SIZE or len(group) == _PAGES_AT_ONCE):
            yield from _compared(old, new, group, listing)
            group = []
        if changed:
            group.append(address)
        else:
            yield from _unknown(views, gaps, address)
    if group:
        yield from _compared(old, new, group, listing)


def hex_rows(content: bytes, address: int) -> Iterator[Instruction]:
    """Yield the bytes as rows of a hex dump, each at a multiple of its width."""
    position = 0
    while position < len(content):
        size = WIDTH - (address + position) % WIDTH
        row = content[position : position + size]
        yield Instruction(address + position, len(row), row, f"|{printable(row)}|")
        position += len(row)


def _content(view: View, address: int) -> bytes | None:
    held = view.image.pages.get(address)
    return None if held is None else held.content


def _unknown(views: dict[str, View], gaps: dict[str, Reasons], address: int) -> Iterator[Unknown]:
    lacking = [side for side, view in views.items() if _content(view, address) is None]
    for side in lacking if len(lacking) == 1 else ():
        held = views[side].image.pages.get(address)
        yield Unknown(address, PAGE_SIZE, side, held.missing if held else reason_at(gaps[side], address))


def _compared(old: View, new: View, group: list[int], listing: Listing) -> Iterator[Change]:
    first = max(group[0], old.start)
    end = min(group[-1] + PAGE_SIZE, old.end)
    lead, tail = b"", b""
    if first == group[0] > old.start:
        lead = (_same(old, new, group[0] - PAGE_SIZE) or b"")[-_LEAD:]
    if end == group[-1] + PAGE_SIZE:
        tail = (_same(old, new, end) or b"")[:_TAIL]
    lines: list[list[Instruction]] = []
    for view in (old, new):
        pages = b"".join(_content(view, page) or b"" for page in group)
        content = lead + pages[first - group[0] : end - group[0]] + tail
        listed = listing(content, first - len(lead))
        lines.append([line for line in listed if first < line.address + line.size and line.address < end])
    return align(*lines)


def _same(old: View, new: View, address: int) -> bytes | None:
    """Return the bytes of a page that both views have and that did not change, else None."""
    content = _content(old, address)
    return content if content == _content(new, address) else None

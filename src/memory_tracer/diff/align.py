"""Two listings of the same addresses, aligned: what stayed, moved, changed, came and went."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..show.disassembly import Instruction

#: Listings between two places that agree are compared as sequences up to this many pairs; above, what
#: lies at the same address is compared. It keeps hostile code from taking quadratic time.
_PAIRS_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a listing in two versions; None where it is not in one of them.

    ``moved``: the same bytes at another address. Neither moved nor different: it stayed.
    """

    old: Instruction | None
    new: Instruction | None

    @property
    def stayed(self) -> bool:
        """True when both versions have the same bytes at the same address."""
        return self.old is not None and self.new is not None and _key(self.old) == _key(self.new)

    @property
    def moved(self) -> bool:
        """True when both versions have the same bytes, at different addresses."""
        return (
            self.old is not None
            and self.new is not None
            and _bytes(self.old) == _bytes(self.new)
            and self.old.address != self.new.address
        )

    @property
    def changed_bytes(self) -> tuple[int, ...]:
        """Which bytes of the new version differ from those of the old; none unless there are both."""
        if self.old is None or self.new is None:
            return ()
        pairs = itertools.zip_longest(self.old.raw, self.new.raw)
        return tuple(index for index, (old, new) in enumerate(pairs) if old != new and new is not None)


def align(old: Sequence[Instruction], new: Sequence[Instruction]) -> Iterator[Change]:
    """Pair the lines of two listings, each in order of address.

    Lines with the same bytes at the same address belong together. What lies between two of these is
    aligned by its bytes, so that code behind an insertion is seen to have moved.
    """
    anchors = set(map(_key, old)) & set(map(_key, new))
    first, second = 0, 0
    while first < len(old) or second < len(new):
        ends = _next(old, first, anchors), _next(new, second, anchors)
        yield from _between(old[first : ends[0]], new[second : ends[1]])
        first, second = ends
        if first < len(old):
            yield Change(old[first], new[second])
            first, second = first + 1, second + 1


def _key(line: Instruction) -> tuple[int, int, bytes]:
    return line.address, line.size, line.raw


def _bytes(line: Instruction) -> tuple[int, bytes]:
    return line.size, line.raw


def _next(lines: Sequence[Instruction], start: int, anchors: set[tuple[int, int, bytes]]) -> int:
    return next((index for index in range(start, len(lines)) if _key(lines[index]) in anchors), len(lines))


def _between(old: Sequence[Instruction], new: Sequence[Instruction]) -> Iterator[Change]:
    if len(old) * len(new) > _PAIRS_LIMIT:
        yield from _by_address(old, new)
        return
    matcher = difflib.SequenceMatcher(None, [*map(_bytes, old)], [*map(_bytes, new)], autojunk=False)
    for _, first, first_end, second, second_end in matcher.get_opcodes():
        pairs = itertools.zip_longest(old[first:first_end], new[second:second_end])
        yield from itertools.starmap(Change, pairs)


def _by_address(old: Sequence[Instruction], new: Sequence[Instruction]) -> Iterator[Change]:
    before = {line.address: line for line in old}
    after = {line.address: line for line in new}
    for address in sorted(before.keys() | after.keys()):
        yield Change(before.get(address), after.get(address))

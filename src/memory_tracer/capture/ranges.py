"""Ranges of addresses with a value each."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Ranges(Generic[_Value]):
    """Ranges of addresses, each with a value: sorted, none overlaps another."""

    def __init__(self, other: Ranges[_Value] | None = None) -> None:
        self.starts: list[int] = other.starts[:] if other else []
        self.ends: list[int] = other.ends[:] if other else []
        self.values: list[_Value] = other.values[:] if other else []

    def find(self, address: int) -> int:
        """Return the number of the range that holds ``address``, or -1."""
        number = bisect.bisect_right(self.starts, address) - 1
        return number if number >= 0 and address < self.ends[number] else -1

    def put(self, start: int, end: int, value: _Value | None) -> None:
        """Say what [start, end) is; None when it is nothing known."""
        first = bisect.bisect_right(self.ends, start)
        last = bisect.bisect_left(self.starts, end)
        ranges = [] if value is None else [(start, end, value)]
        if first < last and self.starts[first] < start:
            ranges.insert(0, (self.starts[first], start, self.values[first]))
        if first < last and self.ends[last - 1] > end:
            ranges.append((end, self.ends[last - 1], self.values[last - 1]))
        self.starts[first:last] = [start for start, _, _ in ranges]
        self.ends[first:last] = [end for _, end, _ in ranges]
        self.values[first:last] = [value for _, _, value in ranges]

    def within(self, start: int, end: int) -> Iterator[tuple[int, int, _Value]]:
        """Yield what is known of [start, end), in order, cut at its borders."""
        first = bisect.bisect_right(self.ends, start)
        last = bisect.bisect_left(self.starts, end)
        for number in range(first, last):
            yield max(self.starts[number], start), min(self.ends[number], end), self.values[number]

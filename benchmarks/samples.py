"""Numbers measured again and again: their median and spread."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

_Item = TypeVar("_Item")


def rotated(items: Sequence[_Item], number: int) -> list[_Item]:
    """Return ``items`` starting with another one each round, so that none is always first."""
    start = number % len(items)
    return [*items[start:], *items[:start]]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some numbers, the lowest and the highest of them."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Summarize at least one number."""
        numbers = sorted(values)
        return cls(statistics.median(numbers), numbers[0], numbers[-1])

    def text(self, unit: str, per_unit: float = 1, digits: int = 1) -> str:
        """Return ``median (lowest to highest) unit``; ``per_unit`` of the measured unit make one ``unit``.

        Without a spread there is only the median.
        """
        median, lowest, highest = (
            f"{number / per_unit:,.{digits}f}" for number in (self.median, self.lowest, self.highest)
        )
        if lowest == highest:
            return f"{median} {unit}".rstrip()
        return f"{median} ({lowest} to {highest}) {unit}".rstrip()

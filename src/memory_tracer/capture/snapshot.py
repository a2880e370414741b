"""The memory of one process at one moment, as rows of the page table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..model import PAGE_SIZE
from .columns import Rows
from .numbering import Numbers
from .relations import Relations
from .replacements import replacements


class Span(NamedTuple):
    """Neighbouring pages, as rows of the page table, that have the same protection."""

    address: int
    rows: Numbers
    protection: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return len(self.rows) * PAGE_SIZE


def snapshot(relations: Relations, process: int, chosen: Numbers, until_ns: int | None) -> Numbers:
    """Return which of the rows ``chosen`` were the memory of ``process`` at ``until_ns``, by address.

    The last row of each page counts, unless it has no bytes, or its page was unmapped, mapped anew,
    missing or zeros since. None stands for the last that is known: processes unmap much before they
    end, and that forgets nothing.
    """
    numbers = chosen[relations.row_process[chosen] == process]
    rows = relations.rows
    if until_ns is not None:
        numbers = numbers[rows["timestamp_ns"][numbers] <= until_ns]
    backwards = numbers[::-1]
    addresses, last = np.unique(rows["address"][backwards], return_index=True)
    numbers = backwards[last]
    ordinals = rows["ordinal"][numbers]
    alive = relations.row_stored[numbers]
    for ordinal, start, end in _ends(relations, process, until_ns):
        first, stop = np.searchsorted(addresses, np.array([start, end], np.uint64))
        alive[first:stop] &= ordinals[first:stop] > ordinal
    kept: Numbers = numbers[alive]
    return kept


def spans(relations: Relations, numbers: Numbers) -> list[Span]:
    """Return rows that are in order of address as few spans as possible."""
    if not len(numbers):
        return []
    addresses = relations.rows["address"][numbers]
    protections = relations.events["protection"][relations.row_event[numbers]]
    parts = (np.diff(addresses) != PAGE_SIZE) | (np.diff(protections) != 0)
    heads = np.concatenate([[0], np.flatnonzero(parts) + 1])
    return [
        Span(int(addresses[head]), part, int(protections[head]))
        for head, part in zip(heads.tolist(), np.split(numbers, heads[1:]), strict=True)
    ]


def _ends(relations: Relations, process: int, until_ns: int | None) -> Iterator[tuple[int, int, int]]:
    """Yield (ordinal, start, end) of what makes earlier pages of a range outdated."""
    last = (1 << 64) - 1
    for item in replacements(relations, process):
        if item.timestamp_ns <= until_ns if until_ns is not None else item.anew:
            yield item.ordinal, item.start, min(item.end, last)
    for table, processes in (
        (relations.runs, relations.run_process),
        (relations.zeros, relations.zero_process),
    ):
        for start, end, ordinal in _ranges(table[processes == process], until_ns):
            yield ordinal, start, min(end, last)


def _ranges(table: Rows, until_ns: int | None) -> Iterator[tuple[int, int, int]]:
    if until_ns is not None:
        table = table[table["timestamp_ns"] <= until_ns]
    columns = (table[name].tolist() for name in ("address", "pages", "ordinal"))
    for address, pages, ordinal in zip(*columns, strict=True):
        yield address, address + pages * PAGE_SIZE, ordinal

"""Make the rows of a PAGES chunk from page and repeat records."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..model import Missing
from ..wire.layout import PAGE_BYTES, SEQUENCE_CPU_SHIFT
from .columns import HEADER_NAMES, HEADER_TYPE, PAGE_ROW_TYPE, Rows, every
from .format import NO_CONTENT

_WORD = 8


def last_of_each_cpu(rows: Rows) -> dict[int, tuple[int, int]]:
    """Return the sequence and the content number of the last page of each CPU."""
    backwards = rows[::-1]
    cpus, last = np.unique(backwards["sequence"] >> np.uint64(SEQUENCE_CPU_SHIFT), return_index=True)
    pages = zip(backwards["sequence"][last].tolist(), backwards["content"][last].tolist(), strict=True)
    return dict(zip(cpus.tolist(), pages, strict=True))


def repeated_rows(repeats: Rows, ordinals: NDArray[np.uint64], sources: Mapping[int, int]) -> Rows:
    """Return a PAGES row for each page of the REPEAT records ``repeats``.

    ``sources`` are the content numbers of the pages they repeat, by sequence.
    """
    pages = repeats["pages"].astype(np.int64)
    within = (np.arange(int(pages.sum())) - np.repeat(np.cumsum(pages) - pages, pages)).astype(np.uint64)
    rows: Rows = np.zeros(len(within), PAGE_ROW_TYPE)
    for name in HEADER_NAMES:
        rows[name] = np.repeat(repeats[name], pages)
    rows["ordinal"] = np.repeat(ordinals, pages) + within
    rows["address"] += within * np.uint64(PAGE_BYTES)
    numbers = [sources.get(source, NO_CONTENT) for source in repeats["source"].tolist()]
    rows["content"] = np.repeat(np.array(numbers, dtype=np.uint64), pages)
    rows["missing"] = np.where(rows["content"] == NO_CONTENT, Missing.LIMIT, 0)
    return rows


def page_rows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ordinals: NDArray[np.uint64],
    numbers: NDArray[np.uint64],
) -> Rows:
    """Return the PAGES rows of the page records at ``offsets``."""
    headers = every(data, HEADER_TYPE, _WORD)[offsets // _WORD]
    rows: Rows = np.zeros(len(offsets), PAGE_ROW_TYPE)
    rows["ordinal"] = ordinals
    for name in HEADER_NAMES:
        rows[name] = headers[name]
    rows["content"] = numbers
    rows["missing"] = np.where(numbers == NO_CONTENT, Missing.LIMIT, 0)
    return rows

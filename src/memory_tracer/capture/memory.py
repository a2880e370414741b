"""The memory of a traced process as it was at some time, put together from its pages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import CaptureError, NotCapturedError, UsageError
from ..model import PAGE_SIZE
from .columns import Rows
from .contents import Contents
from .decode import missing_reason
from .relations import Numbers, Relations


def read_memory(
    relations: Relations, contents: Contents, pid: int, address: int, size: int, at: int | None
) -> bytes:
    """Return ``size`` bytes at ``address`` of process ``pid`` at time ``at`` (the last when None).

    Of several processes with this PID it is the last that had the first page captured by then.
    Raises ``NotCapturedError`` when the bytes of a page are not in the capture or became outdated,
    ``CaptureError`` when they are damaged, ``UsageError`` for a negative address or size.
    """
    if address < 0 or size < 0:
        raise UsageError(f"{size} bytes at {address} cannot be read")
    if not size:
        return b""
    first = address - address % PAGE_SIZE
    end = address + size
    rows = relations.rows
    seen = (rows["pid"] == pid) & (rows["address"] >= first) & (rows["address"] < end)
    runs = (relations.runs["pid"] == pid) & (relations.runs["address"] < end)
    if at is not None:
        seen &= rows["timestamp_ns"] <= at
        runs &= relations.runs["timestamp_ns"] <= at
    numbers = np.flatnonzero(seen)
    at_first = numbers[rows["address"][numbers] == first]
    if len(at_first):
        process = relations.row_process[at_first[-1]]
        numbers = numbers[relations.row_process[numbers] == process]
        runs &= relations.run_process == process
    latest = _latest_of_each_page(rows, numbers)
    _check_all_there(rows[latest], first, end, relations.runs[runs], pid)
    pieces: list[bytes] = []
    for row in rows[latest]:
        stored = contents.page(int(row["content"]))
        if stored is None:
            raise CaptureError(f"the bytes of the page at {int(row['address']):#x} are damaged in the file")
        pieces.append(stored.content)
    return b"".join(pieces)[address - first : end - first]


def page_generations(relations: Relations, pid: int, address: int) -> Numbers:
    """Return the page rows at which each generation of a page first occurs, in order of generation.

    Of several processes with this PID it is the last that had the page captured.
    """
    rows = relations.rows
    numbers = np.flatnonzero((rows["pid"] == pid) & (rows["address"] == address - address % PAGE_SIZE))
    numbers = numbers[relations.generations[numbers] > 0]
    if not len(numbers):
        return numbers
    numbers = numbers[relations.row_process[numbers] == relations.row_process[numbers[-1]]]
    _, first = np.unique(relations.generations[numbers], return_index=True)
    occurrences: Numbers = numbers[first]
    return occurrences


def _latest_of_each_page(rows: Rows, numbers: Numbers) -> Numbers:
    """Return the last of the rows ``numbers`` for each address, by address."""
    backwards = numbers[::-1]
    _, last = np.unique(rows["address"][backwards], return_index=True)
    latest: Numbers = backwards[last]
    return latest


def _check_all_there(latest: Rows, first: int, end: int, runs: Rows, pid: int) -> None:
    """Raise ``NotCapturedError`` unless ``latest`` has each page of [first, end) with content."""
    places = np.arange(len(latest), dtype=np.uint64) * np.uint64(PAGE_SIZE) + np.uint64(first)
    wrong = np.flatnonzero(latest["address"] != places)
    gap = int(places[wrong[0]]) if len(wrong) else first + len(latest) * PAGE_SIZE
    if gap < end:
        covering = runs["reason"][_covers(runs, gap)].tolist()
        raise _not_captured(pid, gap, covering[-1] if covering else None)
    for row in latest[latest["missing"] != 0][:1]:
        raise _not_captured(pid, int(row["address"]), int(row["missing"]))
    for run in runs:
        stale = latest[_within(run, latest["address"]) & (latest["ordinal"] < run["ordinal"])]
        if len(stale):
            error = _not_captured(pid, int(stale[0]["address"]), int(run["reason"]))
            raise NotCapturedError(f"{error}; it was last captured at {int(stale[0]['timestamp_ns'])} ns")


def _covers(runs: Rows, page: int) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = (runs["address"] <= page) & (page - runs["address"] < runs["pages"] * PAGE_SIZE)
    return mask


def _within(run: Rows, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
    start = int(run["address"])
    mask: NDArray[np.bool_] = (addresses >= start) & (addresses < start + int(run["pages"]) * PAGE_SIZE)
    return mask


def _not_captured(pid: int, page: int, reason: int | None) -> NotCapturedError:
    because = "" if reason is None else f" because {missing_reason(reason).sentence}"
    return NotCapturedError(f"the page at {page:#x} of process {pid} is not in the capture{because}")

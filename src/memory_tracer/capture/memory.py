"""The memory of a traced process as it was at some time, put together from its pages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import CaptureError, NotCapturedError, UsageError
from ..model import ADDRESS_END, PAGE_SIZE
from .columns import Rows
from .contents import Contents
from .decode import missing_reason
from .numbering import Numbers
from .relations import Relations


def read_memory(
    relations: Relations, contents: Contents, pid: int, address: int, size: int, at: int | None
) -> bytes:
    """Return ``size`` bytes at ``address`` of process ``pid`` at time ``at`` (the last when None).

    Of several processes with this PID it is the last that had the first page captured by then.
    Pages that were absent then are zeros. Raises ``NotCapturedError`` when the bytes of a page are not
    in the capture or became outdated, ``CaptureError`` when they are damaged, ``UsageError`` for a
    negative address or size.
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
    zeros = (relations.zeros["pid"] == pid) & (relations.zeros["address"] < end)
    if at is not None:
        seen &= rows["timestamp_ns"] <= at
        runs &= relations.runs["timestamp_ns"] <= at
        zeros &= relations.zeros["timestamp_ns"] <= at
    numbers = np.flatnonzero(seen)
    at_first = numbers[rows["address"][numbers] == first]
    if len(at_first):
        process = relations.row_process[at_first[-1]]
        numbers = numbers[relations.row_process[numbers] == process]
        runs &= relations.run_process == process
        zeros &= relations.zero_process == process
    latest = rows[_latest_of_each_page(rows, numbers)]
    pages = _Pages(latest, relations.zeros[zeros], first, end)
    pages.check_all_there(relations.runs[runs], pid)
    pieces: list[bytes] = []
    for number in pages.rows.tolist():
        if number < 0:
            pieces.append(bytes(PAGE_SIZE))
            continue
        row = latest[number]
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


class _Pages:
    """What is known of each page of [first, end), up to the first of which nothing is."""

    def __init__(self, latest: Rows, zeros: Rows, first: int, end: int) -> None:
        """Let the later of a row (of ``latest``, one for each page) and a run of zeros count."""
        self._latest, self._first = latest, first
        self._wanted = -(-(end - first) // PAGE_SIZE)
        clipped = [self._clip(run) for run in zeros]
        # Of a range that is mostly unknown, no more than this can be known.
        count = min(self._wanted, len(latest) + sum(stop - start for start, stop in clipped))
        #: For each page its row, or -1 for zeros.
        self.rows = np.full(count, -1, dtype=np.int64)
        self._ordinals = np.zeros(count, dtype=np.uint64)
        self._known = np.zeros(count, dtype=np.bool_)
        places = (latest["address"] - np.uint64(first)) // np.uint64(PAGE_SIZE)
        inside = places < count
        places = places[inside]
        self.rows[places] = np.flatnonzero(inside)
        self._ordinals[places] = latest["ordinal"][inside]
        self._known[places] = True
        for run, (start, stop) in zip(zeros, clipped, strict=True):
            part = slice(start, min(stop, count))
            newer = ~self._known[part] | (self._ordinals[part] < run["ordinal"])
            self.rows[part][newer] = -1
            self._ordinals[part][newer] = run["ordinal"]
            self._known[part] = True

    def _clip(self, run: np.void) -> tuple[int, int]:
        """Return the first page of the run and the one after the last, counted from our first."""
        start = (int(run["address"]) - self._first) // PAGE_SIZE
        stop = start + int(run["pages"])
        return min(max(start, 0), self._wanted), min(max(stop, 0), self._wanted)

    def check_all_there(self, runs: Rows, pid: int) -> None:
        """Raise ``NotCapturedError`` unless the bytes of each page are known, and not outdated."""
        unknown = np.flatnonzero(~self._known)
        gap = int(unknown[0]) if len(unknown) else len(self.rows)
        if gap < self._wanted:
            page = self._first + gap * PAGE_SIZE
            covering = runs["reason"][_covers(runs, page)].tolist() if page < ADDRESS_END else []
            raise _not_captured(pid, page, covering[-1] if covering else None)
        shown = self._latest[self.rows[self.rows >= 0]]
        for row in shown[shown["missing"] != 0][:1]:
            raise _not_captured(pid, int(row["address"]), int(row["missing"]))
        for run in runs:
            start, stop = self._clip(run)
            stale = np.flatnonzero(self._ordinals[start:stop] < run["ordinal"])
            if len(stale):
                number = start + int(stale[0])
                error = _not_captured(pid, self._first + number * PAGE_SIZE, int(run["reason"]))
                row = int(self.rows[number])
                if row < 0:
                    raise error
                raise NotCapturedError(
                    f"{error}; it was last captured at {int(self._latest[row]['timestamp_ns'])} ns"
                )


def _covers(runs: Rows, page: int) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = (runs["address"] <= page) & (page - runs["address"] < runs["pages"] * PAGE_SIZE)
    return mask


def _not_captured(pid: int, page: int, reason: int | None) -> NotCapturedError:
    because = "" if reason is None else f" because {missing_reason(reason).sentence}"
    return NotCapturedError(f"the page at {page:#x} of process {pid} is not in the capture{because}")

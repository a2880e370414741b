"""What the terminal interface shows: a growing capture, asked again and again.

The recording knows nothing of this: it is another process, which writes the file that is read here.
Only the regions that changed since the last look are decoded, and so many are kept.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..analyze.processes import Identity, command_text, describe_wait_status, identity, process_tree
from ..analyze.regions import RegionHistory
from ..capture.reader import Capture
from ..errors import Error, NotCapturedError
from ..model import ADDRESS_END, PAGE_SIZE, Process
from ..report.text import describe_loss
from ..show.disassembly import for_capture
from ..show.hexdump import hexdump
from ..terminal import clean, format_count, format_size

#: Regions and processes that are kept and shown: the latest.
REGIONS_KEPT = 500
PROCESSES_KEPT = 200
#: Pages of a region that are shown.
PAGES_SHOWN = 16
#: Rows of events and pages after which no more are taken in: the index is held in memory. What a file has
#: when it is opened is taken in whole.
ROW_LIMIT = 4_000_000
#: Records of different CPUs arrive out of order, by far less than this.
_OVERLAP_NS = 10**9
#: Characters of names and command lines that are kept.
_TEXT_LIMIT = 200

#: The state of a capture that may grow; all others are final.
_RECORDING = "RECORDING"

RegionKey = tuple[Identity, int, int]


def region_key(history: RegionHistory) -> RegionKey:
    """Return what tells one region of a capture from another."""
    return identity(history.pid, history.process_start_ns), history.region.start, history.region.length


@dataclass(frozen=True, slots=True)
class ProcessLine:
    """One process: its PID, its name indented by its depth in the tree, its command line, its state."""

    pid: int
    comm: str
    words: str
    state: str


@dataclass(frozen=True, slots=True)
class Summary:
    """One look at the capture. Texts are clean; rates are per second since the look before."""

    state: str
    finished: bool
    events: int
    pages: int
    event_rate: float
    page_rate: float
    stored_bytes: int
    losses: tuple[str, ...]
    processes: tuple[ProcessLine, ...]
    process_count: int
    regions: tuple[RegionHistory, ...]
    regions_dropped: int


class Watch:
    """Looks at the capture at ``path``; may be used from several threads."""

    def __init__(self, path: Path, row_limit: int = ROW_LIMIT) -> None:
        """Open the capture. Raises ``CaptureError``."""
        self._capture = Capture(path)
        self._row_limit = row_limit
        self._lock = threading.Lock()
        self._regions: dict[RegionKey, RegionHistory] = {}
        self._dropped = 0
        self._seen_ns: int | None = None
        self._last: tuple[float, int, int] | None = None

    def close(self) -> None:
        """Close the capture."""
        with self._lock:
            self._capture.close()

    def look(self) -> Summary:
        """Take in what was appended since the last look, and return what is known now."""
        with self._lock:
            capture = self._capture
            full = len(capture.index.events) + len(capture.index.pages) > self._row_limit
            grown = not full and capture.refresh()
            if grown or self._last is None:
                self._take_regions()
            event_rate, page_rate = self._rates()
            processes = capture.processes
            state = self._state(full)
            return Summary(
                state,
                state != _RECORDING,
                capture.event_count,
                capture.page_count,
                event_rate,
                page_rate,
                capture.stored_bytes,
                tuple(self._losses(growing=grown)),
                tuple(_process_lines(processes[-PROCESSES_KEPT:])),
                len(processes),
                tuple(sorted(self._regions.values(), key=lambda history: -history.first_ns)),
                self._dropped,
            )

    def _state(self, full: bool) -> str:
        if self._capture.end is not None:
            return "FINISHED"
        if full:
            return "TOO LARGE TO FOLLOW"
        return "RECORDER GONE" if self._capture.recording is False else _RECORDING

    def _take_regions(self) -> None:
        events = self._capture.relations.events
        since = None if self._seen_ns is None else max(0, self._seen_ns - _OVERLAP_NS)
        for history in self._capture.regions(since_ns=since):
            key = region_key(history)
            self._regions.pop(key, None)  # the ones that changed last stand last
            self._regions[key] = history
        while len(self._regions) > REGIONS_KEPT:
            del self._regions[next(iter(self._regions))]
            self._dropped += 1
        if len(events):
            self._seen_ns = int(events["timestamp_ns"].max())

    def _rates(self) -> tuple[float, float]:
        now = time.monotonic(), self._capture.event_count, self._capture.page_count
        before, self._last = self._last, now
        if before is None or now[0] <= before[0]:
            return 0.0, 0.0
        seconds = now[0] - before[0]
        return (now[1] - before[1]) / seconds, (now[2] - before[2]) / seconds

    def _losses(self, *, growing: bool) -> Iterator[str]:
        for loss in self._capture.losses:
            # Of an open recording this is no news, nor is a chunk that is just being written.
            gone = self._capture.recording is False
            if (loss.reason == "not-closed" and not gone) or (loss.reason == "truncated" and growing):
                continue
            yield describe_loss(loss)

    def lines(self, history: RegionHistory, *, instructions: bool) -> list[str]:
        """Return the last known bytes of a region's first pages as lines of at most 79 characters.

        Pages that are not in the capture, and what keeps instructions from being shown, are lines too.
        """
        with self._lock:
            try:
                return list(self._lines(history, instructions))
            except Error as error:
                return [clean(str(error))]

    def _lines(self, history: RegionHistory, instructions: bool) -> Iterator[str]:
        region = history.region
        start = region.start // PAGE_SIZE * PAGE_SIZE
        end = min(region.end, ADDRESS_END, start + PAGES_SHOWN * PAGE_SIZE)
        decoder = for_capture(self._capture, history, None) if instructions else None
        for address in range(start, end, PAGE_SIZE):
            try:
                content = self._capture.read(history.pid, address, PAGE_SIZE)
            except NotCapturedError:
                yield f"{address:012x} this page's bytes are not in the capture"
                continue
            if decoder is not None:
                yield from (line.removeprefix("0x") for line in decoder.lines(content, address))
                continue
            for line in hexdump(content, address):
                # Without the prefix and the double gaps it fits 80 columns.
                yield line if line == "*" else line.removeprefix("0x").replace("  ", " ", 3)
        if region.end > end:
            rest = format_size(region.end - end)
            path = shlex.quote(clean(str(self._capture.path)))
            yield f"and {rest} more: memory-tracer show {path} {end:#x}"


def _process_lines(processes: tuple[Process, ...]) -> Iterator[ProcessLine]:
    for depth, process in process_tree(processes):
        words = command_text(process)
        if process.wait_status is not None:
            state = describe_wait_status(process.wait_status)
        else:
            state = "running" if process.ended_ns is None else "ended"
        yield ProcessLine(
            process.pid, "  " * min(depth, 4) + clean(process.comm), clean(words, _TEXT_LIMIT), state
        )


def describe_counts(summary: Summary) -> str:
    """Return what was recorded and how fast, as one line."""
    return (
        f"{format_count(summary.process_count, 'process', 'processes')}, "
        f"{format_count(summary.events, 'event')} (+{summary.event_rate:,.0f}/s), "
        f"{format_count(summary.pages, 'page')} (+{summary.page_rate:,.0f}/s), "
        f"{format_size(summary.stored_bytes)}"
    )

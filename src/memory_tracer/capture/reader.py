"""Read a capture: finished, cut off by a crash, or still growing.

Tables of events and pages are held in memory, page contents are read from the file when asked for.
Every byte that is handed out has been checked against its SHA-256.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from ..analyze.regions import PageColumns, RegionHistory, RunColumns, region_histories
from ..errors import CaptureError
from ..model import PAGE_SIZE, Event, Loss, MissingRun, Page, Process, Region
from ..wire.layout import FLAG_LATE
from .alive import is_held
from .clock import Clock
from .columns import Rows
from .contents import Contents
from .decode import Decoder
from .filters import FilterOptions, Filters
from .frames import Frames
from .index import Index
from .losses import find_losses
from .mappings import Mappings
from .memory import page_generations, read_memory
from .numbering import Numbers
from .processes import list_processes
from .relations import Relations
from .scan import Scanner, open_regular
from .stacks import Stacks
from .texts import Texts


class _State:
    """What is derived from the index; made anew when the index has grown."""

    def __init__(self, index: Index, scanner: Scanner, recording: bool | None) -> None:
        self._index = index
        self._scanner = scanner
        self.recording = recording

    @cached_property
    def relations(self) -> Relations:
        return Relations(self._index)

    @cached_property
    def texts(self) -> Texts:
        return Texts(self._index.texts, self.relations.text_process)

    @cached_property
    def decoder(self) -> Decoder:
        return Decoder(self._index, self.relations, self.texts, Clock(self._index.metadata))

    @cached_property
    def mappings(self) -> Mappings:
        return Mappings(self.relations, self.texts)

    @cached_property
    def ordinals(self) -> NDArray[np.uint64]:
        return np.ascontiguousarray(self.relations.events["ordinal"][: self.relations.recorded_count])

    @cached_property
    def stacks(self) -> Stacks:
        return Stacks(self.relations, self.texts)

    @cached_property
    def processes(self) -> tuple[Process, ...]:
        return list_processes(self.relations, self.decoder, self.texts)

    @cached_property
    def losses(self) -> tuple[Loss, ...]:
        return find_losses(self._index, self.relations, self._scanner, self.recording)


class Capture(Frames):
    """An open capture file; close it, or use it as a context manager.

    ``events``, ``pages`` and ``regions`` take the keyword arguments of ``FilterOptions``, which
    restrict what they return. They raise ``UsageError`` for a range that is empty.
    """

    def __init__(self, path: Path | str) -> None:
        """Open ``path``. Raises ``CaptureError`` when it is not a capture or cannot be read."""
        self.path = Path(path)
        self._descriptor = open_regular(self.path)
        try:
            self._scanner = Scanner(self.path, self._descriptor)
        except CaptureError:
            self.close()
            raise
        self.index = Index(Contents(self._descriptor))
        self.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was returned before stays valid; page contents can no longer be read."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def refresh(self) -> bool:
        """Take in what was appended to the file since; return whether there was anything."""
        held = is_held(self._descriptor)  # before: a recorder that ends meanwhile has written END
        grown = self._scanner.advance(self.index.take)
        self._state = _State(self.index, self._scanner, self._recording(held))
        return grown

    def _recording(self, held: bool | None) -> bool | None:
        if self.index.end is not None:
            return False
        return held if self.index.metadata.get("locked") is True else None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The METADATA chunk; its values come from the file unchecked."""
        return self.index.metadata

    @property
    def counters(self) -> Mapping[str, Mapping[str, int]]:
        """The last COUNTERS chunk, by group and name; empty when there is none."""
        return self.index.counters

    @property
    def end(self) -> Mapping[str, Any] | None:
        """The END chunk; None when the recording was not closed in order."""
        return self.index.end

    @property
    def recording(self) -> bool | None:
        """Whether a recorder was at work on the file at the last ``refresh``; None when that is not known.

        False without ``end``: the recorder was killed, or could not go on. A copy of a file that is still
        growing is no longer recorded either.
        """
        return self._state.recording

    @property
    def truncated(self) -> str | None:
        """A sentence that says where and why the file is cut off; None when it is whole."""
        return self._scanner.truncated

    @property
    def page_count(self) -> int:
        """How many pages there are, without runs of missing ones and looks that found nothing new."""
        return len(self.index.pages) - int(np.count_nonzero(self.relations.row_repeats))

    @property
    def event_count(self) -> int:
        """How many events there are, without looks and samples that found nothing new."""
        return len(self.index.events) - int(np.count_nonzero(self.relations.event_is_silent))

    @property
    def unique_pages(self) -> int:
        """How many different page contents are stored."""
        return self.index.contents.different

    @property
    def stored_bytes(self) -> int:
        """Size of the file up to the end of its last whole chunk, in bytes."""
        return self._scanner.position

    @property
    def relations(self) -> Relations:
        """How the rows of ``index`` belong together; for this package's own analyses."""
        return self._state.relations

    @property
    def processes(self) -> tuple[Process, ...]:
        """The processes in order of first appearance."""
        return self._state.processes

    @property
    def losses(self) -> tuple[Loss, ...]:
        """Everything the capture does not show, by reason; empty when nothing is missing."""
        return self._state.losses

    @property
    def complete(self) -> bool:
        """True when nothing is missing and the recording was closed in order."""
        return not self.losses

    @property
    def evidence(self) -> NDArray[np.uint8]:
        """For each row of ``relations`` its ``Evidence``; for this package's own analyses."""
        return self._state.decoder.evidence

    def events(self, **filters: Unpack[FilterOptions]) -> Iterator[Event]:
        """Return the events, by sequence, but for looks and samples that found nothing new."""
        state, count = self._state, self.relations.recorded_count
        chosen = Filters(**filters).accept_events(state.relations.events[:count], state.decoder.path)
        chosen &= ~state.relations.event_is_silent[:count]
        stacks = Stacks(state.relations, state.texts)
        return (state.decoder.event(number, stacks) for number in np.flatnonzero(chosen).tolist())

    def pages(
        self, *, missing: bool = True, executed: bool = False, **filters: Unpack[FilterOptions]
    ) -> Iterator[Page]:
        """Return the pages, by sequence; with ``missing`` also those whose bytes are not there.

        With ``executed`` only those known to have been executed. Each page of a run of missing pages
        is returned on its own, at the sequence of the run.
        """
        conditions, decoder = Filters(**filters), self._state.decoder
        rows = self._chosen_rows(conditions)
        if executed:
            rows = rows[decoder.evidence[rows] != 0]
        if executed or not missing:
            return (page for page in decoder.stored(rows) if page.content is not None)
        return decoder.pages(rows, self._chosen_runs(conditions), conditions.addresses)

    def page_rows(
        self, *, absent: bool = False, **filters: Unpack[FilterOptions]
    ) -> Iterator[Page | MissingRun]:
        """Return what ``pages`` returns, but a run of missing pages as one value.

        A run may have 2^45 pages, so analyses of hostile captures need this; a run is not cut at
        the addresses asked for. With ``absent`` also the runs of pages that were zeros.
        """
        conditions, decoder = Filters(**filters), self._state.decoder
        zeros = self._chosen_zeros(conditions) if absent else np.zeros(0, np.int64)
        return decoder.page_rows(self._chosen_rows(conditions), self._chosen_runs(conditions), zeros)

    def row_numbers(self, **filters: Unpack[FilterOptions]) -> Numbers:
        """Return which rows of ``relations`` are pages the filters accept; for this package's analyses."""
        return self._chosen_rows(Filters(**filters))

    def pages_of_rows(self, numbers: Numbers) -> Iterator[Page]:
        """Return the pages of these rows of ``relations``; for this package's analyses."""
        return self._state.decoder.stored(numbers)

    def missing_runs(self, **filters: Unpack[FilterOptions]) -> Iterator[MissingRun]:
        """Return the runs of missing pages that ``page_rows`` returns, without the pages."""
        runs, none = self._chosen_runs(Filters(**filters)), np.zeros(0, np.int64)
        rows = self._state.decoder.page_rows(none, runs, none)
        return (run for run in rows if isinstance(run, MissingRun))

    def events_at(self, numbers: Numbers) -> Iterator[Event]:
        """Return the events at these places of ``relations``, without stacks; for our own analyses."""
        return map(self._state.decoder.event, numbers.tolist())

    def _chosen_rows(self, conditions: Filters) -> Numbers:
        relations = self.relations
        rows = relations.rows
        chosen = conditions.accept_headers(rows) & ~relations.row_repeats
        chosen &= conditions.accept_causes(relations.events, self._state.decoder.path)[relations.row_event]
        chosen &= conditions.accept_ranges(rows["address"], np.full(len(rows), PAGE_SIZE, np.uint64))
        return np.flatnonzero(chosen)

    def _chosen_runs(self, conditions: Filters) -> Numbers:
        return self._chosen(conditions, self.relations.runs, self.relations.run_event)

    def _chosen_zeros(self, conditions: Filters) -> Numbers:
        # Of zeros whose event is lost nothing is known that matters.
        chosen = self._chosen(conditions, self.relations.zeros, self.relations.zero_event)
        return chosen[self.relations.zero_event[chosen] >= 0]

    def _chosen(self, conditions: Filters, runs: Rows, events: Numbers) -> Numbers:
        chosen = conditions.accept_headers(runs)
        chosen &= conditions.accept_causes(self.relations.events, self._state.decoder.path)[events]
        chosen &= conditions.accept_ranges(runs["address"], runs["pages"] * np.uint64(PAGE_SIZE))
        return np.flatnonzero(chosen)

    def regions(self, **filters: Unpack[FilterOptions]) -> list[RegionHistory]:
        """Return the regions that were or became executable and have an event the filters accept."""
        relations, decoder = self.relations, self._state.decoder
        rows, runs = relations.rows, relations.runs
        return region_histories(
            relations.events,
            relations.event_process,
            Filters(**filters).accept_events(relations.events, decoder.path),
            relations.event_is_silent,
            PageColumns(
                relations.row_event,
                rows["address"],
                rows["content"],
                relations.generations,
                (rows["flags"] & FLAG_LATE) != 0,
                decoder.evidence,
            ),
            RunColumns(relations.run_event, runs["address"], runs["pages"]),
            decoder.event,
        )

    def stack_at(self, sequence: int) -> tuple[int, ...]:
        """Return the stack of the event numbered ``sequence``; empty where it is not known.

        Asking in order of sequence is fastest.
        """
        ordinals = self._state.ordinals
        number = int(np.searchsorted(ordinals, np.uint64(sequence)))  # of an int it would copy all of them
        return self._state.stacks.of(number) if ordinals[number : number + 1] == [sequence] else ()

    def mapping_at(self, sequence: int, address: int) -> Region | None:
        """Return what was mapped at ``address`` in the process of the event numbered ``sequence``.

        None when the capture does not know: it holds the mappings that are or become executable.
        Right before the event; asking in order of sequence is fastest.
        """
        return self._state.mappings.at(sequence, address)

    def mappings_at(self, sequence: int) -> list[Region]:
        """Return all that ``mapping_at`` knows of the process at that moment, by address."""
        return self._state.mappings.all_before(sequence)

    def read(self, pid: int, address: int, size: int, at: int | None = None) -> bytes:
        """Return memory of a process as it was at ``at`` (ns since boot), or last when None.

        ``address`` and ``size`` are in bytes and need not be aligned. Raises ``NotCapturedError``
        when a page's bytes at that time are not in the capture, ``CaptureError`` when they are
        damaged.
        """
        return read_memory(self.relations, self.index.contents, pid, address, size, at)

    def generations(self, pid: int, address: int) -> list[Page]:
        """Return the distinct contents of the page at ``address``, each at its first occurrence."""
        return list(self._state.decoder.stored(page_generations(self.relations, pid, address)))

    def wall_time(self, timestamp_ns: int) -> datetime:
        """Return the UTC of a timestamp (nanoseconds since boot)."""
        return Clock(self.metadata).wall_time(timestamp_ns)


def open_capture(path: Path | str) -> Capture:
    """Open the capture file ``path``. Raises ``CaptureError`` when it is none or cannot be read."""
    return Capture(path)

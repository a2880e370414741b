"""A capture as Arrow tables: for Parquet files, and for frames of pandas and Polars.

The columns are those of the JSON objects (docs/json.md), flat; docs/tables.md lists them. Tables are made
in batches, so that a capture of any length fits; pyarrow (``pip install memory-tracer[parquet]``) is
imported when the first is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..model import PAGE_SIZE, Event, Evidence, Process, Region, Status
from ..wire.layout import FLAG_FETCHED, FLAG_LATE
from .clock import Clock
from .decode import missing_reason
from .format import DIGEST_BYTES, NO_CONTENT
from .schemas import REGION, WHEN, WHO, arrow, schema

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from .filters import FilterOptions
    from .reader import Capture

#: Rows of a batch; fewer where rows have contents.
_BATCH = 1 << 15
_CONTENT_BATCH = 1 << 10


def batches(capture: Capture, table: str, filters: FilterOptions) -> Iterator[Any]:
    """Yield ``table`` of ``capture`` as Arrow record batches, of what ``filters`` accept."""
    columns = schema(table)
    if table == "pages":
        return _page_batches(capture, filters, columns)
    if table == "contents":
        return _content_batches(capture, filters, columns)
    rows: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
        "events": lambda: map(_event, capture.events(**filters)),
        "missing": lambda: _runs(capture, filters),
        "regions": lambda: map(_history, capture.regions(**filters)),
        "processes": lambda: map(_process, capture.processes),
    }
    return _from_rows(rows[table](), columns)


def _from_rows(rows: Iterable[dict[str, Any]], columns: Any) -> Iterator[Any]:
    pa, remaining = arrow(), iter(rows)
    while block := list(islice(remaining, _BATCH)):
        # Not from_pylist, which does not make dictionaries.
        arrays = [_array(pa, [row[field.name] for row in block], field.type) for field in columns]
        yield pa.record_batch(arrays, schema=columns)


def _array(pa: Any, values: Sequence[Any], of: Any) -> Any:
    if pa.types.is_dictionary(of):
        return pa.array(values, pa.string()).dictionary_encode()
    return pa.array(values, of)


def _page_batches(capture: Capture, filters: FilterOptions, columns: Any) -> Iterator[Any]:
    pa, relations = arrow(), capture.relations
    digests = capture.index.contents.digests()
    chosen = capture.row_numbers(**filters)
    evidence = [_flags(Evidence(flags)) for flags in range(int(max(Evidence)) * 2)]
    of_row, clock = capture.evidence, Clock(capture.metadata)
    for start in range(0, len(chosen), _BATCH):
        numbers = chosen[start : start + _BATCH]
        rows = relations.rows[numbers]
        events, which = np.unique(relations.row_event[numbers], return_inverse=True)
        decoded = [_event(event) for event in capture.events_at(events)]
        regionless = np.array([event["region_start"] is None for event in decoded])[which]
        stored = relations.row_stored[numbers]
        values: dict[str, Any] = {
            name: _spread(pa, [event[name] for event in decoded], which, columns.field(name).type)
            for name in ("comm", "event", "protection", "previous_protection", *dict(REGION))
        }
        values |= {
            "sequence": rows["ordinal"],
            "timestamp_ns": rows["timestamp_ns"],
            "wall_time": pa.array(
                [clock.microseconds(at) for at in rows["timestamp_ns"].tolist()],
                columns.field("wall_time").type,
            ),
            "pid": rows["pid"],
            "tid": rows["tid"],
            "process_start_ns": relations.processes["start_time_ns"][relations.row_process[numbers]],
            "address": rows["address"],
            "generation": relations.generations[numbers].astype(np.uint32),
            "sha256": _hex_digests(pa, digests, rows["content"], stored),
            "missing": _reasons(pa, rows, stored),
            "late": (rows["flags"] & FLAG_LATE) != 0,
            "fetched": (rows["flags"] & FLAG_FETCHED) != 0,
            "evidence": pa.array(evidence, columns.field("evidence").type).take(pa.array(of_row[numbers])),
        }
        if regionless.any():
            values["region_start"] = np.where(regionless, rows["address"], values["region_start"])
            values["region_length"] = np.where(regionless, PAGE_SIZE, values["region_length"])
        arrays = [
            value if isinstance(value, pa.Array) else pa.array(np.ascontiguousarray(value), field.type)
            for field, value in ((field, values[field.name]) for field in columns)
        ]
        yield pa.record_batch(arrays, schema=columns)


def _spread(pa: Any, values: Sequence[Any], which: NDArray[np.int64], of: Any) -> Any:
    """Return one value of ``values`` for each number in ``which``."""
    return _array(pa, values, of).take(pa.array(which))


def _hex_digests(
    pa: Any, digests: NDArray[np.uint8], contents: NDArray[np.uint64], stored: NDArray[np.bool_]
) -> Any:
    raw = digests[np.where(stored, contents, 0).astype(np.int64)] if len(digests) else np.zeros(0, np.uint8)
    text = raw.tobytes().hex()
    width = 2 * DIGEST_BYTES
    return pa.array(
        [text[at * width : (at + 1) * width] if there else None for at, there in enumerate(stored.tolist())],
        pa.string(),
    )


def _reasons(pa: Any, rows: NDArray[np.void], stored: NDArray[np.bool_]) -> Any:
    damaged = ~stored & (rows["content"] != NO_CONTENT)
    words = [
        None if there else "damaged" if wrong else str(missing_reason(reason))
        for there, wrong, reason in zip(
            stored.tolist(), damaged.tolist(), rows["missing"].tolist(), strict=True
        )
    ]
    return pa.array(words, pa.string()).dictionary_encode()


def _content_batches(capture: Capture, filters: FilterOptions, columns: Any) -> Iterator[Any]:
    pa, relations, contents = arrow(), capture.relations, capture.index.contents
    chosen = capture.row_numbers(**filters)
    numbers = np.unique(relations.rows["content"][chosen[relations.row_stored[chosen]]])
    for start in range(0, len(numbers), _CONTENT_BATCH):
        pages = contents.pages(numbers[start : start + _CONTENT_BATCH].tolist())
        whole = [page for page in pages if page is not None]
        texts = [page.digest.hex() for page in whole]
        yield pa.record_batch([pa.array(texts), pa.array([page.content for page in whole])], schema=columns)


def _event(event: Event) -> dict[str, Any]:
    return {
        **_fields(event, *dict(WHEN), *dict(WHO), "result", "succeeded", "caller", "parent_pid", "uid"),
        **_fields(event, "page_count", "coalesced"),
        "comm": _text(event.comm),
        "event": str(event.kind),
        "protection": str(event.protection),
        "previous_protection": _word(event.previous_protection),
        **_region(event.region),
        "status": _flags(event.status),
        "stack": list(event.stack),
    }


def _runs(capture: Capture, filters: FilterOptions) -> Iterator[dict[str, Any]]:
    for run in capture.missing_runs(**filters):
        yield {
            **_fields(run, *dict(WHEN), *dict(WHO), "address", "length"),
            "comm": _text(run.comm),
            "event": str(run.event),
            "missing": str(run.missing),
        }


def _history(history: RegionHistory) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(history)]
    return {
        **_fields(history, *names),
        "comm": _text(history.comm),
        "protection": str(history.protection),
        "events": [str(kind) for kind in history.kinds],
        "evidence": _flags(history.evidence),
        **_region(history.region),
    }


def _process(process: Process) -> dict[str, Any]:
    return {
        **_fields(
            process, "pid", "parent_pid", "uid", "first_seen_ns", "ended_ns", "wait_status", "namespace_pid"
        ),
        "process_start_ns": process.start_time_ns,
        "comm": _text(process.comm),
        "path": _text(process.path),
        "command_line": [_text(word) for word in process.command_line],
    }


def _region(region: Region | None) -> dict[str, Any]:
    device = None if region is None or region.device is None else region.device
    return {
        "region_start": region and region.start,
        "region_length": region and region.length,
        "path": _text(region.path if region else None),
        "device": None if device is None else f"{device >> 20}:{device & 0xFFFFF}",
        "inode": region and region.inode,
        "offset": region and region.offset,
    }


def _fields(value: object, *names: str) -> dict[str, Any]:
    return {name: getattr(value, name) for name in names}


def _flags(flags: Evidence | Status) -> list[str]:
    return [str(flag.name).lower() for flag in flags]


def _word(value: object | None) -> str | None:
    return None if value is None else str(value)


def _text(text: str | None) -> str | None:
    r"""Return ``text`` as Arrow can hold it: bytes that are not UTF-8 as ``\xNN``."""
    if text is None:
        return None
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")

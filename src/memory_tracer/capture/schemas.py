"""The tables a capture can be turned into, and their columns (docs/tables.md)."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError, require

#: Column name and Arrow type, as ``_type`` knows them.
Columns = tuple[tuple[str, str], ...]

WHO: Columns = (("pid", "u32"), ("tid", "u32"), ("process_start_ns", "u64"), ("comm", "name"))
WHEN: Columns = (("sequence", "u64"), ("timestamp_ns", "u64"), ("wall_time", "time"))
REGION: Columns = (
    ("region_start", "u64"),
    ("region_length", "u64"),
    ("path", "name"),
    ("device", "name"),
    ("inode", "u64"),
    ("offset", "u64"),
)

SCHEMAS: dict[str, Columns] = {
    "pages": (
        *WHEN,
        *WHO,
        ("event", "name"),
        ("address", "u64"),
        ("protection", "name"),
        ("previous_protection", "name"),
        ("generation", "u32"),
        ("sha256", "text"),
        ("missing", "name"),
        ("late", "bool"),
        ("fetched", "bool"),
        ("evidence", "names"),
        *REGION,
    ),
    "contents": (("sha256", "text"), ("content", "bytes")),
    "events": (
        *WHEN,
        *WHO,
        ("event", "name"),
        ("result", "i64"),
        ("succeeded", "bool"),
        ("protection", "name"),
        ("previous_protection", "name"),
        *REGION,
        ("status", "names"),
        ("caller", "u64"),
        ("stack", "addresses"),
        ("parent_pid", "u32"),
        ("uid", "u32"),
        ("page_count", "u64"),
        ("coalesced", "u64"),
    ),
    "missing": (*WHEN, *WHO, ("event", "name"), ("address", "u64"), ("length", "u64"), ("missing", "name")),
    "regions": (
        *(column for column in WHO if column[0] != "tid"),
        *REGION,
        ("protection", "name"),
        ("events", "names"),
        ("first_ns", "u64"),
        ("last_ns", "u64"),
        ("flips", "u64"),
        ("generations", "u64"),
        ("pages", "u64"),
        ("content_bytes", "u64"),
        ("missing", "u64"),
        ("caller", "u64"),
        ("rwx", "bool"),
        ("unlinked", "bool"),
        ("shared", "bool"),
        ("open_to_writes", "bool"),
        ("evidence", "names"),
    ),
    "processes": (
        ("pid", "u32"),
        ("process_start_ns", "u64"),
        ("parent_pid", "u32"),
        ("comm", "name"),
        ("path", "name"),
        ("command_line", "names"),
        ("uid", "u32"),
        ("first_seen_ns", "u64"),
        ("ended_ns", "u64"),
        ("wait_status", "i64"),
        ("namespace_pid", "u32"),
    ),
}


def arrow() -> Any:
    """Return the module ``pyarrow``. Raises ``MissingExtraError`` where it is not installed."""
    return require("pyarrow", "tables and Parquet files", "parquet")


def schema(table: str) -> Any:
    """Return the Arrow schema of ``table``. Raises ``UsageError`` when there is no such table."""
    if table not in SCHEMAS:
        raise UsageError(f"there is no table {table!r}; there are {', '.join(SCHEMAS)}")
    pa = arrow()
    return pa.schema([(name, _type(pa, kind)) for name, kind in SCHEMAS[table]])


def _type(pa: Any, kind: str) -> Any:
    text = pa.string()
    return {
        "u32": pa.uint32(),
        "u64": pa.uint64(),
        "i64": pa.int64(),
        "bool": pa.bool_(),
        "text": text,
        "bytes": pa.binary(),
        "name": pa.dictionary(pa.int32(), text),
        "names": pa.list_(text),
        "addresses": pa.list_(pa.uint64()),
        "time": pa.timestamp("us", tz="UTC"),
    }[kind]

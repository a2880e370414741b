"""Events, pages, regions and processes as JSON objects: the keys other programs rely on.

Addresses are strings (``"0x7f00aa550000"``), as are protections (``"r-x"``) and digests; times are
integers in nanoseconds since boot, beside an ISO 8601 ``wall_time`` in UTC; what is not known is
null. ``docs/json.md`` lists the keys. Keys are added, never renamed or removed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..model import Event, Evidence, Loss, MissingRun, Page, Process, Region, Status

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory

Object = dict[str, Any]


def line(value: Mapping[str, Any]) -> str:
    """Return ``value`` as one line of ASCII JSON, newline included."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n"


def event_object(event: Event) -> Object:
    """Return the object of one event (``"type": "event"``)."""
    return {
        "type": "event",
        "sequence": event.sequence,
        "timestamp_ns": event.timestamp_ns,
        "wall_time": event.wall_time.isoformat(),
        "pid": event.pid,
        "tid": event.tid,
        "process_start_ns": event.process_start_ns,
        "comm": event.comm,
        "event": str(event.kind),
        "arguments": [hex(argument) for argument in event.arguments],
        "result": event.result,
        "succeeded": event.succeeded,
        "protection": str(event.protection),
        "previous_protection": _text(event.previous_protection),
        "region": _region(event.region),
        "status": _flags(event.status),
        "caller": _address(event.caller),
        "stack": [hex(address) for address in event.stack],
        "parent_pid": event.parent_pid,
        "uid": event.uid,
        "namespace_pid": event.namespace_pid,
        "page_count": event.page_count,
        "coalesced": event.coalesced,
        "coalesced_since_ns": event.coalesced_since_ns,
        "outcome": None if event.outcome is None else dataclasses.asdict(event.outcome),
        "fault_address": _address(event.fault_address),
        "registers": None if event.registers is None else {n: hex(v) for n, v in event.registers.items()},
    }


def frame_object(address: int, mapping: Region | None) -> Object:
    """Return the object of one frame of a stack: where it is in what was mapped there."""
    return {
        "address": hex(address),
        "offset": None if mapping is None else mapping.offset_of(address),
        "mapping": _region(mapping),
    }


def page_object(page: Page) -> Object:
    """Return the object of one page (``"type": "page"``), without its bytes."""
    return {
        "type": "page",
        "sequence": page.sequence,
        "timestamp_ns": page.timestamp_ns,
        "wall_time": page.wall_time.isoformat(),
        "pid": page.pid,
        "tid": page.tid,
        "process_start_ns": page.process_start_ns,
        "comm": page.comm,
        "event": str(page.event),
        "address": hex(page.address),
        "protection": str(page.protection),
        "previous_protection": _text(page.previous_protection),
        "generation": page.generation,
        "sha256": page.sha256,
        "missing": _text(page.missing),
        "late": page.late,
        "fetched": page.fetched,
        "evidence": _flags(page.evidence),
        "region": _region(page.region),
    }


def missing_object(run: MissingRun) -> Object:
    """Return the object of a run of missing pages (``"type": "missing"``), ``length`` in bytes."""
    return {
        "type": "missing",
        "sequence": run.sequence,
        "timestamp_ns": run.timestamp_ns,
        "wall_time": run.wall_time.isoformat(),
        "pid": run.pid,
        "tid": run.tid,
        "process_start_ns": run.process_start_ns,
        "comm": run.comm,
        "event": str(run.event),
        "address": hex(run.address),
        "length": run.length,
        "missing": str(run.missing),
    }


def region_object(history: RegionHistory) -> Object:
    """Return the object of one region's history (``"type": "region"``)."""
    return {
        "type": "region",
        "pid": history.pid,
        "process_start_ns": history.process_start_ns,
        "comm": history.comm,
        "region": _region(history.region),
        "protection": str(history.protection),
        "events": [str(kind) for kind in history.kinds],
        "first_ns": history.first_ns,
        "last_ns": history.last_ns,
        "flips": history.flips,
        "generations": history.generations,
        "pages": history.pages,
        "content_bytes": history.content_bytes,
        "missing": history.missing,
        "caller": _address(history.caller),
        "rwx": history.rwx,
        "unlinked": history.unlinked,
        "shared": history.shared,
        "caller_event": history.caller_event,
        "open_to_writes": history.open_to_writes,
        "triggers": dataclasses.asdict(history.triggers),
        "evidence": _flags(history.evidence),
    }


def process_object(process: Process) -> Object:
    """Return the object of one process (``"type": "process"``)."""
    return {
        "type": "process",
        "pid": process.pid,
        "process_start_ns": process.start_time_ns,
        "parent_pid": process.parent_pid,
        "comm": process.comm,
        "path": process.path,
        "command_line": list(process.command_line),
        "uid": process.uid,
        "first_seen_ns": process.first_seen_ns,
        "ended_ns": process.ended_ns,
        "wait_status": process.wait_status,
        "namespace_pid": process.namespace_pid,
    }


def loss_object(loss: Loss) -> Object:
    """Return the object of one loss."""
    return dataclasses.asdict(loss)


def _region(region: Region | None) -> Object | None:
    if region is None:
        return None
    return {
        "start": hex(region.start),
        "length": region.length,
        "path": region.path,
        "device": None if region.device is None else f"{region.device >> 20}:{region.device & 0xFFFFF}",
        "inode": region.inode,
        "offset": region.offset,
    }


def _address(address: int | None) -> str | None:
    return None if address is None else hex(address)


def _flags(flags: Evidence | Status) -> list[str]:
    return [str(flag.name).lower() for flag in flags]


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)

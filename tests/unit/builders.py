"""Build wire records in memory, as the kernel program would send them."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memory_tracer.capture.writer import CaptureWriter
from memory_tracer.model import EventKind, Missing, Protection
from memory_tracer.wire.layout import (
    FLAG_LATE,
    PAGE_BYTES,
    RECORDS,
    SEQUENCE_CPU_SHIFT,
    SIZES,
    WIRE_VERSION,
    RecordType,
    TextKind,
    codec,
)
from memory_tracer.wire.split import DISCARD_BIT, Batch, split

PID = 4242
START_NS = 77_123_456_789
BASE = 0x7F00_0000_0000
RX = Protection.READ | Protection.EXEC

METADATA: Mapping[str, Any] = {
    "tool": {"name": "memory-tracer", "version": "0.1.0"},
    "created_ns": 1_700_000_000_000_000_000,
    "clock": {"monotonic_ns": 1_000_000_000, "realtime_ns": 1_700_000_000_000_000_000},
    "host": {"node": "host", "release": "6.12", "version": "#1", "machine": "x86_64", "boot_id": "boot"},
    "command": ["./sample"],
    "targets": [],
    "engine": "ebpf",
    "hook": "tracepoint",
    "page_loop": "iterator",
    "filters": {},
    "ring_bytes": 1 << 20,
}


def page_bytes(seed: int) -> bytes:
    """Return one page whose content is different for each ``seed``."""
    return struct.pack("<Q", seed) * (PAGE_BYTES // 8)


def encode(kind: RecordType, /, **fields: Any) -> bytes:
    """Encode one record; fields not given are zero, ``version``, ``type`` and ``size`` are filled in."""
    fields = {"version": WIRE_VERSION, "type": kind, "size": SIZES[kind], **fields}
    values: list[Any] = []
    for field in RECORDS[kind]:
        if field.count == 1:
            values.append(fields.pop(field.name, b"" if field.code.endswith("s") else 0))
        else:
            given = tuple(fields.pop(field.name, ()))
            values.extend(given + (0,) * (field.count - len(given)))
    if fields:
        raise ValueError(f"no such fields: {sorted(fields)}")
    return codec(RECORDS[kind]).pack(*values)


def in_ring(record: bytes, flags: int = 0) -> bytes:
    """Put the ring buffer's header before ``record``, and pad as the ring does."""
    return struct.pack("<II", len(record) | flags, 0) + record + bytes(-len(record) % 8)


def batch_of(ring: bytes) -> Batch:
    """Split ring buffer bytes into a batch."""
    return split(np.frombuffer(ring, dtype=np.uint8))


class RecordStream:
    """A ring buffer's content: records of one process at a time, numbered per CPU like the kernel's."""

    def __init__(self, *, pid: int = PID, start_ns: int = START_NS, comm: bytes = b"sample") -> None:
        self.pid = pid
        self.start_ns = start_ns
        self.comm = comm
        self.now_ns = 2_000_000_000
        self.cpu = 0
        self._sequences: dict[int, int] = defaultdict(int)
        self._ring = bytearray()

    def next_sequence(self) -> int:
        """Take a sequence number of the current CPU; taken without a record it is a loss."""
        self._sequences[self.cpu] += 1
        return self.cpu << SEQUENCE_CPU_SHIFT | self._sequences[self.cpu]

    def record(self, kind: RecordType, /, **fields: Any) -> int:
        """Append a record and return its sequence number."""
        fields = {
            "sequence": self.next_sequence(),
            "timestamp_ns": self.now_ns,
            "start_time_ns": self.start_ns,
            "pid": self.pid,
            "tid": self.pid,
            **fields,
        }
        self._ring += in_ring(encode(kind, **fields))
        return int(fields["sequence"])

    def event(
        self, kind: EventKind = EventKind.MPROTECT, /, address: int = BASE, pages: int = 1, **fields: Any
    ) -> int:
        """Append an event one microsecond after the last; a call makes ``pages`` pages executable."""
        self.now_ns += 1000
        about_region = kind < EventKind.FORK
        given: dict[str, Any] = {"kind": kind, "comm": self.comm}
        if about_region:
            given |= {"address": address, "length": pages * PAGE_BYTES, "page_count": pages, "protection": RX}
        return self.record(RecordType.EVENT, **given | fields)

    def page(
        self, cause: int, content: bytes, address: int = BASE, *, late: bool = False, **fields: Any
    ) -> None:
        """Append one page of event ``cause``."""
        flags = FLAG_LATE if late else 0
        self.record(RecordType.PAGE, cause=cause, address=address, content=content, flags=flags, **fields)

    def missing(
        self, cause: int, reason: Missing, address: int = BASE, pages: int = 1, **fields: Any
    ) -> None:
        """Append a run of missing pages of event ``cause``."""
        self.record(RecordType.MISSING, cause=cause, address=address, pages=pages, reason=reason, **fields)

    def stack(self, cause: int, *frames: int, top: int = 0) -> None:
        """Append the stack at event ``cause``, innermost frame first; ``top`` is the word on top of it."""
        self.record(RecordType.STACK, cause=cause, address=top, count=len(frames), frames=frames)

    def flip(self, *seeds: int, address: int = BASE) -> int:
        """Append an mprotect and the pages it made executable; returns the event's sequence number."""
        cause = self.event(address=address, pages=len(seeds))
        for index, seed in enumerate(seeds):
            self.page(cause, page_bytes(seed), address + index * PAGE_BYTES)
        return cause

    def path(self, device: int, inode: int, path: bytes) -> None:
        """Append a file's path, leaf first as the kernel sends it."""
        text = b"".join(part + b"\0" for part in reversed(path.split(b"/")))
        self._text(TextKind.PATH, text, device=device, inode=inode)

    def command_line(self, *arguments: bytes) -> None:
        """Append the process's command line."""
        self._text(TextKind.COMMAND_LINE, b"".join(argument + b"\0" for argument in arguments))

    def _text(self, kind: TextKind, text: bytes, **fields: Any) -> None:
        self.record(RecordType.TEXT, kind=kind, length=len(text), text=text, **fields)

    def discard(self) -> None:
        """Append a record the kernel program reserved and gave back."""
        self._ring += in_ring(bytes(SIZES[RecordType.PAGE]), DISCARD_BIT)

    def take(self) -> Batch:
        """Return what was appended since the last call."""
        batch = batch_of(bytes(self._ring))
        self._ring.clear()
        return batch


def write_capture(
    path: Path,
    *streams: RecordStream,
    counters: Mapping[str, Mapping[str, int]] | None = None,
    error: str | None = None,
    finish: bool = True,
    size_limit: int | None = None,
) -> Path:
    """Write what the streams hold, a batch each, and close the capture in order unless told otherwise."""
    with CaptureWriter(path, METADATA, size_limit=size_limit) as writer:
        for stream in streams:
            writer.append(stream.take())
        writer.counters(counters or {"kernel": {}, "recorder": {}})
        if finish:
            writer.finish(reason="targets-ended", wait_status=0, error=error)
    return path

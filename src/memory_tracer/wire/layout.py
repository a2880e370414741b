"""The records of ``bpf/memory_tracer.h``, field by field.

This module is the only Python description of the wire: ``struct`` codecs and NumPy types are both
derived from it, and a test compares it with the BTF of the compiled object. It imports nothing
heavy, because the recorder loads it before it attaches.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass

WIRE_VERSION = 1
PAGE_BYTES = 4096
COMM_BYTES = 16
TEXT_BYTES = 512
#: How many addresses a stack record has room for.
STACK_FRAMES = 23
#: How many registers a registers record has room for.
REGISTER_SLOTS = 39

#: Length of the header the ring buffer puts before each record (BPF_RINGBUF_HDR_SZ, linux/bpf.h).
RING_HEADER_BYTES = 8
#: With its ring header every record is a multiple of this, so that content is cache-line aligned.
RECORD_ALIGNMENT = 64

#: A sequence number holds the CPU above these bits and a running number of that CPU below.
SEQUENCE_CPU_SHIFT = 48


class RecordType(enum.IntEnum):
    """``enum record_type``."""

    EVENT = 1
    PAGE = 2
    MISSING = 3
    OUTCOME = 4
    TEXT = 5
    REPEAT = 6
    STACK = 7
    #: Of user space only: the ptrace engine's.
    REGISTERS = 8


class TextKind(enum.IntEnum):
    """``enum text_kind``."""

    PATH = 1
    COMMAND_LINE = 2


FLAG_LATE = 1 << 0
FLAG_PHYSICAL = 1 << 1
FLAG_FETCHED = 1 << 2
FLAG_FOLLOWS = 1 << 3


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field: its name, a ``struct`` format character or ``Ns``, and how many of them."""

    name: str
    code: str
    count: int = 1


HEADER: tuple[FieldSpec, ...] = (
    FieldSpec("version", "B"),
    FieldSpec("type", "B"),
    FieldSpec("flags", "H"),
    FieldSpec("size", "I"),
    FieldSpec("sequence", "Q"),
    FieldSpec("timestamp_ns", "Q"),
    FieldSpec("start_time_ns", "Q"),
    FieldSpec("pid", "I"),
    FieldSpec("tid", "I"),
    FieldSpec("cause", "Q"),
    FieldSpec("address", "Q"),
)

EVENT: tuple[FieldSpec, ...] = (
    *HEADER,
    FieldSpec("kind", "I"),
    FieldSpec("status", "I"),
    FieldSpec("result", "q"),
    FieldSpec("arguments", "Q", 6),
    FieldSpec("length", "Q"),
    FieldSpec("protection", "I"),
    FieldSpec("previous_protection", "I"),
    FieldSpec("mapping_flags", "Q"),
    FieldSpec("inode", "Q"),
    FieldSpec("file_offset", "Q"),
    FieldSpec("device", "I"),
    FieldSpec("page_count", "I"),
    FieldSpec("caller_ip", "Q"),
    FieldSpec("caller_sp", "Q"),
    FieldSpec("parent_pid", "I"),
    FieldSpec("uid", "I"),
    FieldSpec("namespace_pid", "I"),
    FieldSpec("namespace_tid", "I"),
    FieldSpec("cgroup_id", "Q"),
    FieldSpec("coalesced", "Q"),
    FieldSpec("coalesced_since_ns", "Q"),
    FieldSpec("comm", f"{COMM_BYTES}s"),
    FieldSpec("reserved", "Q"),
)

PAGE: tuple[FieldSpec, ...] = (*HEADER, FieldSpec("content", f"{PAGE_BYTES}s"))

MISSING: tuple[FieldSpec, ...] = (
    *HEADER,
    FieldSpec("pages", "Q"),
    FieldSpec("reason", "I"),
    FieldSpec("reserved0", "I"),
    FieldSpec("reserved", "Q", 6),
)

REPEAT: tuple[FieldSpec, ...] = (
    *HEADER,
    FieldSpec("pages", "Q"),
    FieldSpec("source", "Q"),
    FieldSpec("reserved", "Q", 6),
)

STACK: tuple[FieldSpec, ...] = (
    *HEADER,
    FieldSpec("count", "I"),
    FieldSpec("reserved0", "I"),
    FieldSpec("frames", "Q", STACK_FRAMES),
)

#: The thread's registers at event ``cause``. Which they are, says ``wire.registers`` for each ``machine``.
REGISTERS: tuple[FieldSpec, ...] = (
    *HEADER,
    FieldSpec("machine", "I"),
    FieldSpec("count", "I"),
    FieldSpec("values", "Q", REGISTER_SLOTS),
)

#: The counts of an outcome record, in order; ``model.Outcome`` has the same names.
OUTCOME_COUNTS = (
    "captured",
    "unchanged",
    "absent",
    "in_file",
    "not_present",
    "unreadable",
    "swapped",
    "deferred",
    "lost",
)

OUTCOME: tuple[FieldSpec, ...] = (
    *HEADER,
    *(FieldSpec(name, "I") for name in OUTCOME_COUNTS),
    FieldSpec("reserved0", "I"),
    FieldSpec("reserved", "Q", 3),
)

TEXT: tuple[FieldSpec, ...] = (
    *HEADER,
    FieldSpec("kind", "I"),
    FieldSpec("length", "I"),
    FieldSpec("inode", "Q"),
    FieldSpec("device", "I"),
    FieldSpec("reserved0", "I"),
    FieldSpec("reserved", "Q", 5),
    FieldSpec("text", f"{TEXT_BYTES}s"),
)

RECORDS: dict[RecordType, tuple[FieldSpec, ...]] = {
    RecordType.EVENT: EVENT,
    RecordType.PAGE: PAGE,
    RecordType.MISSING: MISSING,
    RecordType.OUTCOME: OUTCOME,
    RecordType.TEXT: TEXT,
    RecordType.REPEAT: REPEAT,
    RecordType.STACK: STACK,
    RecordType.REGISTERS: REGISTERS,
}


def codec(fields: tuple[FieldSpec, ...]) -> struct.Struct:
    """Return the little-endian, unpadded ``struct`` codec of ``fields``."""
    return struct.Struct("<" + "".join(f.code if f.count == 1 else f"{f.count}{f.code}" for f in fields))


def field_offsets(fields: tuple[FieldSpec, ...]) -> dict[str, tuple[int, int]]:
    """Where each field starts and how long it is, in bytes."""
    offsets, position = {}, 0
    for spec in fields:
        size = codec((spec,)).size
        offsets[spec.name] = (position, size)
        position += size
    return offsets


FIELD_OFFSETS = {kind: field_offsets(fields) for kind, fields in RECORDS.items()}

HEADER_CODEC = codec(HEADER)
HEADER_BYTES = HEADER_CODEC.size
SIZES: dict[RecordType, int] = {kind: codec(fields).size for kind, fields in RECORDS.items()}

#: Kernel counters in the order of ``enum counter``.
COUNTERS = (
    "events",
    "pages",
    "unchanged",
    "absent",
    "in_file",
    "not_present",
    "unreadable",
    "swapped",
    "deferred",
    "coalesced",
    "lost_events",
    "lost_pages",
    "lost_missing",
    "lost_outcomes",
    "lost_texts",
    "arguments_full",
    "targets_full",
    "unpaired",
    "mapping_unknown",
    "unlisted",
    "missed_looks",
    "samples",
    "skipped",
    "lost_stacks",
    "waits",
)

#: Counters that mean something is not in the capture, with their unit and what to do about it.
LOSS_COUNTERS = {
    "lost_events": ("events", "the ring buffer was full; a larger --ring-size helps"),
    "lost_pages": ("pages", "the ring buffer was full; a larger --ring-size helps"),
    "lost_missing": ("records", "the ring buffer was full; a larger --ring-size helps"),
    "lost_outcomes": ("records", "the ring buffer was full; a larger --ring-size helps"),
    "lost_texts": ("paths", "the ring buffer was full; a larger --ring-size helps"),
    "lost_stacks": ("call stacks", "the ring buffer was full; a larger --ring-size helps"),
    "arguments_full": ("calls", "more calls were in flight than the kernel map holds"),
    "skipped": (
        "calls",
        "their region is so large and changes so often that it was not looked at; --exact helps",
    ),
    "unlisted": (
        "occasions",
        "a process had more executable mappings than are looked at on one occasion",
    ),
    "missed_looks": (
        "looks",
        "another thread was changing the address space when memory was about to go away or change",
    ),
    "targets_full": ("processes", "more processes were traced than the kernel map holds"),
}

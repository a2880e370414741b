"""Records made by user space: what was executable at attach, pages read late, all that ptrace sees.

They have the kernel's layout, ring header included, so that they take the same way into the
capture. Their sequence numbers carry a CPU that does not exist.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .layout import (
    FLAG_LATE,
    HEADER,
    HEADER_CODEC,
    OUTCOME_COUNTS,
    RECORDS,
    REGISTER_SLOTS,
    SEQUENCE_CPU_SHIFT,
    SIZES,
    STACK_FRAMES,
    TEXT_BYTES,
    WIRE_VERSION,
    FieldSpec,
    RecordType,
    TextKind,
    codec,
)

USER_SPACE_CPU = 0xFFFF

#: Of a field; several numbers where it has several.
Value = int | bytes | tuple[int, ...]

_RING_HEADER = struct.Struct("<II")
_CODECS = {
    kind: codec(RECORDS[kind])
    for kind in (
        *(RecordType.EVENT, RecordType.MISSING, RecordType.OUTCOME, RecordType.TEXT, RecordType.STACK),
        RecordType.REGISTERS,
    )
}


def _default(spec: FieldSpec) -> Value:
    if spec.code.endswith("s"):
        return b""
    return 0 if spec.count == 1 else (0,) * spec.count


#: For each kind of record the names of its fields after the header, and what they are unless given.
_BODIES = {
    kind: ([spec.name for spec in fields], [_default(spec) for spec in fields])
    for kind, fields in ((kind, RECORDS[kind][len(HEADER) :]) for kind in _CODECS)
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a record is about: the process, the thread, the moment (nanoseconds since boot)."""

    pid: int
    tid: int
    start_time_ns: int
    timestamp_ns: int


@dataclass(slots=True)
class Encoder:
    """Encodes records and numbers them.

    ``flags`` are those of pages: they come late, unless the target is stopped while it is read.
    """

    flags: int = FLAG_LATE

    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def _header(
        self, kind: RecordType, who: Identity, address: int, cause: int, flags: int, sequence: int = 0
    ) -> tuple[int, tuple[int, ...]]:
        sequence = sequence or self.number()
        return sequence, (
            WIRE_VERSION,
            kind,
            flags,
            SIZES[kind],
            sequence,
            who.timestamp_ns,
            who.start_time_ns,
            who.pid,
            who.tid,
            cause,
            address,
        )

    def number(self) -> int:
        """Take a sequence number, for an event that is encoded later."""
        return USER_SPACE_CPU << SEQUENCE_CPU_SHIFT | next(self._numbers)

    def event(self, who: Identity, address: int, sequence: int = 0, **fields: Value) -> tuple[int, bytes]:
        """Encode an event; returns its sequence number, by which its pages name it, and the bytes."""
        sequence, header = self._header(RecordType.EVENT, who, address, 0, 0, sequence)
        return sequence, _pack(RecordType.EVENT, header, fields)

    def page(self, who: Identity, address: int, cause: int, content: bytes) -> bytes:
        """Encode one page of bytes that belongs to event ``cause``."""
        _, header = self._header(RecordType.PAGE, who, address, cause, self.flags)
        return _RING_HEADER.pack(SIZES[RecordType.PAGE], 0) + HEADER_CODEC.pack(*header) + content

    def missing(self, who: Identity, address: int, cause: int, pages: int, reason: int) -> bytes:
        """Encode a run of ``pages`` pages without bytes."""
        _, header = self._header(RecordType.MISSING, who, address, cause, self.flags)
        return _pack(RecordType.MISSING, header, {"pages": pages, "reason": reason})

    def outcome(self, who: Identity, address: int, cause: int, **counts: int) -> bytes:
        """Encode what became of pages that no other record of user space tells about."""
        assert set(counts) <= set(OUTCOME_COUNTS)
        _, header = self._header(RecordType.OUTCOME, who, address, cause, self.flags)
        return _pack(RecordType.OUTCOME, header, counts)

    def stack(self, who: Identity, cause: int, top: int, frames: Sequence[int]) -> bytes:
        """Encode the addresses that lead to event ``cause``; ``top`` is the word on top of the stack."""
        _, header = self._header(RecordType.STACK, who, top, cause, 0)
        shown = tuple(frames[:STACK_FRAMES])
        values = (*header, len(shown), 0, *shown, *(0,) * (STACK_FRAMES - len(shown)))
        return _RING_HEADER.pack(SIZES[RecordType.STACK], 0) + _CODECS[RecordType.STACK].pack(*values)

    def registers(self, who: Identity, cause: int, machine: int, raw: bytes) -> bytes:
        """Encode the registers at event ``cause``, as ptrace returned them."""
        _, header = self._header(RecordType.REGISTERS, who, 0, cause, 0)
        values = struct.unpack(f"<{len(raw) // 8}Q", raw)
        padded = (*header, machine, len(values), *values, *(0,) * (REGISTER_SLOTS - len(values)))
        return _RING_HEADER.pack(SIZES[RecordType.REGISTERS], 0) + _CODECS[RecordType.REGISTERS].pack(*padded)

    def path(self, who: Identity, device: int, inode: int, path: bytes) -> bytes:
        """Encode the path of a file, as the kernel does: components from the leaf up, NUL-terminated."""
        text = b"".join(part + b"\0" for part in reversed(path.split(b"/")))[:TEXT_BYTES]
        _, header = self._header(RecordType.TEXT, who, 0, 0, 0)
        return _pack(
            RecordType.TEXT,
            header,
            {"kind": TextKind.PATH, "length": len(text), "inode": inode, "device": device, "text": text},
        )

    def command_line(self, who: Identity, arguments: bytes) -> bytes:
        """Encode a process's NUL-separated arguments."""
        text = arguments[:TEXT_BYTES]
        _, header = self._header(RecordType.TEXT, who, 0, 0, 0)
        return _pack(
            RecordType.TEXT, header, {"kind": TextKind.COMMAND_LINE, "length": len(text), "text": text}
        )


def _pack(
    kind: RecordType,
    header: tuple[int, ...],
    fields: Mapping[str, Value],
) -> bytes:
    names, defaults = _BODIES[kind]
    values: list[Value] = [*header]
    for value in map(fields.get, names, defaults):
        if isinstance(value, tuple):
            values += value
        else:
            values.append(value)
    return _RING_HEADER.pack(SIZES[kind], 0) + _CODECS[kind].pack(*values)

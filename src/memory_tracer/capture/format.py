"""The capture file's headers and chunk types, as docs/file-format.md describes them.

Everything the writer and the reader must agree on is here, without NumPy; ``columns`` derives the
NumPy types from it.
"""

from __future__ import annotations

import enum
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CaptureError
from ..wire.layout import HEADER, PAGE_BYTES, FieldSpec

FORMAT_VERSION = 1
FILE_MAGIC = b"\x89MTRACE\n"
CHUNK_MAGIC = b"MTCK"
CAPTURE_ID_BYTES = 16
DIGEST_BYTES = 32

#: File header and chunk header have this size, and payloads are padded to a multiple of it.
ALIGNMENT = 64
#: Payloads other than CONTENT are held in memory, so their size is limited.
MAX_INDEX_PAYLOAD = 64 << 20
#: No more pages are in an UNSORTED chunk, which a reader has to look into when it opens the file.
MAX_UNSORTED_PAGES = 4096
#: A digest that starts with so many zeros is provisional.
PROVISIONAL = bytes(24)
#: Content number of a page whose bytes are not stored.
NO_CONTENT = (1 << 64) - 1
#: No ordinal is greater.
LAST_ORDINAL = (1 << 64) - 1

#: Version, page size, capture id; then zeros and the CRC-32 of all before it.
_FILE_HEADER = struct.Struct("<8sII16s28x")
#: Magic, type, flags, payload length, count, first, capture id, payload CRC-32; likewise.
_CHUNK_HEADER = struct.Struct("<4sHHQQQ16sI8x")
_CRC = struct.Struct("<I")


class ChunkType(enum.IntEnum):
    """What a chunk's payload holds."""

    METADATA = 1
    RECORDS = 2
    CONTENT = 3
    PAGES = 4
    COUNTERS = 5
    END = 6
    PADDING = 7


#: Flag of a CONTENT chunk: its pages may equal each other or others, and digests may be provisional.
UNSORTED = 1


#: A row of a PAGES chunk.
PAGE_ROW: tuple[FieldSpec, ...] = (
    FieldSpec("ordinal", "Q"),
    *HEADER,
    FieldSpec("content", "Q"),
    FieldSpec("missing", "I"),
    FieldSpec("reserved", "I"),
)


class ChunkDamageError(CaptureError):
    """A chunk is not whole or not right; the message completes "because ..."."""


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """The fields of a chunk header that vary."""

    type: int
    length: int
    count: int
    first: int
    crc: int
    flags: int = 0


def padding(length: int) -> int:
    """Return how many zero bytes follow a payload of ``length`` bytes."""
    return -length % ALIGNMENT


def encode_file_header(capture_id: bytes) -> bytes:
    """Return the 64 bytes a capture starts with."""
    return _sealed(_FILE_HEADER.pack(FILE_MAGIC, FORMAT_VERSION, PAGE_BYTES, capture_id))


def decode_file_header(data: bytes) -> bytes:
    """Return the capture id. Raise ``CaptureError`` saying why ``data`` starts no readable capture."""
    if not data:
        raise CaptureError("it is empty")
    if not data.startswith(FILE_MAGIC[: len(data)]):
        raise CaptureError("it does not start like a capture")
    if len(data) < ALIGNMENT:
        raise CaptureError(f"it ends inside the file header, after {len(data)} bytes")
    _, version, page_size, capture_id = _FILE_HEADER.unpack_from(data)
    if not _is_sealed(data):
        raise CaptureError("its file header is damaged")
    if version > FORMAT_VERSION:
        raise CaptureError(
            f"it has format version {version} and this memory-tracer reads up to version "
            f"{FORMAT_VERSION}; open it with a newer memory-tracer"
        )
    if version < 1 or page_size != PAGE_BYTES:
        raise CaptureError(f"its file header asks for version {version} with pages of {page_size} bytes")
    return bytes(capture_id)


def encode_chunk_header(header: ChunkHeader, capture_id: bytes) -> bytes:
    """Return the 64 bytes that precede a payload."""
    return _sealed(
        _CHUNK_HEADER.pack(
            CHUNK_MAGIC,
            header.type,
            header.flags,
            header.length,
            header.count,
            header.first,
            capture_id,
            header.crc,
        )
    )


def decode_chunk_header(data: bytes, capture_id: bytes) -> ChunkHeader:
    """Return the chunk header in ``data``. Raise ``ChunkDamageError`` unless it is one of this capture."""
    if len(data) < ALIGNMENT:
        raise ChunkDamageError("the chunk header is not whole")
    magic, kind, flags, length, count, first, owner, crc = _CHUNK_HEADER.unpack_from(data)
    if magic != CHUNK_MAGIC or not _is_sealed(data):
        raise ChunkDamageError("the chunk header is damaged")
    if owner != capture_id:
        raise ChunkDamageError("the chunk belongs to another capture")
    return ChunkHeader(kind, length, count, first, crc, flags)


def encode_object(value: Mapping[str, Any]) -> bytes:
    """Return the payload of a METADATA, COUNTERS or END chunk."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def decode_object(payload: bytes) -> dict[str, Any]:
    """Return the JSON object in ``payload``. Raise ``ChunkDamageError`` when it is anything else."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ChunkDamageError("the chunk does not hold JSON") from error
    if not isinstance(value, dict):
        raise ChunkDamageError("the chunk does not hold a JSON object")
    return value


def _sealed(header: bytes) -> bytes:
    return header + _CRC.pack(zlib.crc32(header))


def _is_sealed(data: bytes) -> bool:
    """Tell whether the 64-byte header at the start of ``data`` ends in the CRC of what precedes."""
    crc_at = ALIGNMENT - _CRC.size
    (crc,) = _CRC.unpack_from(data, crc_at)
    return bool(crc == zlib.crc32(data[:crc_at]))

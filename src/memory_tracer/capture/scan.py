"""Walk through a capture's chunks, as far as they are whole.

The file is read with pread and never mapped: a mapped file that another process cuts short would
end us with SIGBUS.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import CaptureError
from ..wire.layout import PAGE_BYTES
from .format import (
    ALIGNMENT,
    DIGEST_BYTES,
    MAX_INDEX_PAYLOAD,
    ChunkDamageError,
    ChunkHeader,
    ChunkType,
    decode_chunk_header,
    decode_file_header,
    padding,
)


class Chunk(NamedTuple):
    """A whole chunk: its header, where its payload starts, and the payload unless it is CONTENT."""

    header: ChunkHeader
    offset: int
    payload: NDArray[np.uint8]


def open_regular(path: Path) -> int:
    """Open ``path`` for reading and return the file descriptor. Raises ``CaptureError``."""
    try:
        # Without O_NONBLOCK opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CaptureError(f"{path} cannot be opened: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CaptureError(f"{path} is not a capture: it is not a regular file")
    return descriptor


def read_at(descriptor: int, offset: int, length: int) -> NDArray[np.uint8]:
    """Read ``length`` bytes at ``offset``; fewer when the file ends before. Raises ``ChunkDamageError``."""
    buffer = np.empty(length, dtype=np.uint8)
    done = 0
    try:
        while done < length and (count := os.preadv(descriptor, [buffer.data[done:]], offset + done)):
            done += count
    except OSError as error:
        raise ChunkDamageError(f"reading fails: {error.strerror}") from error
    return buffer[:done]


class Scanner:
    """Hands out the chunks of one file in order, and goes on where it stopped when the file grows."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Read the file header. Raises ``CaptureError`` when ``path`` is no capture."""
        self._descriptor = descriptor
        try:
            self._capture_id = decode_file_header(bytes(read_at(descriptor, 0, ALIGNMENT)))
        except CaptureError as error:
            raise CaptureError(f"{path} is not a readable capture: {error}") from error
        #: End of the last whole chunk, in bytes.
        self.position = ALIGNMENT
        #: How many bytes lie beyond it, and why they are not readable.
        self.cut_bytes = 0
        self.truncated: str | None = None

    def advance(self, take: Callable[[Chunk], None]) -> bool:
        """Pass each further whole chunk to ``take``; return whether there was one.

        ``take`` may raise ``ChunkDamageError``: the chunk then counts as not right, and the walk ends.
        """
        start = self.position
        size = os.fstat(self._descriptor).st_size
        self.truncated = None
        try:
            while self.position < size:
                chunk = self._chunk_at(self.position, size)
                take(chunk)
                self.position = chunk.offset + chunk.header.length + padding(chunk.header.length)
        except ChunkDamageError as damage:
            self.truncated = f"the file is cut off at byte {self.position} of {size}: {damage}"
        if size < self.position:
            self.truncated = f"the file has shrunk from {self.position} to {size} bytes while it was open"
        self.cut_bytes = abs(size - self.position)
        return self.position > start

    def _chunk_at(self, position: int, size: int) -> Chunk:
        header = decode_chunk_header(bytes(read_at(self._descriptor, position, ALIGNMENT)), self._capture_id)
        offset = position + ALIGNMENT
        if header.length + padding(header.length) > size - offset:
            raise ChunkDamageError("the chunk is not whole")
        if header.type == ChunkType.CONTENT:
            if header.length != header.count * (PAGE_BYTES + DIGEST_BYTES):
                raise ChunkDamageError("the chunk's length does not fit its number of pages")
            return Chunk(header, offset, np.empty(0, dtype=np.uint8))
        if header.length > MAX_INDEX_PAYLOAD:
            raise ChunkDamageError("the chunk is larger than any recorder writes")
        payload = read_at(self._descriptor, offset, header.length)
        if len(payload) < header.length or zlib.crc32(payload.data) != header.crc:
            raise ChunkDamageError("the chunk's payload is damaged")
        return Chunk(header, offset, payload)

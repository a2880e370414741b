"""Write a capture while it is recorded: append-only, readable up to its last whole chunk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
import zlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from ..wire.layout import HEADER_BYTES, PAGE_BYTES, REPEAT, SIZES, RecordType
from ..wire.split import Batch
from .alive import hold
from .columns import dtype_of, every, provisional_digests
from .direct import DIRECT_ALIGNMENT, PIECE_BYTES, Buffer, DirectWriter, Placed, write_at
from .format import (
    ALIGNMENT,
    CAPTURE_ID_BYTES,
    DIGEST_BYTES,
    MAX_UNSORTED_PAGES,
    UNSORTED,
    ChunkHeader,
    ChunkType,
    encode_chunk_header,
    encode_file_header,
    encode_object,
    padding,
)
from .output import open_output
from .pages import KnownPages, NumberedPages, copy_pages
from .rows import last_of_each_cpu, page_rows, repeated_rows

#: Records per write. Bounds the copy of new pages to 64 MiB and keeps index chunks within limits.
RECORDS_PER_WRITE = 16384

_WORD = 8
_REPEAT_TYPE = dtype_of(REPEAT)

#: From so many new pages on they are written past the page cache.
_LEAST_DIRECT = 256
#: So many pages are hashed at once when there is time: about a millisecond's work.
_HASHED_AT_ONCE = 256


class _Progress(NamedTuple):
    """How far the file is: its length, what it holds, and what the next batch can refer to."""

    end: int = 0
    records: int = 0
    pages: int = 0
    contents: int = 0
    limited_pages: int = 0
    #: Sequence and content number of the last page of each CPU: runs in the next batch may repeat it.
    last_pages: Mapping[int, tuple[int, int]] = MappingProxyType({})


class _Unhashed(NamedTuple):
    """Pages with provisional digests: the number of the first, how many, where they and the digests are."""

    first: int
    pages: int
    content_at: int
    digests_at: int


class CaptureWriter:
    """One capture being written. Every method that writes raises ``OutputError`` when it cannot.

    After such an error the file ends with the last whole chunk, and ``finish`` may still be tried. Much
    content is written in the background, so an error can be about what was given before.
    """

    def __init__(
        self,
        path: Path,
        metadata: Mapping[str, Any],
        *,
        force: bool = False,
        size_limit: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Create ``path`` and write ``metadata``.

        ``force`` replaces an existing regular file, ``size_limit`` is in bytes of page content,
        ``owner`` is the (uid, gid) the file shall have. Raises ``OutputError``.
        """
        self.path = path
        #: Of the file when all is written that is under way, and without that.
        self._progress = self._written = _Progress()
        self._known = KnownPages(size_limit)
        self._unhashed: deque[_Unhashed] = deque()
        self._id = secrets.token_bytes(CAPTURE_ID_BYTES)
        self._output = open_output(path, replace=force, owner=owner)
        self._descriptor = self._output.descriptor
        self._direct: DirectWriter[_Progress] = DirectWriter(self._descriptor)
        # Before the first byte: whoever reads of the lock can rely on it.
        described = {**metadata, "locked": hold(self._descriptor)}
        try:
            self._write([encode_file_header(self._id), *self._object_chunk(ChunkType.METADATA, described)])
        except OutputError:
            self.withdraw()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bytes_written(self) -> int:
        """How long the file is, in bytes."""
        return self._progress.end

    @property
    def closed(self) -> bool:
        """Whether nothing can be written any more."""
        return self._descriptor < 0

    @property
    def records(self) -> int:
        """How many records other than pages are in the file."""
        return self._progress.records

    @property
    def pages(self) -> int:
        """How many pages are in the file, with and without their bytes."""
        return self._progress.pages

    @property
    def limited_pages(self) -> int:
        """How many pages are without their bytes because of the size limit."""
        return self._progress.limited_pages

    @property
    def stored_pages(self) -> int:
        """How many pages are stored; equal ones only when they were stored in a hurry."""
        return self._progress.contents

    def append(self, batch: Batch, *, hurry: bool = False) -> None:
        """Write the records of ``batch``, whose buffer may be reused afterwards.

        In a ``hurry`` pages are stored as they come. ``hash_some`` makes up for it.
        """
        for start in range(0, len(batch), RECORDS_PER_WRITE):
            part = slice(start, start + RECORDS_PER_WRITE)
            self._append(batch.data, batch.offsets[part], batch.sizes[part], batch.types[part], hurry)

    def hash_some(self) -> bool:
        """Hash some of the pages that were stored in a hurry; False when there are none."""
        if not self._unhashed:
            return False
        self._flush()
        first, left, content_at, digests_at = self._unhashed[0]
        count = min(left, _HASHED_AT_ONCE)
        piece = self._direct.piece()
        content = piece.data[: count * PAGE_BYTES]
        try:
            self._direct.read(content_at, content)
            digests = [
                hashlib.sha256(content[start : start + PAGE_BYTES]).digest()
                for start in range(0, len(content), PAGE_BYTES)
            ]
            write_at(self._descriptor, Placed(digests_at, (b"".join(digests),)))
        except OSError as error:
            raise OutputError(f"{self.path} could not be completed: {error.strerror}") from error
        finally:
            self._direct.give_back(piece)
        self._known.learn(digests, first)
        self._unhashed.popleft()
        if count < left:
            rest = (content_at + count * PAGE_BYTES, digests_at + count * DIGEST_BYTES)
            self._unhashed.appendleft(_Unhashed(first + count, left - count, *rest))
        return True

    def counters(self, snapshot: Mapping[str, Mapping[str, int]]) -> None:
        """Write the counters as they are now: ``kernel`` and ``recorder``, each by name."""
        self._write(self._object_chunk(ChunkType.COUNTERS, snapshot))

    def finish(self, *, reason: str, wait_status: int | None, error: str | None = None) -> None:
        """Hash what is left, write END, wait for the disk.

        ``wait_status`` is COMMAND's, ``error`` what went wrong.
        """
        while self.hash_some():
            pass
        end = {
            "reason": reason,
            "ended_ns": time.time_ns(),
            "wait_status": wait_status,
            "records": self.records,
            "pages": self.pages,
            "error": error,
        }
        self._write(self._object_chunk(ChunkType.END, end))
        self._flush()
        try:
            os.fdatasync(self._descriptor)
        except OSError as failure:
            raise OutputError(f"{self.path} could not be written out: {failure.strerror}") from failure

    def keep(self) -> None:
        """Remove the file that this one replaces: the recording has begun."""
        self._output.keep()

    def withdraw(self) -> None:
        """Close and remove the file; one that it replaced is back. For a recording that never began."""
        self._output.withdraw()
        self.close()

    def close(self) -> None:
        """Close the file. Without ``finish`` before, readers will say that it was not closed in order."""
        if self._descriptor >= 0:
            self._direct.close()
            self._output.keep()
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        types: NDArray[np.uint8],
        hurry: bool,
    ) -> None:
        """Write a part of a batch, or have it written. The state counts what will be in the file then."""
        is_page = (types == RecordType.PAGE) & (sizes == SIZES[RecordType.PAGE])
        is_repeat = (types == RecordType.REPEAT) & (sizes == SIZES[RecordType.REPEAT])
        is_other = ~(is_page | is_repeat)
        repeats = every(data, _REPEAT_TYPE, _WORD)[offsets[is_repeat] // _WORD]
        counts = np.ones(len(offsets), dtype=np.uint64)
        counts[is_repeat] = repeats["pages"]
        ordinals = np.cumsum(counts) - counts + np.uint64(self.records + self.pages)
        starts = offsets[is_page] + HEADER_BYTES
        stored, contents = self._progress.contents, None
        if hurry and _LEAST_DIRECT <= len(starts) <= MAX_UNSORTED_PAGES:
            contents = self._known.take_all(starts, stored)
        if contents is None:
            contents = self._known.identify(data, starts, stored)
        rows = page_rows(data, offsets[is_page], ordinals[is_page], contents.numbers)
        last_pages = {**self._progress.last_pages, **last_of_each_cpu(rows)}
        if len(repeats):
            numbers = zip(rows["sequence"].tolist(), rows["content"].tolist(), strict=True)
            sources = dict(self._progress.last_pages.values()) | dict(numbers)
            rows = np.concatenate([rows, repeated_rows(repeats, ordinals[is_repeat], sources)])
            rows = rows[np.argsort(rows["ordinal"], kind="stable")]
        progress = self._progress._replace(
            contents=stored + len(contents.starts),
            pages=self._progress.pages + len(rows),
            records=self._progress.records + int(np.count_nonzero(is_other)),
            limited_pages=self._progress.limited_pages + int(np.count_nonzero(rows["missing"])),
            last_pages=last_pages,
        )
        index = [
            *self._records_chunk(data, offsets[is_other], sizes[is_other], ordinals[is_other]),
            *self._rows_chunk(ChunkType.PAGES, rows, len(rows), rows["ordinal"][:1]),
        ]
        if len(contents.starts):
            self._write_content(data, contents, index, progress)
        else:
            self._write(index, progress)
        if contents.digests is not None:
            self._known.learn(contents.digests, stored)

    def _write_content(
        self, data: NDArray[np.uint8], contents: NumberedPages, index: Sequence[Buffer], progress: _Progress
    ) -> None:
        """Write new pages, and ``index`` behind them; past the page cache if there are many."""
        count = len(contents.starts)
        length = count * (PAGE_BYTES + DIGEST_BYTES)
        tail = [bytes(padding(length)), *index]
        size = length + sum(memoryview(buffer).nbytes for buffer in tail)
        directly = count >= _LEAST_DIRECT and size <= PIECE_BYTES - 2 * DIRECT_ALIGNMENT
        if directly:
            self._align()
            piece = self._direct.piece()
            head = self._padding_chunk(DIRECT_ALIGNMENT - ALIGNMENT)
        else:
            piece, head = np.empty(ALIGNMENT + size, dtype=np.uint8), b""
        flags = UNSORTED if contents.digests is None else 0
        header = ChunkHeader(ChunkType.CONTENT, length, count, self._progress.contents, 0, flags)
        content_at = _put(piece, 0, (head, encode_chunk_header(header, self._id)))
        digests_at = content_at + count * PAGE_BYTES
        content = piece[content_at:digests_at]
        copy_pages(data, contents.starts, content)
        digests = provisional_digests(content) if contents.digests is None else b"".join(contents.digests)
        end, start = _put(piece, digests_at, (digests, *tail)), self._progress.end
        if directly:
            end = _put(piece, end, (self._padding_chunk(-end % DIRECT_ALIGNMENT),))
            self._progress = progress._replace(end=start + end)
            self._direct.submit(piece, end, start, self._progress)
        else:
            self._write([piece.data], progress)
        if contents.digests is None:
            first = header.first
            self._unhashed.append(_Unhashed(first, count, start + content_at, start + digests_at))

    def _align(self) -> None:
        """Let a direct write be possible at the end of the file."""
        if self._direct.failed:
            self._flush()
        if room := -self._progress.end % DIRECT_ALIGNMENT:
            self._write([self._padding_chunk(room)])

    def _records_chunk(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        ordinals: NDArray[np.uint64],
    ) -> Sequence[Buffer]:
        """Copy records behind their ordinals, each padded to the alignment."""
        lengths = _WORD + sizes
        strides = lengths + -lengths % ALIGNMENT
        starts = np.cumsum(strides) - strides
        payload = np.zeros(int(strides.sum()) // _WORD, dtype="<u8")
        payload[starts // _WORD] = ordinals
        words = (sizes + _WORD - 1) // _WORD
        within = np.arange(int(words.sum())) - np.repeat(np.cumsum(words) - words, words)
        source = data[: len(data) // _WORD * _WORD].view("<u8")
        payload[np.repeat(starts // _WORD + 1, words) + within] = source[
            np.repeat(offsets // _WORD, words) + within
        ]
        return self._rows_chunk(ChunkType.RECORDS, payload, len(offsets), ordinals[:1])

    def _rows_chunk(
        self, kind: ChunkType, payload: NDArray[Any], count: int, first: NDArray[np.uint64]
    ) -> Sequence[Buffer]:
        if not count:
            return ()
        header = ChunkHeader(
            kind, payload.nbytes, count, int(first[0]), zlib.crc32(payload.view(np.uint8).data)
        )
        return (
            encode_chunk_header(header, self._id),
            payload.view(np.uint8).data,
            bytes(padding(payload.nbytes)),
        )

    def _object_chunk(self, kind: ChunkType, value: Mapping[str, Any]) -> Sequence[Buffer]:
        payload = encode_object(value)
        header = ChunkHeader(kind, len(payload), 1, 0, zlib.crc32(payload))
        return encode_chunk_header(header, self._id), payload, bytes(padding(len(payload)))

    def _padding_chunk(self, room: int) -> bytes:
        """Return a chunk that fills ``room`` bytes, a multiple of the alignment."""
        if not room:
            return b""
        payload = bytes(room - ALIGNMENT)
        header = ChunkHeader(ChunkType.PADDING, len(payload), 1, 0, zlib.crc32(payload))
        return encode_chunk_header(header, self._id) + payload

    def _write(self, buffers: Sequence[Buffer], progress: _Progress | None = None) -> None:
        """Append ``buffers`` whole, or cut the file back to where it was and raise ``OutputError``."""
        end, size = self._progress.end, sum(memoryview(buffer).nbytes for buffer in buffers)
        progress = progress or self._progress
        if size <= PIECE_BYTES - DIRECT_ALIGNMENT and not self._direct.failed and self._direct.busy:
            # Behind what is being written, rather than waiting for it.
            piece = self._direct.piece()
            size = _put(piece, 0, buffers)
            size = _put(piece, size, (self._padding_chunk(-size % DIRECT_ALIGNMENT),))
            self._progress = progress._replace(end=end + size)
            self._direct.submit(piece, size, end, self._progress)
            return
        self._flush()
        try:
            write_at(self._descriptor, Placed(end, buffers))
        except OSError as error:
            raise self._cut_back(error) from error
        self._progress = self._written = progress._replace(end=end + size)

    def _flush(self) -> None:
        """Wait for what is being written, or cut the file back to what was and raise ``OutputError``."""
        progress, failure = self._direct.flush()
        self._written = progress or self._written
        if failure is not None:
            raise self._cut_back(failure) from failure

    def _cut_back(self, error: OSError) -> OutputError:
        """Forget what is not in the file, and return what to raise."""
        self._progress = self._written
        there = self._written.contents
        self._known.forget(there)
        while self._unhashed and self._unhashed[-1].first >= there:
            self._unhashed.pop()
        # If even this fails, what is left is a torn chunk, which readers recognise.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._written.end)
        return OutputError(f"{self.path} could not be written: {error.strerror}")


def _put(piece: NDArray[np.uint8], position: int, buffers: Iterable[Buffer]) -> int:
    """Copy ``buffers`` to ``position`` and on; return where they end."""
    for buffer in buffers:
        source = np.frombuffer(buffer, dtype=np.uint8)
        piece[position : position + len(source)] = source
        position += len(source)
    return position

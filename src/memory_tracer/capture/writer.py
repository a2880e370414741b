"""Write a capture while it is recorded: append-only, readable up to its last whole chunk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError
from ..model import Missing
from ..wire.layout import HEADER_BYTES, PAGE_BYTES, REPEAT, SEQUENCE_CPU_SHIFT, SIZES, RecordType
from ..wire.split import Batch
from .columns import HEADER_NAMES, HEADER_TYPE, PAGE_ROW_TYPE, Rows, dtype_of, every
from .format import (
    ALIGNMENT,
    CAPTURE_ID_BYTES,
    DIGEST_BYTES,
    NO_CONTENT,
    ChunkHeader,
    ChunkType,
    encode_chunk_header,
    encode_file_header,
    encode_object,
    padding,
)
from .output import open_output

#: Records per write. Bounds the copy of new pages to 64 MiB and keeps index chunks within limits.
RECORDS_PER_WRITE = 16384

_WORD = 8
_REPEAT_TYPE = dtype_of(REPEAT)
_PAGE_CONTENT = np.dtype(f"V{PAGE_BYTES}")

#: What writev takes.
_Buffer = bytes | memoryview


class _Contents(NamedTuple):
    """The pages of a batch: their content numbers, and which of them are new."""

    numbers: NDArray[np.uint64]
    new_offsets: list[int]
    new_digests: list[bytes]


class CaptureWriter:
    """One capture being written. Every method that writes raises ``OutputError`` when it cannot.

    After such an error the file ends with the last whole chunk, and ``finish`` may still be tried.
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
        self.bytes_written = 0
        self.records = 0
        self.pages = 0
        self.limited_pages = 0
        self._size_limit = size_limit
        self._numbers: dict[bytes, int] = {}
        #: Sequence and content number of the last page of each CPU: runs in the next batch may repeat it.
        self._last_pages: dict[int, tuple[int, int]] = {}
        self._id = secrets.token_bytes(CAPTURE_ID_BYTES)
        self._output = open_output(path, replace=force, owner=owner)
        self._descriptor = self._output.descriptor
        try:
            self._write([encode_file_header(self._id), *self._object_chunk(ChunkType.METADATA, metadata)])
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
    def unique_pages(self) -> int:
        """How many different pages are stored."""
        return len(self._numbers)

    def append(self, batch: Batch) -> None:
        """Write the records of ``batch``, whose buffer may be reused afterwards."""
        for start in range(0, len(batch), RECORDS_PER_WRITE):
            part = slice(start, start + RECORDS_PER_WRITE)
            self._append(batch.data, batch.offsets[part], batch.sizes[part], batch.types[part])

    def counters(self, snapshot: Mapping[str, Mapping[str, int]]) -> None:
        """Write the counters as they are now: ``kernel`` and ``recorder``, each by name."""
        self._write(self._object_chunk(ChunkType.COUNTERS, snapshot))

    def finish(self, *, reason: str, wait_status: int | None, error: str | None = None) -> None:
        """Write END and wait for the disk. ``wait_status`` is COMMAND's, ``error`` what went wrong."""
        end = {
            "reason": reason,
            "ended_ns": time.time_ns(),
            "wait_status": wait_status,
            "records": self.records,
            "pages": self.pages,
            "error": error,
        }
        self._write(self._object_chunk(ChunkType.END, end))
        try:
            os.fdatasync(self._descriptor)
        except OSError as failure:
            raise OutputError(f"{self.path} could not be written out: {failure.strerror}") from failure

    def withdraw(self) -> None:
        """Close and remove the file; one that it replaced is back. For a recording that never began."""
        self._output.withdraw()
        self.close()

    def close(self) -> None:
        """Close the file. Without ``finish`` before, readers will say that it was not closed in order."""
        if self._descriptor >= 0:
            self._output.keep()
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        types: NDArray[np.uint8],
    ) -> None:
        """Write a part of a batch. The state changes only when all of it is in the file."""
        is_page = (types == RecordType.PAGE) & (sizes == SIZES[RecordType.PAGE])
        is_repeat = (types == RecordType.REPEAT) & (sizes == SIZES[RecordType.REPEAT])
        is_other = ~(is_page | is_repeat)
        repeats = every(data, _REPEAT_TYPE, _WORD)[offsets[is_repeat] // _WORD]
        counts = np.ones(len(offsets), dtype=np.uint64)
        counts[is_repeat] = repeats["pages"]
        ordinals = np.cumsum(counts) - counts + np.uint64(self.records + self.pages)
        contents = self._identify(data, offsets[is_page])
        rows = _page_rows(data, offsets[is_page], ordinals[is_page], contents.numbers)
        last_pages = self._last_pages | _last_of_each_cpu(rows)
        if len(repeats):
            numbers = zip(rows["sequence"].tolist(), rows["content"].tolist(), strict=True)
            sources = dict(self._last_pages.values()) | dict(numbers)
            rows = np.concatenate([rows, _repeated_rows(repeats, ordinals[is_repeat], sources)])
            rows = rows[np.argsort(rows["ordinal"], kind="stable")]
        self._write(
            [
                *self._content_chunk(data, contents),
                *self._records_chunk(data, offsets[is_other], sizes[is_other], ordinals[is_other]),
                *self._rows_chunk(ChunkType.PAGES, rows, len(rows), rows["ordinal"][:1]),
            ]
        )
        first = self.unique_pages
        self._numbers.update(
            zip(contents.new_digests, range(first, first + len(contents.new_digests)), strict=True)
        )
        self.pages += len(rows)
        self.records += int(np.count_nonzero(is_other))
        # Runs of the next batch can refer to the last page of each CPU, but to none before.
        self._last_pages = last_pages
        self.limited_pages += int(np.count_nonzero(rows["missing"]))

    def _identify(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> _Contents:
        """Give each page the number of its content: a known one, a new one, or none beyond the limit."""
        known, new = self._numbers, dict[bytes, int]()
        room = None if self._size_limit is None else self._size_limit // PAGE_BYTES
        view, sha256 = data.data, hashlib.sha256
        numbers: list[int] = []
        new_offsets: list[int] = []
        for start in (offsets + HEADER_BYTES).tolist():
            digest = sha256(view[start : start + PAGE_BYTES]).digest()
            number = known.get(digest)
            if number is None:
                number = new.get(digest)
            if number is None:
                number = len(known) + len(new)
                if room is not None and number >= room:
                    number = NO_CONTENT
                else:
                    new[digest] = number
                    new_offsets.append(start)
            numbers.append(number)
        return _Contents(np.array(numbers, dtype=np.uint64), new_offsets, list(new))

    def _content_chunk(self, data: NDArray[np.uint8], contents: _Contents) -> Sequence[_Buffer]:
        count = len(contents.new_offsets)
        if not count:
            return ()
        # One item per page instead of an index per byte: NumPy then copies page by page.
        words = np.array(contents.new_offsets) // _WORD
        pages = every(data, _PAGE_CONTENT, _WORD)[words]
        length = count * (PAGE_BYTES + DIGEST_BYTES)
        header = ChunkHeader(ChunkType.CONTENT, length, count, self.unique_pages, 0)
        digests = b"".join(contents.new_digests)
        return (
            encode_chunk_header(header, self._id),
            pages.view(np.uint8).data,
            digests,
            bytes(padding(length)),
        )

    def _records_chunk(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        ordinals: NDArray[np.uint64],
    ) -> Sequence[_Buffer]:
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
    ) -> Sequence[_Buffer]:
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

    def _object_chunk(self, kind: ChunkType, value: Mapping[str, Any]) -> Sequence[_Buffer]:
        payload = encode_object(value)
        header = ChunkHeader(kind, len(payload), 1, 0, zlib.crc32(payload))
        return encode_chunk_header(header, self._id), payload, bytes(padding(len(payload)))

    def _write(self, buffers: Sequence[_Buffer]) -> None:
        """Append ``buffers`` whole, or cut the file back to where it was and raise ``OutputError``."""
        left = [memoryview(buffer) for buffer in buffers]
        end = self.bytes_written
        try:
            while left:
                written = os.pwritev(self._descriptor, left, end)
                end += written
                left = _after(left, written)
        except OSError as error:
            self._cut_back()
            raise OutputError(f"{self.path} could not be written: {error.strerror}") from error
        self.bytes_written = end

    def _cut_back(self) -> None:
        # If even this fails, what is left is a torn chunk, which readers recognise.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self.bytes_written)


def _after(buffers: list[memoryview], written: int) -> list[memoryview]:
    """Return what is left of ``buffers`` after the first ``written`` bytes."""
    for index, buffer in enumerate(buffers):
        if written < buffer.nbytes:
            return [buffer[written:], *buffers[index + 1 :]]
        written -= buffer.nbytes
    return []


def _last_of_each_cpu(rows: Rows) -> dict[int, tuple[int, int]]:
    """Return the sequence and the content number of the last page of each CPU."""
    backwards = rows[::-1]
    cpus, last = np.unique(backwards["sequence"] >> np.uint64(SEQUENCE_CPU_SHIFT), return_index=True)
    pages = zip(backwards["sequence"][last].tolist(), backwards["content"][last].tolist(), strict=True)
    return dict(zip(cpus.tolist(), pages, strict=True))


def _repeated_rows(repeats: Rows, ordinals: NDArray[np.uint64], sources: Mapping[int, int]) -> Rows:
    """Return a PAGES row for each page of the REPEAT records ``repeats``.

    ``sources`` are the content numbers of the pages they repeat, by sequence.
    """
    pages = repeats["pages"].astype(np.int64)
    within = (np.arange(int(pages.sum())) - np.repeat(np.cumsum(pages) - pages, pages)).astype(np.uint64)
    rows: Rows = np.zeros(len(within), PAGE_ROW_TYPE)
    for name in HEADER_NAMES:
        rows[name] = np.repeat(repeats[name], pages)
    rows["ordinal"] = np.repeat(ordinals, pages) + within
    rows["address"] += within * np.uint64(PAGE_BYTES)
    numbers = [sources.get(source, NO_CONTENT) for source in repeats["source"].tolist()]
    rows["content"] = np.repeat(np.array(numbers, dtype=np.uint64), pages)
    rows["missing"] = np.where(rows["content"] == NO_CONTENT, Missing.LIMIT, 0)
    return rows


def _page_rows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    ordinals: NDArray[np.uint64],
    numbers: NDArray[np.uint64],
) -> Rows:
    """Return the PAGES rows of the page records at ``offsets``."""
    headers = every(data, HEADER_TYPE, _WORD)[offsets // _WORD]
    rows: Rows = np.zeros(len(offsets), PAGE_ROW_TYPE)
    rows["ordinal"] = ordinals
    for name in HEADER_NAMES:
        rows[name] = headers[name]
    rows["content"] = numbers
    rows["missing"] = np.where(numbers == NO_CONTENT, Missing.LIMIT, 0)
    return rows

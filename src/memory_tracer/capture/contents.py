"""The stored pages: where they are in the file, and their bytes when asked for."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from ..wire.layout import PAGE_BYTES
from .format import DIGEST_BYTES, ChunkDamageError
from .scan import read_at

#: Pages read at once when all are looked at: 1 MiB.
_PAGES_PER_READ = 256


class StoredPage(NamedTuple):
    """The bytes of one page and their SHA-256."""

    content: bytes
    digest: bytes


class Contents:
    """The pages of all CONTENT chunks, by number. Bytes are read from the file each time."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._firsts: list[int] = []
        self._offsets: list[int] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def extend(self, first: int, count: int, offset: int) -> None:
        """Add a chunk of ``count`` pages from number ``first`` on. Raises ``ChunkDamageError``."""
        if first != self._count:
            raise ChunkDamageError("the chunk's pages are not numbered on from those before")
        if count:
            self._firsts.append(first)
            self._offsets.append(offset)
            self._count += count

    def page(self, number: int) -> StoredPage | None:
        """Return page ``number``, or None when it is not there or its bytes are not those stored."""
        if not 0 <= number < self._count:
            return None
        chunk = bisect.bisect_right(self._firsts, number) - 1
        index = number - self._firsts[chunk]
        digests_at = self._offsets[chunk] + self._chunk_pages(chunk) * PAGE_BYTES
        content = self._read(self._offsets[chunk] + index * PAGE_BYTES, PAGE_BYTES)
        digest = self._read(digests_at + index * DIGEST_BYTES, DIGEST_BYTES)
        return StoredPage(content, digest) if hashlib.sha256(content).digest() == digest else None

    def damaged(self) -> Iterator[int]:
        """Hash all pages again; yield the numbers of those that do not match their SHA-256."""
        for chunk, first in enumerate(self._firsts):
            pages, offset = self._chunk_pages(chunk), self._offsets[chunk]
            for start in range(0, pages, _PAGES_PER_READ):
                count = min(_PAGES_PER_READ, pages - start)
                content = memoryview(self._read(offset + start * PAGE_BYTES, count * PAGE_BYTES))
                digests_at = offset + pages * PAGE_BYTES + start * DIGEST_BYTES
                digests = self._read(digests_at, count * DIGEST_BYTES)
                for index in range(count):
                    page = content[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]
                    digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
                    if hashlib.sha256(page).digest() != digest:
                        yield first + start + index

    def _read(self, offset: int, length: int) -> bytes:
        """Read from the file; what cannot be read is left out and so does not match its digest."""
        try:
            return bytes(read_at(self._descriptor, offset, length))
        except ChunkDamageError:
            return b""

    def _chunk_pages(self, chunk: int) -> int:
        following = self._firsts[chunk + 1] if chunk + 1 < len(self._firsts) else self._count
        return following - self._firsts[chunk]

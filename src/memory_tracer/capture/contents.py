"""The stored pages: where they are in the file, and their bytes when asked for."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..wire.layout import PAGE_BYTES
from .columns import provisional_digests
from .format import DIGEST_BYTES, MAX_UNSORTED_PAGES, PROVISIONAL, ChunkDamageError
from .scan import read_at

#: Pages read at once when all are looked at: 1 MiB.
_PAGES_PER_READ = 256
#: Pages asked for one or two at a time are likely to be asked for again: so many are kept, 8 MiB.
_FEW, _KEPT = 2, 2048


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
        #: Once a chunk may have had equal pages: of each page the first one with its SHA-256, and of that.
        self._originals = array("Q")
        self._numbers: dict[bytes, int] = {}
        self._kept: OrderedDict[int, StoredPage] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def extend(self, first: int, count: int, offset: int, *, unsorted: bool) -> None:
        """Add a chunk of ``count`` pages from number ``first`` on. Raises ``ChunkDamageError``.

        Pages of an ``unsorted`` chunk may equal each other or those before.
        """
        if first != self._count:
            raise ChunkDamageError("the chunk's pages are not numbered on from those before")
        if unsorted and count > MAX_UNSORTED_PAGES:
            raise ChunkDamageError("the chunk has more pages than any recorder leaves unsorted")
        if count:
            self._firsts.append(first)
            self._offsets.append(offset)
            self._count += count
            if unsorted or self._originals:
                self._find_equal(first if unsorted else self._count)

    @property
    def different(self) -> int:
        """How many different pages there are."""
        return len(self._numbers) if self._originals else self._count

    def originals(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Return for each of ``numbers`` that of the first page with the same bytes."""
        if not self._originals:
            return numbers
        known = np.frombuffer(self._originals, dtype="<u8")
        return np.where(numbers < len(known), known[np.minimum(numbers, len(known) - 1)], numbers)

    def _find_equal(self, unsorted: int) -> None:
        """Look at the pages not looked at yet. From ``unsorted`` on compute the SHA-256 that is not there."""
        for start, count in self._pieces(len(self._originals)):
            digests = self._read(self._digests_at(start), count * DIGEST_BYTES).ljust(
                count * DIGEST_BYTES, b"\0"
            )
            for index in range(count):
                digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
                if start >= unsorted and digest.startswith(PROVISIONAL):
                    digest = hashlib.sha256(self._read(self._content_at(start + index), PAGE_BYTES)).digest()
                self._originals.append(self._numbers.setdefault(digest, start + index))

    def page(self, number: int) -> StoredPage | None:
        """Return page ``number``, or None when it is not there or its bytes are not those stored."""
        return next(self.pages([number]))

    def pages(self, numbers: Sequence[int]) -> Iterator[StoredPage | None]:
        """Yield what ``page`` returns for each of ``numbers``; neighbours are read together."""
        if len(numbers) <= _FEW:
            yield from map(self._one, numbers)
            return
        start = 0
        for end in range(1, len(numbers) + 1):
            following = numbers[end] if end < len(numbers) else None
            if following != numbers[end - 1] + 1 or end - start == _PAGES_PER_READ:
                yield from self._neighbours(numbers[start], end - start)
                start = end

    def _one(self, number: int) -> StoredPage | None:
        """Return a page that may have been asked for before."""
        page = self._kept.get(number)
        if page is not None:
            self._kept.move_to_end(number)
            return page
        page = next(self._neighbours(number, 1))
        if page is not None:
            self._kept[number] = page
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return page

    def _neighbours(self, number: int, count: int) -> Iterator[StoredPage | None]:
        """Yield ``count`` pages from ``number`` on."""
        while count:
            if not 0 <= number < self._count:
                yield from itertools.repeat(None, count)
                return
            chunk = self._chunk_of(number)
            inside = min(count, self._firsts[chunk] + self._chunk_pages(chunk) - number)
            contents = self._read(self._content_at(number), inside * PAGE_BYTES)
            digests = self._read(self._digests_at(number), inside * DIGEST_BYTES)
            for place in range(inside):
                content = contents[place * PAGE_BYTES : (place + 1) * PAGE_BYTES]
                digest = _digest(content, digests[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES])
                yield StoredPage(content, digest) if digest is not None else None
            number, count = number + inside, count - inside

    def starting_with(self, prefix: bytes) -> Iterator[int]:
        """Yield the numbers of the pages that begin with ``prefix``, by what the file says unchecked."""
        for chunk, first in enumerate(self._firsts):
            for index in range(self._chunk_pages(chunk)):
                if self._read(self._offsets[chunk] + index * PAGE_BYTES, len(prefix)) == prefix:
                    yield first + index

    def digests(self) -> NDArray[np.uint8]:
        """Return the SHA-256 of all pages as the file says, a row each; zeros where it cannot be read.

        What a recorder that was killed did not hash any more is hashed here.
        """
        result = np.zeros((self._count, DIGEST_BYTES), np.uint8)
        for start, count in self._pieces(0):
            raw = self._read(self._digests_at(start), count * DIGEST_BYTES)
            if raw:
                result[start : start + count] = np.frombuffer(raw, np.uint8).reshape(count, DIGEST_BYTES)
        mark = np.frombuffer(PROVISIONAL, np.uint8)
        for number in np.flatnonzero((result[:, : len(mark)] == mark).all(axis=1)).tolist():
            page = self.page(number)
            result[number] = np.frombuffer(page.digest, np.uint8) if page is not None else 0
        return result

    def damaged(self) -> Iterator[int]:
        """Hash all pages again; yield the numbers of those that do not match their SHA-256."""
        for start, count in self._pieces(0):
            content = memoryview(self._read(self._content_at(start), count * PAGE_BYTES))
            digests = self._read(self._digests_at(start), count * DIGEST_BYTES)
            for index in range(count):
                page = content[index * PAGE_BYTES : (index + 1) * PAGE_BYTES]
                if _digest(page, digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]) is None:
                    yield start + index

    def _pieces(self, start: int) -> Iterator[tuple[int, int]]:
        """Yield the pages from ``start`` on as numbers of a first one and how many follow in the file."""
        while start < self._count:
            chunk = self._chunk_of(start)
            count = min(_PAGES_PER_READ, self._firsts[chunk] + self._chunk_pages(chunk) - start)
            yield start, count
            start += count

    def _content_at(self, number: int) -> int:
        chunk = self._chunk_of(number)
        return self._offsets[chunk] + (number - self._firsts[chunk]) * PAGE_BYTES

    def _digests_at(self, number: int) -> int:
        chunk = self._chunk_of(number)
        digests_at = self._offsets[chunk] + self._chunk_pages(chunk) * PAGE_BYTES
        return digests_at + (number - self._firsts[chunk]) * DIGEST_BYTES

    def _chunk_of(self, number: int) -> int:
        return bisect.bisect_right(self._firsts, number) - 1

    def _read(self, offset: int, length: int) -> bytes:
        """Read from the file; what cannot be read is left out and so does not match its digest."""
        try:
            return bytes(read_at(self._descriptor, offset, length))
        except ChunkDamageError:
            return b""

    def _chunk_pages(self, chunk: int) -> int:
        following = self._firsts[chunk + 1] if chunk + 1 < len(self._firsts) else self._count
        return following - self._firsts[chunk]


def _digest(content: bytes | memoryview, stored: bytes) -> bytes | None:
    """Return the SHA-256 of a page, or None when ``stored`` says that these are not its bytes."""
    digest = hashlib.sha256(content).digest()
    if stored == digest:
        return digest
    provisional = len(content) == PAGE_BYTES and stored.startswith(PROVISIONAL)
    if provisional and stored == provisional_digests(np.frombuffer(content, dtype=np.uint8)):
        return digest
    return None

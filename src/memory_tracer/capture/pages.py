"""Which pages of a batch are new, and their copies."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..wire.layout import PAGE_BYTES
from .columns import every
from .format import NO_CONTENT

#: So many pages are copied at once: NumPy copies twice, and the second time out of the cache.
_COPIED_AT_ONCE = 32
_WORD = 8
_PAGE_CONTENT = np.dtype(f"V{PAGE_BYTES}")


class NumberedPages(NamedTuple):
    """The pages of a batch: their content numbers; the new ones, and their SHA-256 if it was computed."""

    numbers: NDArray[np.uint64]
    starts: NDArray[np.int64]
    digests: list[bytes] | None


class KnownPages:
    """The number of each content by its SHA-256, for those whose SHA-256 was computed."""

    def __init__(self, size_limit: int | None) -> None:
        """Know none. ``size_limit`` is in bytes of content."""
        self._limit = None if size_limit is None else size_limit // PAGE_BYTES
        self._numbers: dict[bytes, int] = {}

    def identify(self, data: NDArray[np.uint8], starts: NDArray[np.int64], stored: int) -> NumberedPages:
        """Number pages: known ones, new ones from ``stored`` on, none beyond the limit."""
        known, new = self._numbers, dict[bytes, int]()
        room = self._room(stored)
        view, sha256 = data.data, hashlib.sha256
        numbers: list[int] = []
        new_starts: list[int] = []
        for start in starts.tolist():
            digest = sha256(view[start : start + PAGE_BYTES]).digest()
            number = known.get(digest)
            if number is None:
                number = new.get(digest)
            if number is None:
                if room is not None and len(new) >= room:
                    number = NO_CONTENT
                else:
                    number = new[digest] = stored + len(new)
                    new_starts.append(start)
            numbers.append(number)
        return NumberedPages(
            np.array(numbers, dtype=np.uint64), np.array(new_starts, dtype=np.int64), list(new)
        )

    def take_all(self, starts: NDArray[np.int64], stored: int) -> NumberedPages | None:
        """Number pages from ``stored`` on, each as a new one; None when the limit is too near for that."""
        room = self._room(stored)
        if room is not None and len(starts) > room:
            return None
        return NumberedPages(np.arange(stored, stored + len(starts), dtype=np.uint64), starts, None)

    def learn(self, digests: list[bytes], first: int) -> None:
        """Contents from number ``first`` on have these SHA-256."""
        for number, digest in enumerate(digests, first):
            self._numbers.setdefault(digest, number)

    def forget(self, first: int) -> None:
        """Contents from number ``first`` on are not there."""
        self._numbers = {digest: number for digest, number in self._numbers.items() if number < first}

    def _room(self, stored: int) -> int | None:
        """How many contents may still be stored."""
        return None if self._limit is None else max(0, self._limit - stored)


def copy_pages(data: NDArray[np.uint8], starts: NDArray[np.int64], content: NDArray[np.uint8]) -> None:
    """Copy the pages that start at ``starts``, multiples of a word, one behind the other."""
    # One item per page instead of an index per byte: NumPy then copies page by page.
    pages, copies = every(data, _PAGE_CONTENT, _WORD), content.view(_PAGE_CONTENT)
    for some in range(0, len(starts), _COPIED_AT_ONCE):
        part = slice(some, some + _COPIED_AT_ONCE)
        copies[part] = pages[starts[part] // _WORD]

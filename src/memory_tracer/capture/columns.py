"""NumPy types of the records and page rows, and arrays of them that grow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..wire.layout import EVENT, HEADER, MISSING, OUTCOME, PAGE_BYTES, REGISTERS, STACK, TEXT, FieldSpec
from .format import DIGEST_BYTES, PAGE_ROW, PROVISIONAL

#: An array of one of the structured types below.
Rows = NDArray[np.void]


def dtype_of(fields: tuple[FieldSpec, ...]) -> np.dtype[np.void]:
    """Return the little-endian, unpadded NumPy type of ``fields``. Byte strings become raw bytes."""
    columns: list[Any] = []
    for field in fields:
        code = f"V{field.code[:-1]}" if field.code.endswith("s") else np.dtype(field.code).newbyteorder("<")
        columns.append((field.name, code) if field.count == 1 else (field.name, code, (field.count,)))
    return np.dtype(columns)


_ORDINAL = FieldSpec("ordinal", "Q")

HEADER_TYPE = dtype_of(HEADER)
PAGE_ROW_TYPE = dtype_of(PAGE_ROW)
#: Records as a RECORDS chunk holds them: behind their ordinal.
EVENT_TYPE = dtype_of((_ORDINAL, *EVENT))
MISSING_TYPE = dtype_of((_ORDINAL, *MISSING))
OUTCOME_TYPE = dtype_of((_ORDINAL, *OUTCOME))
TEXT_TYPE = dtype_of((_ORDINAL, *TEXT))
STACK_TYPE = dtype_of((_ORDINAL, *STACK))
REGISTERS_TYPE = dtype_of((_ORDINAL, *REGISTERS))

HEADER_NAMES = [field.name for field in HEADER]


def every(buffer: NDArray[np.uint8], dtype: np.dtype[np.void], stride: int) -> Rows:
    """View ``buffer`` as one ``dtype`` at each multiple of ``stride`` bytes, overlapping if need be."""
    count = max(0, (len(buffer) - dtype.itemsize) // stride + 1)
    return np.ndarray((count,), dtype, buffer, strides=(stride,))


def provisional_digests(content: NDArray[np.uint8]) -> bytes:
    """Return what stands for the SHA-256 of each page until there is time for it: zeros and a checksum."""
    words = content.view("<u8")
    digests = np.zeros((len(content) // PAGE_BYTES, DIGEST_BYTES // words.itemsize), "<u8")
    digests[:, len(PROVISIONAL) // words.itemsize] = np.add.reduce(
        words.reshape(len(digests), PAGE_BYTES // words.itemsize), axis=1
    )
    return digests.tobytes()


class Table:
    """Rows of one type that are only ever appended to."""

    def __init__(self, dtype: np.dtype[np.void]) -> None:
        self._storage: Rows = np.empty(0, dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> Rows:
        """All rows so far, as a view that stays valid and does not grow."""
        return self._storage[: self._length]

    def append(self, rows: Rows) -> None:
        """Add ``rows`` at the end."""
        length = self._length + len(rows)
        if length > len(self._storage):
            # Doubling, so that following a growing file does not copy all of it each time.
            grown: Rows = np.empty(max(length, 2 * len(self._storage)), self._storage.dtype)
            grown[: self._length] = self.rows
            self._storage = grown
        self._storage[self._length : length] = rows
        self._length = length

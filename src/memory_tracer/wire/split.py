"""Find the records in a slice of the ring buffer, in bulk.

A ring buffer slice is a chain of records, each behind an 8-byte header: length and two flag bits,
then a page offset (``struct bpf_ringbuf_hdr``, kernel/bpf/ringbuf.c). Runs of records of one size
are found with one comparison over a strided view, so a flood of pages costs one step per run and
not one per page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .layout import FIELD_OFFSETS, HEADER_BYTES, RING_HEADER_BYTES, RecordType

if TYPE_CHECKING:
    from numpy.typing import NDArray

BUSY_BIT = 1 << 31
DISCARD_BIT = 1 << 30
LENGTH_MASK = DISCARD_BIT - 1

_FLAGS_START = FIELD_OFFSETS[RecordType.EVENT]["flags"][0]

#: Below this many equal records in a row a Python step per record is cheaper than a NumPy call.
RUN_PROBE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Records in ring order: where each starts in ``data`` (after its ring header), size, type.

    ``consumed`` is how many bytes of the slice were passed, discarded records included;
    ``malformed`` counts records that are shorter than a header or longer than they say.
    """

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    types: NDArray[np.uint8]
    consumed: int
    discarded: int
    malformed: int

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, chosen: slice) -> Batch:
        """Some of the records; of what was consumed nothing."""
        return Batch(self.data, self.offsets[chosen], self.sizes[chosen], self.types[chosen], 0, 0, 0)

    def flagged(self, flag: int) -> NDArray[np.bool_]:
        """For each record whether its header has ``flag`` (below 256)."""
        result: NDArray[np.bool_] = (self.data[self.offsets + _FLAGS_START] & flag) != 0
        return result

    def timestamps(self) -> NDArray[np.uint64]:
        """When the event of each record happened, in nanoseconds since boot."""
        return self.column(np.arange(len(self)), RecordType.MISSING, "timestamp_ns")  # as in every header

    def column(self, chosen: NDArray[np.intp], kind: RecordType, name: str) -> NDArray[np.uint64]:
        """Field ``name`` (of 4 or 8 bytes) of the records at the indices ``chosen``, all of type ``kind``."""
        start, size = FIELD_OFFSETS[kind][name]
        words = self.data[: len(self.data) // 4 * 4].view("<u4")
        first = (self.offsets[chosen] + start) >> 2
        values: NDArray[np.uint64] = words[first].astype(np.uint64)
        if size == 8:
            values |= words[first + 1].astype(np.uint64) << np.uint64(32)
        return values


def split(data: NDArray[np.uint8]) -> Batch:
    """Find the complete records at the start of ``data``; stop at one still being written."""
    starts: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    singles: list[int] = []
    single_lengths: list[int] = []
    words = data[: len(data) // 8 * 8].view("<u4")
    position, end, discarded = 0, len(data), 0

    def flush_singles() -> None:
        if singles:
            starts.append(np.array(singles, dtype=np.int64))
            lengths.append(np.array(single_lengths, dtype=np.int64))
            singles.clear()
            single_lengths.clear()

    previous = -1
    repeats = 0
    while position + RING_HEADER_BYTES <= end:
        header = int(words[position >> 2])
        if header & BUSY_BIT:
            break
        length = header & LENGTH_MASK
        stride = (length + RING_HEADER_BYTES + 7) & ~7
        if position + stride > end:
            break
        if header & DISCARD_BIT:
            discarded += 1
            position += stride
            previous = -1
            continue
        repeats = repeats + 1 if header == previous else 0
        previous = header
        if repeats >= RUN_PROBE:
            run = _run_length(words, position, stride, header, end)
            flush_singles()
            starts.append(position + stride * np.arange(run, dtype=np.int64))
            lengths.append(np.full(run, length, dtype=np.int64))
            position += run * stride
            repeats = 0
            continue
        singles.append(position)
        single_lengths.append(length)
        position += stride
    flush_singles()

    empty = np.empty(0, dtype=np.int64)
    offsets = (np.concatenate(starts) if starts else empty) + RING_HEADER_BYTES
    sizes = np.concatenate(lengths) if lengths else empty
    whole = sizes >= HEADER_BYTES
    if len(offsets):
        claimed = words[np.where(whole, offsets + 4, 0) >> 2].astype(np.int64)
        whole &= (claimed >= HEADER_BYTES) & (claimed <= sizes)
        sizes = np.where(whole, claimed, sizes)
    malformed = int(len(offsets) - np.count_nonzero(whole))
    if malformed:
        offsets, sizes = offsets[whole], sizes[whole]
    types = data[offsets + 1] if len(offsets) else np.empty(0, dtype=np.uint8)
    return Batch(data, offsets, sizes, types, position, discarded, malformed)


def _run_length(words: NDArray[np.uint32], position: int, stride: int, header: int, end: int) -> int:
    """How many records from ``position`` on have the same ring header (at least one)."""
    possible = (end - position) // stride
    heads = words[position >> 2 :: stride >> 2][:possible]
    different = np.flatnonzero(heads != header)
    return int(different[0]) if len(different) else possible

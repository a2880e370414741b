"""What a capture holds, as tables in memory: everything but the page contents.

A row of the page table takes 80 bytes, an event 256 and its stack as much; a capture of a million
pages (4 GiB of content) is indexed in about 100 MB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model import EventKind
from ..wire.layout import HEADER_BYTES, PAGE_BYTES, RecordType
from .columns import (
    EVENT_TYPE,
    MISSING_TYPE,
    OUTCOME_TYPE,
    PAGE_ROW_TYPE,
    REGISTERS_TYPE,
    STACK_TYPE,
    TEXT_TYPE,
    Rows,
    Table,
    every,
)
from .contents import Contents
from .format import ALIGNMENT, UNSORTED, ChunkDamageError, ChunkType, decode_object
from .scan import Chunk

_ORDINAL_BYTES = 8
_EVENT_KINDS = list(EventKind)
#: User space ends here with five-level page tables (Documentation/arch/x86/x86_64/mm.rst).
_ADDRESS_LIMIT = 1 << 57


class Index:
    """The tables, filled chunk by chunk in file order."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.metadata: Mapping[str, Any] = {}
        self.counters: Mapping[str, Mapping[str, int]] = {}
        self.end: Mapping[str, Any] | None = None
        self.pages = Table(PAGE_ROW_TYPE)
        self.unknown_records = 0
        self.malformed_records = 0
        self._records = {
            RecordType.EVENT: Table(EVENT_TYPE),
            RecordType.MISSING: Table(MISSING_TYPE),
            RecordType.OUTCOME: Table(OUTCOME_TYPE),
            RecordType.TEXT: Table(TEXT_TYPE),
            RecordType.STACK: Table(STACK_TYPE),
            RecordType.REGISTERS: Table(REGISTERS_TYPE),
        }
        self._last_ordinal = {ChunkType.RECORDS: -1, ChunkType.PAGES: -1}

    @property
    def events(self) -> Rows:
        """EVENT records in order of ordinal."""
        return self._records[RecordType.EVENT].rows

    @property
    def missing(self) -> Rows:
        """MISSING records in order of ordinal, each within the address space."""
        return self._records[RecordType.MISSING].rows

    @property
    def outcomes(self) -> Rows:
        """OUTCOME records in order of ordinal."""
        return self._records[RecordType.OUTCOME].rows

    @property
    def texts(self) -> Rows:
        """TEXT records in order of ordinal."""
        return self._records[RecordType.TEXT].rows

    @property
    def stacks(self) -> Rows:
        """STACK records in order of ordinal."""
        return self._records[RecordType.STACK].rows

    @property
    def registers(self) -> Rows:
        """REGISTERS records in order of ordinal."""
        return self._records[RecordType.REGISTERS].rows

    def counter(self, side: str, name: str) -> int:
        """What was last counted of ``name`` in the ``kernel`` or by the ``recorder``; 0 if nothing."""
        return self.counters.get(side, {}).get(name, 0)

    @property
    def record_count(self) -> int:
        """Records other than pages in the file, those that say nothing to us included."""
        known = sum(len(table) for table in self._records.values())
        return known + self.unknown_records + self.malformed_records

    @property
    def next_ordinal(self) -> int:
        """One more than the greatest ordinal in the file."""
        return max(self._last_ordinal.values()) + 1

    def take(self, chunk: Chunk) -> None:
        """Add what ``chunk`` holds. Raises ``ChunkDamageError``, having added nothing, if it is not right."""
        match chunk.header.type:
            case ChunkType.METADATA:
                self.metadata = decode_object(chunk.payload.tobytes())
            case ChunkType.COUNTERS:
                self.counters = _counters(decode_object(chunk.payload.tobytes()))
            case ChunkType.END:
                self.end = decode_object(chunk.payload.tobytes())
            case ChunkType.CONTENT:
                self.contents.extend(
                    chunk.header.first,
                    chunk.header.count,
                    chunk.offset,
                    unsorted=bool(chunk.header.flags & UNSORTED),
                )
            case ChunkType.PAGES:
                self._take_pages(chunk)
            case ChunkType.RECORDS:
                self._take_records(chunk)

    def _take_pages(self, chunk: Chunk) -> None:
        if len(chunk.payload) != chunk.header.count * PAGE_ROW_TYPE.itemsize:
            raise ChunkDamageError("the chunk's length does not fit its number of rows")
        rows: Rows = chunk.payload.view(PAGE_ROW_TYPE)
        self._check_order(ChunkType.PAGES, rows["ordinal"], chunk)
        rows["content"] = self.contents.originals(rows["content"])
        self.pages.append(rows)

    def _take_records(self, chunk: Chunk) -> None:
        payload = chunk.payload
        starts = _record_starts(payload)
        if len(starts) != chunk.header.count:
            raise ChunkDamageError("the chunk does not hold as many records as it says")
        slots = payload.view("<u8").reshape(-1, ALIGNMENT // 8)
        self._check_order(ChunkType.RECORDS, slots[starts, 0], chunk)
        types = payload[starts * ALIGNMENT + _ORDINAL_BYTES + 1]
        sizes = _claimed_sizes(payload)[starts]
        known = 0
        for kind, table in self._records.items():
            dtype = table.rows.dtype
            chosen = starts[(types == kind) & (sizes >= dtype.itemsize - _ORDINAL_BYTES)]
            known += len(chosen)
            rows = every(payload, dtype, ALIGNMENT)[chosen]
            if kind is RecordType.EVENT:
                rows["kind"][~np.isin(rows["kind"], _EVENT_KINDS)] = EventKind.UNKNOWN
            elif kind is RecordType.MISSING:
                rows = self._plausible(rows)
            table.append(rows)
        self.unknown_records += len(starts) - known

    def _plausible(self, rows: Rows) -> Rows:
        """Leave out runs of missing pages that no address space has room for."""
        start = rows["address"]
        room = (_ADDRESS_LIMIT - np.minimum(start, _ADDRESS_LIMIT)) // PAGE_BYTES
        plausible = (rows["pages"] <= room) & (rows["pages"] > 0) & (start % PAGE_BYTES == 0)
        self.malformed_records += int(np.count_nonzero(~plausible))
        left: Rows = rows[plausible]
        return left

    def _check_order(self, kind: ChunkType, ordinals: NDArray[np.uint64], chunk: Chunk) -> None:
        """Ordinals rise within a chunk and from chunk to chunk; everything built on them relies on it."""
        if not len(ordinals):
            return
        rising = bool(np.all(ordinals[1:] > ordinals[:-1]))
        if not rising or int(ordinals[0]) <= self._last_ordinal[kind] or ordinals[0] != chunk.header.first:
            raise ChunkDamageError("the chunk's records are not in order")
        self._last_ordinal[kind] = int(ordinals[-1])


def _counters(value: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the counters in ``value``, leaving out whatever is no count."""
    return {
        group: {name: count for name, count in counts.items() if isinstance(count, int) and count >= 0}
        for group, counts in value.items()
        if isinstance(counts, dict)
    }


def _claimed_sizes(payload: NDArray[np.uint8]) -> NDArray[np.int64]:
    """What would be the size of a record, for a record at each multiple of the alignment."""
    return payload.view("<u4")[3 :: ALIGNMENT // 4].astype(np.int64)


def _record_starts(payload: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return where records start, in units of the alignment. Raises ``ChunkDamageError``."""
    if len(payload) % ALIGNMENT:
        raise ChunkDamageError("the chunk's records are not aligned")
    sizes = _claimed_sizes(payload)
    steps = ((sizes + _ORDINAL_BYTES + ALIGNMENT - 1) // ALIGNMENT).tolist()
    starts: list[int] = []
    position = 0
    while position < len(steps):
        starts.append(position)
        position += steps[position]
    found = np.array(starts, dtype=np.int64)
    if position != len(steps) or np.any(sizes[found] < HEADER_BYTES):
        raise ChunkDamageError("the chunk's records do not fill it")
    return found

"""Splitting a slice of the ring buffer into records."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_tracer.wire.layout import HEADER_BYTES, RING_HEADER_BYTES, SIZES, RecordType
from memory_tracer.wire.split import BUSY_BIT, DISCARD_BIT, RUN_PROBE, split
from tests.unit.builders import batch_of, encode, in_ring

KINDS = st.sampled_from(list(RecordType))


@given(st.lists(st.tuples(KINDS, st.integers(1, 3 * RUN_PROBE)), max_size=8))
def test_finds_every_record_in_order_whatever_the_run_lengths(runs: list[tuple[RecordType, int]]) -> None:
    kinds = [kind for kind, count in runs for _ in range(count)]
    ring = b"".join(in_ring(encode(kind, cause=index)) for index, kind in enumerate(kinds))

    batch = batch_of(ring)

    causes = [struct.unpack_from("<Q", ring, offset + 40)[0] for offset in batch.offsets.tolist()]
    assert batch.types.tolist() == kinds
    assert batch.sizes.tolist() == [SIZES[kind] for kind in kinds]
    assert causes == list(range(len(kinds)))
    assert (batch.consumed, batch.discarded, batch.malformed) == (len(ring), 0, 0)


@pytest.mark.parametrize("before", [0, 1, RUN_PROBE, 3 * RUN_PROBE])
def test_stops_before_a_record_that_is_still_being_written(before: int) -> None:
    record = in_ring(encode(RecordType.PAGE))
    busy = in_ring(encode(RecordType.PAGE), BUSY_BIT)

    batch = batch_of(record * before + busy + record)

    assert len(batch) == before
    assert batch.consumed == before * len(record)


@pytest.mark.parametrize(
    "missing", [1, 8, SIZES[RecordType.EVENT], SIZES[RecordType.EVENT] + RING_HEADER_BYTES]
)
def test_leaves_a_record_that_is_not_all_there(missing: int) -> None:
    record = in_ring(encode(RecordType.EVENT))

    batch = batch_of((record * 2)[:-missing])

    assert len(batch) == 1
    assert batch.consumed == len(record)


@pytest.mark.parametrize("before", [0, RUN_PROBE, 3 * RUN_PROBE])
def test_passes_and_counts_discarded_records(before: int) -> None:
    record = in_ring(encode(RecordType.PAGE))
    discarded = in_ring(encode(RecordType.PAGE), DISCARD_BIT)

    batch = batch_of(record * before + discarded * 2 + record)

    assert len(batch) == before + 1
    assert batch.discarded == 2
    assert batch.consumed == (before + 3) * len(record)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(HEADER_BYTES - 1), id="shorter than a header"),
        pytest.param(
            encode(RecordType.EVENT, size=SIZES[RecordType.EVENT] + 1), id="claims more than there is"
        ),
        pytest.param(encode(RecordType.EVENT, size=HEADER_BYTES - 1), id="claims less than a header"),
    ],
)
def test_counts_malformed_records_and_goes_on(record: bytes) -> None:
    good = in_ring(encode(RecordType.OUTCOME))

    batch = batch_of(good + in_ring(record) + good)

    assert batch.types.tolist() == [RecordType.OUTCOME] * 2
    assert batch.malformed == 1


def test_trusts_a_smaller_size_in_the_record() -> None:
    batch = batch_of(in_ring(encode(RecordType.EVENT, size=HEADER_BYTES)))

    assert batch.sizes.tolist() == [HEADER_BYTES]


@settings(max_examples=300)
@given(st.lists(st.integers(0, 1 << 32) | st.integers(0, 300), max_size=200), st.integers(0, 7))
def test_any_bytes_give_records_inside_the_slice(words: list[int], extra: int) -> None:
    data = np.array([word & 0xFFFFFFFF for word in words], dtype="<u4").view(np.uint8)
    data = np.concatenate([data, np.zeros(extra, dtype=np.uint8)])

    batch = split(data)

    assert batch.consumed <= len(data)
    assert np.all(batch.offsets >= RING_HEADER_BYTES)
    assert np.all(batch.sizes >= HEADER_BYTES)
    assert np.all(batch.offsets + batch.sizes <= batch.consumed)

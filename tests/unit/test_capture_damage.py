"""Captures that are cut off, damaged, hostile or no captures at all."""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_tracer.capture.certificate import verify
from memory_tracer.capture.format import MAX_INDEX_PAYLOAD, PAGE_ROW, ChunkType
from memory_tracer.capture.reader import Capture, open_capture
from memory_tracer.errors import CaptureError, NotCapturedError
from memory_tracer.model import EventKind, Missing
from memory_tracer.wire.layout import PAGE_BYTES, codec
from tests.unit.builders import BASE, PID, RecordStream, page_bytes, write_capture

HEADER = 64


class Span(NamedTuple):
    """Where one chunk lies in a file: header from ``start``, payload, padding to ``end``."""

    type: int
    start: int
    payload_end: int
    end: int

    @property
    def payload(self) -> int:
        return self.start + HEADER


def spans(data: bytes) -> Iterator[Span]:
    """Find the chunks of an undamaged capture, independently of the reader."""
    start = HEADER
    while start < len(data):
        kind, length = struct.unpack_from("<4xH2xQ", data, start)
        payload_end = start + HEADER + length
        end = payload_end + -length % HEADER
        yield Span(kind, start, payload_end, end)
        start = end


def only(data: bytes, kind: ChunkType) -> Span:
    (span,) = (span for span in spans(data) if span.type == kind)
    return span


def telling_offsets(data: bytes) -> list[int]:
    """Return all offsets but the inside of the long, uniform payloads, which is only sampled."""
    inside = {ChunkType.CONTENT: 509, ChunkType.RECORDS: 13}
    skipped = {
        offset
        for span in spans(data)
        for offset in range(span.payload, span.payload_end)
        if (offset - span.payload) % inside.get(ChunkType(span.type), 1)
    }
    return [offset for offset in range(len(data)) if offset not in skipped]


def sealed(header: bytes) -> bytes:
    return header[:60] + struct.pack("<I", zlib.crc32(header[:60]))


def resealed(data: bytes) -> bytes:
    """Make all checksums right again, as an attacker would; payload lengths must be untouched."""
    parts = [sealed(data[:HEADER])]
    for span in spans(data):
        payload = data[span.payload : span.payload_end]
        crc = 0 if span.type == ChunkType.CONTENT else zlib.crc32(payload)
        header = (
            data[span.start : span.start + 48] + struct.pack("<I", crc) + data[span.start + 52 : span.payload]
        )
        parts += [sealed(header), data[span.payload : span.end]]
    return b"".join(parts)


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small complete capture with every type of chunk and record."""
    stream = RecordStream()
    stream.path(1, 5, b"/bin/sample")
    stream.event(EventKind.EXEC, device=1, inode=5)
    stream.command_line(b"sample")
    cause = stream.flip(1, 2, 1)
    stream.missing(cause, Missing.DEFERRED, BASE + 2 * PAGE_BYTES)
    stream.page(cause, page_bytes(3), BASE + 2 * PAGE_BYTES, late=True)
    stream.event(EventKind.EXIT)
    return write_capture(tmp_path_factory.mktemp("damage") / "c.mtrace", stream).read_bytes()


@pytest.fixture
def reopen(tmp_path: Path) -> Callable[[bytes], Capture]:
    """Open bytes as a capture."""

    def open_bytes(data: bytes) -> Capture:
        path = tmp_path / "damaged.mtrace"
        path.write_bytes(data)
        return open_capture(path)

    return open_bytes


def look_at_everything(capture: Capture) -> None:
    """Ask for all a capture can give, in bounded portions."""
    pages = list(itertools.islice(capture.pages(), 1000))
    for page in pages[:10]:
        capture.generations(page.pid, page.address)
        try:
            capture.read(page.pid, page.address, PAGE_BYTES)
        except (CaptureError, NotCapturedError):
            continue
    assert len(list(capture.events())) == capture.event_count
    assert all(region.flips > 0 for region in capture.regions())
    assert capture.processes or not (capture.event_count or pages)
    assert verify(capture).complete <= capture.complete


def test_the_undamaged_capture_is_complete(reopen: Callable[[bytes], Capture], original: bytes) -> None:
    with reopen(original) as capture:
        assert verify(capture).complete
        assert (capture.truncated, capture.stored_bytes) == (None, len(original))


def test_cut_at_any_byte_it_opens_to_the_last_whole_chunk(
    reopen: Callable[[bytes], Capture], original: bytes
) -> None:
    ends = [HEADER, *(span.end for span in spans(original))]
    cuts = [offset for offset in telling_offsets(original) if offset >= HEADER]

    for cut in cuts:
        with reopen(original[:cut]) as capture:
            assert capture.stored_bytes == max(end for end in ends if end <= cut)
            assert (capture.truncated is None) == (cut in ends)
            assert not capture.complete


def test_cut_before_its_pages_a_capture_has_its_events(
    reopen: Callable[[bytes], Capture], original: bytes
) -> None:
    with reopen(original[: only(original, ChunkType.PAGES).end - 1]) as capture:
        assert [event.kind for event in capture.events()] == [
            EventKind.EXEC,
            EventKind.MPROTECT,
            EventKind.EXIT,
        ]
        assert {page.missing for page in capture.pages()} == {Missing.DEFERRED}
        assert capture.truncated is not None
        assert "not whole" in capture.truncated


@pytest.mark.parametrize("size", [0, 1, 8, 63])
def test_cut_inside_the_file_header_it_is_no_capture(
    reopen: Callable[[bytes], Capture], original: bytes, size: int
) -> None:
    with pytest.raises(CaptureError):
        reopen(original[:size])


def test_no_flipped_byte_goes_unnoticed(reopen: Callable[[bytes], Capture], original: bytes) -> None:
    padding = {offset for span in spans(original) for offset in range(span.payload_end, span.end)}

    for offset in telling_offsets(original):
        if offset in padding:
            continue
        try:
            with reopen(patched(original, offset, bytes([original[offset] ^ 0x40]))) as capture:
                assert not verify(capture).complete, offset
        except CaptureError:
            assert offset < HEADER


def test_a_page_whose_bytes_were_changed_is_damaged_and_not_handed_out(
    reopen: Callable[[bytes], Capture], original: bytes
) -> None:
    content = only(original, ChunkType.CONTENT)

    with reopen(patched(original, content.payload + PAGE_BYTES, b"evil")) as capture:
        pages = list(capture.pages())
        with pytest.raises(CaptureError, match="damaged"):
            capture.read(PID, BASE + PAGE_BYTES, 8)
        assert capture.read(PID, BASE, 8) == page_bytes(1)[:8]
        certificate = verify(capture)

    assert [page.missing for page in pages] == [None, Missing.DAMAGED, None, None]
    assert not certificate.complete
    assert certificate.checked_pages == 3
    assert certificate.damaged == ("stored pages that do not match their SHA-256: 1 (numbers 1)",)


def test_a_reference_to_content_that_is_not_there_is_damage(
    reopen: Callable[[bytes], Capture], original: bytes
) -> None:
    rows = only(original, ChunkType.PAGES)

    with reopen(resealed(patched(original, rows.payload + 64, struct.pack("<Q", 99)))) as capture:
        assert next(capture.pages()).missing is Missing.DAMAGED
        assert len(list(capture.pages(missing=False))) == 3
        certificate = verify(capture)

    assert [loss.reason for loss in certificate.losses] == ["damaged"]
    assert "content that is not there" in certificate.damaged[0]


def test_a_higher_version_is_refused_with_both_named(
    reopen: Callable[[bytes], Capture], original: bytes
) -> None:
    with pytest.raises(CaptureError, match=r"version 2 .* version 1"):
        reopen(resealed(patched(original, 8, struct.pack("<I", 2))))


@pytest.mark.parametrize(("version", "page_size"), [(0, 4096), (1, 16384)])
def test_a_header_no_recorder_writes_is_refused(
    reopen: Callable[[bytes], Capture], original: bytes, version: int, page_size: int
) -> None:
    with pytest.raises(CaptureError, match=f"{page_size}"):
        reopen(resealed(patched(original, 8, struct.pack("<II", version, page_size))))


def test_unknown_chunk_types_are_skipped(reopen: Callable[[bytes], Capture], original: bytes) -> None:
    counters = only(original, ChunkType.COUNTERS)

    with reopen(resealed(patched(original, counters.start + 4, struct.pack("<H", 999)))) as capture:
        assert capture.counters == {}
        assert capture.truncated is None
        assert capture.end is not None


def test_a_chunk_of_another_capture_ends_the_file(
    reopen: Callable[[bytes], Capture], original: bytes
) -> None:
    end = only(original, ChunkType.END)

    with reopen(resealed(patched(original, end.start + 32, bytes(16)))) as capture:
        assert capture.truncated is not None
        assert "another capture" in capture.truncated


@pytest.mark.parametrize(
    ("kind", "offset", "value"),
    [
        pytest.param(ChunkType.PAGES, 80, 0, id="rows not in order"),
        pytest.param(ChunkType.PAGES, -40, 0, id="rows do not start at first"),
        pytest.param(ChunkType.PAGES, -48, 1, id="fewer rows than there are"),
        pytest.param(ChunkType.RECORDS, -48, 1, id="fewer records than there are"),
        pytest.param(ChunkType.RECORDS, 0, 1 << 63, id="records not in order"),
        pytest.param(ChunkType.RECORDS, 8, 0, id="record of no size"),
        pytest.param(ChunkType.RECORDS, 8, (1 << 64) - 1, id="record larger than the chunk"),
        pytest.param(ChunkType.CONTENT, -48, 2, id="fewer pages than there are"),
        pytest.param(ChunkType.CONTENT, -40, 1, id="pages not numbered on"),
        pytest.param(ChunkType.METADATA, 0, 0, id="no JSON"),
    ],
)
def test_a_chunk_that_contradicts_itself_ends_the_file(
    reopen: Callable[[bytes], Capture], original: bytes, kind: ChunkType, offset: int, value: int
) -> None:
    span = only(original, kind)

    with reopen(resealed(patched(original, span.payload + offset, struct.pack("<Q", value)))) as capture:
        assert capture.stored_bytes == span.start
        assert capture.truncated is not None
        look_at_everything(capture)


@pytest.mark.parametrize("text", [b"[]", b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b'{"kernel": {"events": '])
def test_json_that_is_no_object_ends_the_file(
    reopen: Callable[[bytes], Capture], original: bytes, text: bytes
) -> None:
    end = only(original, ChunkType.END)
    header = patched(original[end.start : end.payload], 8, struct.pack("<Q", len(text)))
    data = original[: end.start] + header + text + bytes(-len(text) % HEADER)

    with reopen(resealed(data)) as capture:
        assert capture.truncated is not None
        assert capture.end is None


def test_a_huge_sparse_chunk_is_not_read_into_memory(tmp_path: Path, original: bytes) -> None:
    span = only(original, ChunkType.PAGES)
    header = patched(original[span.start : span.payload], 8, struct.pack("<QQ", 1 << 40, (1 << 40) // 80))
    path = tmp_path / "sparse.mtrace"
    path.write_bytes(original[: span.start] + sealed(header))
    os.truncate(path, 1 << 41)

    with open_capture(path) as capture:
        assert capture.truncated is not None
        assert "larger than" in capture.truncated
    assert MAX_INDEX_PAYLOAD < 1 << 30


def test_a_huge_sparse_chunk_of_unsorted_pages_is_not_looked_into(tmp_path: Path, original: bytes) -> None:
    span = only(original, ChunkType.CONTENT)
    pages = 1 << 28
    header = patched(original[span.start : span.payload], 6, struct.pack("<HQQ", 1, pages * 4128, pages))
    path = tmp_path / "sparse.mtrace"
    path.write_bytes(original[: span.start] + sealed(header))
    os.truncate(path, 1 << 41)

    with open_capture(path) as capture:
        assert capture.truncated is not None
        assert "unsorted" in capture.truncated


def test_a_run_of_missing_pages_beyond_the_address_space_is_left_out(tmp_path: Path) -> None:
    stream = RecordStream()
    cause = stream.event()
    for address, pages in ((BASE, 1 << 60), (1 << 63, 1), (BASE, 0), (BASE + 1, 1)):
        stream.missing(cause, Missing.SWAPPED, address, pages)

    with open_capture(write_capture(tmp_path / "c.mtrace", stream)) as capture:
        assert list(capture.pages()) == []
        assert [(loss.reason, loss.count) for loss in capture.losses] == [("malformed-records", 4)]


def test_an_enormous_run_of_missing_pages_is_not_expanded_at_once(tmp_path: Path) -> None:
    stream = RecordStream()
    cause = stream.event(address=0, length=1 << 52)
    stream.missing(cause, Missing.NOT_PRESENT, 0, 1 << 40)

    with open_capture(write_capture(tmp_path / "c.mtrace", stream)) as capture:
        look_at_everything(capture)
        assert next(iter(capture.pages(start=1 << 50))).address == 1 << 50
        assert capture.regions()[0].missing == 1 << 40


def test_times_beyond_the_calendar_are_shown_at_its_end(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(timestamp_ns=(1 << 64) - 1)

    with open_capture(write_capture(tmp_path / "c.mtrace", stream)) as capture:
        (event,) = capture.events()
        assert event.wall_time.year > 2500
        assert capture.wall_time(1 << 90).year == 9999


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(4096), b"\x89MTRACE\n"]
)
def test_what_is_no_capture_is_refused_in_one_sentence(
    reopen: Callable[[bytes], Capture], data: bytes
) -> None:
    with pytest.raises(CaptureError) as caught:
        reopen(data)

    assert caught.value.exit_status == 1
    assert "\n" not in str(caught.value)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    for path in (tmp_path, fifo, tmp_path / "absent", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(CaptureError):
            open_capture(path)


def test_a_file_that_shrinks_while_open_loses_pages_and_not_the_reader(
    tmp_path: Path, original: bytes
) -> None:
    path = tmp_path / "c.mtrace"
    path.write_bytes(original)

    with open_capture(path) as capture:
        os.truncate(path, only(original, ChunkType.CONTENT).payload + 100)

        assert {page.missing for page in capture.pages()} == {Missing.DAMAGED}
        assert not verify(capture).complete
        assert not capture.refresh()
        assert capture.truncated is not None
        assert "shrunk" in capture.truncated


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), magic=st.booleans())
def test_random_bytes_never_break_the_reader(
    reopen: Callable[[bytes], Capture], original: bytes, data: bytes, magic: bool
) -> None:
    try:
        capture = reopen(original[:HEADER] + data if magic else data)
    except CaptureError:
        return
    with capture:
        look_at_everything(capture)


INTERESTING = st.sampled_from(
    [0, 1, 4096, 1 << 31, 1 << 47, 1 << 56, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(
        st.tuples(
            st.sampled_from([ChunkType.RECORDS, ChunkType.PAGES, ChunkType.COUNTERS, ChunkType.END]),
            st.integers(0, 1 << 16),
            st.integers(0, (1 << 64) - 1) | INTERESTING,
            st.sampled_from(["<Q", "<I", "<H", "<B"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_wrong_values_behind_right_checksums_never_break_the_reader(
    reopen: Callable[[bytes], Capture],
    original: bytes,
    edits: list[tuple[ChunkType, int, int, str]],
) -> None:
    data = original
    for kind, place, value, width in edits:
        span = only(original, kind)
        size = struct.calcsize(width)
        offset = span.payload + place * size % (span.payload_end - span.payload - size + 1)
        data = patched(data, offset, struct.pack(width, value & ((1 << 8 * size) - 1)))

    with reopen(resealed(data)) as capture:
        look_at_everything(capture)


def test_a_page_row_has_the_documented_size() -> None:
    assert codec(PAGE_ROW).size == 80

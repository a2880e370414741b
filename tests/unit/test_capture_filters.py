"""Restricting events, pages and regions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_tracer.capture.filters import FilterOptions
from memory_tracer.capture.reader import Capture, open_capture
from memory_tracer.errors import UsageError
from memory_tracer.model import EventKind, Missing, Protection
from memory_tracer.wire.layout import PAGE_BYTES
from tests.unit.builders import BASE, PID, RecordStream, page_bytes, write_capture

FILE = BASE + 0x100_000
OTHER = BASE + 0x200_000


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Capture]:
    """Three regions: anonymous (1), of a file (2), of another process with missing pages (3)."""
    stream, other = RecordStream(), RecordStream(pid=PID + 1)
    stream.event(EventKind.EXEC)
    stream.flip(1)
    stream.path(1, 5, b"/opt/lib.so")
    cause = stream.event(EventKind.MMAP, FILE, device=1, inode=5, protection=7)
    stream.page(cause, page_bytes(2), FILE)
    other.cpu, other.now_ns = 1, stream.now_ns + 10**6
    cause = other.event(EventKind.BASELINE, OTHER, 4)
    other.page(cause, page_bytes(3), OTHER)
    other.missing(cause, Missing.SWAPPED, OTHER + PAGE_BYTES, 3)
    with open_capture(write_capture(tmp_path / "c.mtrace", stream, other)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("options", "regions"),
    [
        ({}, [BASE, FILE, OTHER]),
        ({"pid": PID}, [BASE, FILE]),
        ({"pid": {PID + 1, 1}}, [OTHER]),
        ({"pid": []}, []),
        ({"start": BASE + PAGE_BYTES - 1}, [BASE, FILE, OTHER]),
        ({"start": BASE + PAGE_BYTES}, [FILE, OTHER]),
        ({"end": FILE}, [BASE]),
        ({"end": FILE + 1}, [BASE, FILE]),
        ({"start": 2**64 - 1, "end": 2**64}, []),
        ({"until_ns": 2_000_002_000}, [BASE]),
        ({"since_ns": 2_000_003_000, "until_ns": 2_000_003_000}, [FILE]),
        ({"since_ns": 2**70}, []),
        ({"kinds": [EventKind.MMAP, EventKind.BASELINE]}, [FILE, OTHER]),
        ({"protection": Protection.WRITE | Protection.EXEC}, [FILE]),
        ({"path": "lib.so"}, [FILE]),
        ({"path": "other"}, []),
        ({"exclude_file_backed": True}, [BASE, OTHER]),
        ({"pid": PID, "exclude_file_backed": True, "kinds": [EventKind.MMAP]}, []),
    ],
)
def test_each_condition_restricts_events_pages_and_regions(
    capture: Capture, options: FilterOptions, regions: list[int]
) -> None:
    assert [event.region.start for event in capture.events(**options) if event.region] == regions
    assert [page.address for page in capture.pages(missing=False, **options)] == regions
    assert [history.region.start for history in capture.regions(**options)] == regions


def test_events_without_a_region_lie_in_no_address_range_and_at_no_path(capture: Capture) -> None:
    assert EventKind.EXEC in {event.kind for event in capture.events(exclude_file_backed=True)}
    assert EventKind.EXEC not in {event.kind for event in capture.events(start=0)}
    assert EventKind.EXEC not in {event.kind for event in capture.events(protection=Protection.READ)}


def test_what_comes_after_a_sequence_can_be_asked_for(capture: Capture) -> None:
    sequences = [event.sequence for event in capture.events()]

    assert [event.sequence for event in capture.events(after=sequences[1])] == sequences[2:]
    assert [page.address for page in capture.pages(after=sequences[2], missing=False)] == [FILE, OTHER]


def test_a_run_of_missing_pages_is_cut_to_the_addresses_asked_for(capture: Capture) -> None:
    start, end = OTHER + 2 * PAGE_BYTES + 5, OTHER + 3 * PAGE_BYTES + 1

    pages = list(capture.pages(start=start, end=end))

    assert [page.address for page in pages] == [OTHER + 2 * PAGE_BYTES, OTHER + 3 * PAGE_BYTES]
    assert {page.missing for page in pages} == {Missing.SWAPPED}


@pytest.mark.parametrize(
    "options", [{"start": 8, "end": 8}, {"start": -1}, {"end": 2**64 + 1}, {"since_ns": 2, "until_ns": 1}]
)
def test_ranges_that_cannot_be_meant_are_refused(capture: Capture, options: FilterOptions) -> None:
    for listing in (capture.events, capture.pages, capture.regions):
        with pytest.raises(UsageError):
            listing(**options)

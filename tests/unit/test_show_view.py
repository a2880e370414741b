"""Images of a region over time, and the runs they are shown as."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_tracer.analyze.runs import Run
from memory_tracer.capture.reader import Capture
from memory_tracer.errors import NotCapturedError, UsageError
from memory_tracer.model import EventKind, Missing
from memory_tracer.show.view import View, find_view
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, RecordStream, page_bytes, write_capture

A, B, C = page_bytes(1), page_bytes(2), page_bytes(3)
SECOND = BASE + PAGE_BYTES


def view_of(
    path: Path,
    stream: RecordStream,
    address: int = BASE,
    *,
    size: int | None = None,
    generation: int | None = None,
    until_ns: int | None = None,
) -> View:
    with Capture(write_capture(path / "x.mtrace", stream)) as capture:
        return find_view(capture, address, size=size, generation=generation, until_ns=until_ns)


def contents(view: View) -> list[bytes | Missing | None]:
    """Return the bytes of each run, or why it has none."""
    return [run.missing if run.content is None else run.content for run in view.runs()]


def flip_back_and_forth() -> RecordStream:
    stream = RecordStream()
    for seed in (1, 2, 1):
        stream.flip(seed)
    return stream


@pytest.mark.parametrize(
    ("wanted", "content", "generation"),
    [(1, A, 1), (2, B, 2), (None, A, 2)],
    ids=["first", "second", "last"],
)
def test_content_that_comes_back_is_no_new_generation(
    tmp_path: Path, wanted: int | None, content: bytes, generation: int
) -> None:
    view = view_of(tmp_path, flip_back_and_forth(), generation=wanted)
    assert contents(view) == [content]
    assert view.image.generation == generation


def test_view_at_a_time_shows_what_was_there_then(tmp_path: Path) -> None:
    assert contents(view_of(tmp_path, flip_back_and_forth(), until_ns=2_000_002_999)) == [B]


def test_time_before_the_first_page_has_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotCapturedError, match="at that time"):
        view_of(tmp_path, flip_back_and_forth(), until_ns=1)


def test_generation_beyond_the_last_names_how_many_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has 2 generations; there is no generation 3"):
        view_of(tmp_path, flip_back_and_forth(), generation=3)


def test_pages_of_earlier_events_stay_in_later_images(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    cause = stream.event(pages=2)
    stream.page(cause, C, SECOND)
    view = view_of(tmp_path, stream, generation=2)
    assert contents(view) == [A + C]


def test_page_that_was_missed_is_not_filled_in_from_before(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    cause = stream.event(pages=2)
    stream.page(cause, C)
    stream.missing(cause, Missing.SWAPPED, SECOND)
    assert contents(view_of(tmp_path, stream)) == [C, Missing.SWAPPED]


def test_page_that_comes_after_being_missed_is_shown(tmp_path: Path) -> None:
    stream = RecordStream()
    cause = stream.event(pages=2)
    stream.missing(cause, Missing.SWAPPED, pages=2)
    stream.flip(1)
    assert contents(view_of(tmp_path, stream, size=2 * PAGE_BYTES)) == [A, Missing.SWAPPED]


def test_new_mapping_shows_nothing_of_the_old_one(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    stream.event(EventKind.MUNMAP, pages=2, protection=0)
    stream.event(EventKind.MMAP, pages=2, result=BASE)
    cause = stream.event(pages=2)
    stream.page(cause, C, SECOND)
    assert contents(view_of(tmp_path, stream)) == [None, C]


def test_unmapping_alone_forgets_nothing(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    stream.event(EventKind.MUNMAP, protection=0)
    assert contents(view_of(tmp_path, stream)) == [A]


def test_pages_of_a_lost_event_are_an_image_of_their_own(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    lost = stream.next_sequence()
    stream.page(lost, B)
    lost = stream.next_sequence()
    stream.page(lost, C)
    with Capture(write_capture(tmp_path / "x.mtrace", stream)) as capture:
        views = [find_view(capture, BASE, generation=number) for number in (1, 2, 3)]
    assert [contents(view) for view in views] == [[A], [B], [C]]


def test_view_starts_at_the_byte_asked_for_and_has_the_size_asked_for(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    assert contents(view_of(tmp_path, stream, SECOND - 8, size=16)) == [A[-8:] + B[:8]]


def test_run_of_impossible_length_costs_nothing(tmp_path: Path) -> None:
    stream = RecordStream()
    huge = 1 << 30
    cause = stream.event(pages=huge)
    stream.page(cause, A)
    stream.missing(cause, Missing.NOT_PRESENT, SECOND, pages=huge - 1)
    cause = stream.event(pages=huge)
    stream.missing(cause, Missing.SWAPPED, BASE + 8 * PAGE_BYTES, pages=2)
    assert list(view_of(tmp_path, stream).runs()) == [
        Run(BASE, PAGE_BYTES, A, None),
        Run(SECOND, 7 * PAGE_BYTES, None, Missing.NOT_PRESENT),
        Run(BASE + 8 * PAGE_BYTES, 2 * PAGE_BYTES, None, Missing.SWAPPED),
        Run(BASE + 10 * PAGE_BYTES, (huge - 10) * PAGE_BYTES, None, Missing.NOT_PRESENT),
    ]


def test_region_past_the_end_of_the_address_space_is_cut_there(tmp_path: Path) -> None:
    stream = RecordStream()
    start = (1 << 64) - PAGE_BYTES
    cause = stream.event(address=start, length=1 << 40)
    stream.page(cause, A, start)
    assert contents(view_of(tmp_path, stream, start, size=PAGE_BYTES)) == [A]


def test_range_inside_a_page_of_a_region_with_gaps_has_no_run_without_bytes(tmp_path: Path) -> None:
    stream = RecordStream()
    cause = stream.event(pages=4)
    stream.missing(cause, Missing.ABSENT, BASE, pages=4)
    stream.page(cause, page_bytes(1), BASE + PAGE_BYTES)
    with Capture(write_capture(tmp_path / "c.mtrace", stream)) as capture:
        view = find_view(capture, BASE + PAGE_BYTES + 8, size=16)
        assert [(run.address, run.size) for run in view.runs()] == [(BASE + PAGE_BYTES + 8, 16)]

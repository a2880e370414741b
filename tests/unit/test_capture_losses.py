"""What a capture says it lacks, and its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from memory_tracer.capture.certificate import verify
from memory_tracer.capture.losses import RECORDER_LOSSES
from memory_tracer.capture.reader import open_capture
from memory_tracer.model import EventKind, Missing
from memory_tracer.wire.encode import USER_SPACE_CPU
from memory_tracer.wire.layout import LOSS_COUNTERS, PAGE_BYTES
from tests.unit.builders import BASE, RecordStream, page_bytes, write_capture


def losses(
    path: Path,
    stream: RecordStream,
    *,
    kernel: Mapping[str, int] | None = None,
    recorder: Mapping[str, int] | None = None,
    error: str | None = None,
    finish: bool = True,
) -> dict[str, int]:
    """Write a capture and return its losses as a mapping from reason to count."""
    counters = {"kernel": kernel or {}, "recorder": recorder or {}}
    write_capture(path / "c.mtrace", stream, counters=counters, error=error, finish=finish)
    with open_capture(path / "c.mtrace") as capture:
        assert capture.complete == (not capture.losses)
        assert all(loss.explanation and "\n" not in loss.explanation for loss in capture.losses)
        return {loss.reason: loss.count for loss in capture.losses}


def whole() -> RecordStream:
    stream = RecordStream()
    stream.flip(1, 2)
    return stream


def test_a_whole_recording_has_no_losses(tmp_path: Path) -> None:
    counters = {"events": 1, "pages": 2, "unchanged": 5, "absent": 7, "in_file": 9, "coalesced": 11}

    assert losses(tmp_path, whole(), kernel=counters) == {}


@pytest.mark.parametrize("counter", LOSS_COUNTERS)
def test_each_loss_counter_is_a_loss(tmp_path: Path, counter: str) -> None:
    assert losses(tmp_path, whole(), kernel={counter: 3}) == {counter.replace("_", "-"): 3}


@pytest.mark.parametrize("counter", RECORDER_LOSSES)
def test_each_reading_that_failed_is_a_loss(tmp_path: Path, counter: str) -> None:
    assert losses(tmp_path, whole(), recorder={counter: 3}) == {counter.replace("_", "-"): 3}


def test_pages_that_were_absent_are_no_loss(tmp_path: Path) -> None:
    stream = whole()
    stream.missing(stream.event(pages=3), Missing.ABSENT, pages=3)
    stream.event(EventKind.EXIT)

    assert losses(tmp_path, stream) == {}


@pytest.mark.parametrize("reason", [reason for reason in Missing if 0 < reason < Missing.ABSENT])
def test_each_run_of_missing_pages_is_a_loss(tmp_path: Path, reason: Missing) -> None:
    stream = whole()
    cause = stream.event(pages=3)
    stream.missing(cause, reason, pages=3)
    # The kernel takes a sequence number for each page that finds no room.
    lost = [stream.next_sequence() for _ in range(3 if reason is Missing.RING_FULL else 0)]
    stream.event(EventKind.EXIT)

    expected = "lost-pages" if lost else str(reason)
    assert losses(tmp_path, stream) == {expected: 3}


def test_pages_for_which_the_ring_had_no_room_are_counted_once(tmp_path: Path) -> None:
    stream = whole()
    cause = stream.event(pages=3)
    stream.missing(cause, Missing.RING_FULL, pages=3)

    assert losses(tmp_path, stream, kernel={"lost_pages": 3}) == {"lost-pages": 3}


def test_pages_user_space_gave_up_on_are_counted_once(tmp_path: Path) -> None:
    stream = whole()
    cause = stream.event(pages=2)
    stream.missing(cause, Missing.GONE, pages=2)

    assert losses(tmp_path, stream, recorder={"gone_pages": 2}) == {"gone": 2}


def test_a_reason_this_version_does_not_know_is_a_loss(tmp_path: Path) -> None:
    stream = whole()
    stream.missing(stream.event(), 99)  # type: ignore[arg-type]

    assert losses(tmp_path, stream) == {"unknown": 1}


def test_late_pages_are_no_loss(tmp_path: Path) -> None:
    stream = whole()
    cause = stream.event(pages=4, address=BASE + 0x10000)
    stream.missing(cause, Missing.NOT_PRESENT, BASE + 0x10000, 4)
    for index in (3, 1, 0):
        stream.page(cause, page_bytes(index), BASE + 0x10000 + index * PAGE_BYTES, late=True)

    assert losses(tmp_path, stream, kernel={"pages": 2}) == {"not-present": 1}


def test_gaps_in_the_numbering_are_losses_unless_counted(tmp_path: Path) -> None:
    def with_gaps() -> RecordStream:
        stream = RecordStream()
        stream.next_sequence()
        stream.flip(1)
        for _ in range(3):
            stream.next_sequence()
        stream.cpu = 3
        stream.flip(2)
        stream.next_sequence()
        stream.flip(3)
        return stream

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    counted = {"lost_events": 1, "lost_missing": 1}

    assert losses(tmp_path, with_gaps()) == {"unaccounted-records": 2}
    assert losses(tmp_path / "a", with_gaps(), kernel={"lost_events": 2}) == {"lost-events": 2}
    assert losses(tmp_path / "b", with_gaps(), kernel=counted) == {"lost-events": 1, "lost-missing": 1}


def test_records_of_user_space_leave_no_gap(tmp_path: Path) -> None:
    stream = whole()
    stream.cpu = USER_SPACE_CPU
    stream.flip(3)

    assert losses(tmp_path, stream) == {}


def test_pages_the_kernel_sent_and_the_file_lacks_are_a_loss(tmp_path: Path) -> None:
    assert losses(tmp_path, whole(), kernel={"pages": 5}) == {"undelivered-pages": 3}


def test_records_nobody_understands_are_counted_once(tmp_path: Path) -> None:
    stream = whole()
    stream.event(type=99)

    assert losses(tmp_path, stream, recorder={"unknown_records": 1}) == {"unknown-records": 1}


def test_a_recording_that_was_not_closed_is_not_complete(tmp_path: Path) -> None:
    assert losses(tmp_path, whole(), finish=False) == {"not-closed": 1}


def test_a_recording_that_ended_with_an_error_is_not_complete(tmp_path: Path) -> None:
    assert losses(tmp_path, whole(), error="disk full") == {"recording-error": 1}


def test_a_file_that_is_cut_off_is_not_complete(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "c.mtrace", whole())
    path.write_bytes(path.read_bytes()[:-1])

    with open_capture(path) as capture:
        assert [loss.reason for loss in capture.losses] == ["truncated", "not-closed"]


def test_the_certificate_notes_what_is_no_loss(tmp_path: Path) -> None:
    stream = whole()
    stream.page(stream.event(), page_bytes(7), late=True)
    lost = stream.next_sequence()
    stream.page(lost, page_bytes(8))
    stream.event(kind=99)
    counters = {"kernel": {"coalesced": 4, "lost_events": 1}}

    with open_capture(write_capture(tmp_path / "c.mtrace", stream, counters=counters)) as capture:
        certificate = verify(capture)

    assert certificate.notes == (
        "calls on hot regions that changed nothing and are only counted: 4",
        "pages read by user space some time after their event: 1",
        "events whose own record is lost while pages of them are there: 1",
        "events of a kind this version does not know: 1",
    )
    assert certificate.checked_pages == 4
    assert certificate.damaged == ()
    assert [loss.reason for loss in certificate.losses] == ["lost-events"]

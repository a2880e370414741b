"""What is not in the capture is counted, said everywhere, and never taken for complete."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from memory_tracer import (
    EventKind,
    Loss,
    Missing,
    NotCapturedError,
    Settings,
    Tracer,
    UsageError,
    open_capture,
)
from memory_tracer.capture.certificate import verify
from memory_tracer.record.kernel import Kernel
from tests.workloads import PAGE_SIZE, Executable, Step, Workloads, random_pages

from .recording import CALLS, Recorder, Recording, await_pages, old_files, recorded, tool

pytestmark = pytest.mark.privileged

SEED = 9973
#: Two pages of ring: a page's record and little else.
TINY = 2 * PAGE_SIZE


@pytest.fixture(scope="module")
def flooded(recorders: Recorder) -> Recording:
    """4096 pages at once through a ring that has room for one."""
    return recorders.workload("big", 16, SEED, options=["--ring-size", TINY, "--no-lossless"])


def loss_of(recording: Recording, reason: str) -> Loss:
    with recording.open() as capture:
        (loss,) = (loss for loss in capture.losses if loss.reason == reason)
        return loss


def test_tiny_ring_loses_pages_and_counts_every_one(flooded: Recording) -> None:
    (flip,) = (step for step in flooded.steps if isinstance(step, Executable))
    with flooded.open() as capture:
        there = {
            page.address: page.content for page in capture.pages(missing=False, kinds={EventKind.MPROTECT})
        }
        lost = capture.counters["kernel"]["lost_pages"]
        assert lost > 0
        assert not capture.complete
        # What is there is right.
        assert there.items() <= flip.pages.items()
    assert loss_of(flooded, "lost-pages").count == lost
    assert "ring" in loss_of(flooded, "lost-pages").explanation


def test_lost_pages_are_named_as_missing_or_counted(flooded: Recording) -> None:
    (flip,) = (step for step in flooded.steps if isinstance(step, Executable))
    with flooded.open() as capture:
        outcome = next(
            (event.outcome for event in capture.events(kinds={EventKind.MPROTECT}) if event.outcome), None
        )
        missing = [page for page in capture.pages() if page.missing is Missing.RING_FULL]
        unlisted = capture.counters["kernel"]["lost_missing"]
        assert missing or unlisted
        assert outcome is None or outcome.captured + outcome.lost <= len(flip.pages)
        for page in missing[:3]:
            with pytest.raises(NotCapturedError):
                capture.read(page.pid, page.address, PAGE_SIZE, at=page.timestamp_ns)


def test_run_says_at_the_end_what_was_lost(flooded: Recording) -> None:
    lost = loss_of(flooded, "lost-pages").count
    (line,) = (line for line in flooded.ran.err.splitlines() if "Incomplete" in line and "pages" in line)
    assert f"{lost:,} pages" in line
    assert "the ring buffer was full" in line


def test_report_and_verify_show_the_loss(flooded: Recording) -> None:
    lost = loss_of(flooded, "lost-pages").count
    report = tool("report", flooded.path)
    assert report.status == 0
    assert "INCOMPLETE" in report.out.decode()
    assert f"{lost:,} pages" in report.out.decode()

    verify = tool("verify", flooded.path)
    assert verify.status == 1
    assert "INCOMPLETE" in verify.out.decode()
    assert f"{lost:,} pages" in verify.out.decode()

    certificate = json.loads(tool("verify", "--json", flooded.path).out)
    assert certificate["complete"] is False


@pytest.mark.parametrize("view", ["events", "regions", "pages"])
def test_every_listing_warns_that_the_capture_is_incomplete(flooded: Recording, view: str) -> None:
    ran = tool(view, flooded.path, "--limit", 1)
    assert ran.status == 0
    assert "incomplete" in ran.sentence


def test_same_flood_through_a_ring_of_its_size_loses_nothing(recorder: Recorder) -> None:
    recording = recorder.workload("big", 16, SEED, options=["--ring-size", "64M"])
    with recording.open() as capture:
        assert recorded(capture) == recording.said
        assert capture.complete


@pytest.mark.parametrize(
    ("mib", "ring"), [(16, "1M"), (64, "8M")], ids=["hashed at once", "stored in a hurry"]
)
def test_calls_wait_for_room_in_a_ring_far_too_small(recorder: Recorder, mib: int, ring: str) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("with one CPU nobody can drain while a call waits")
    # GIVEN much memory made executable at once, and a ring that is far smaller
    recording = recorder.workload("big", mib, SEED, options=["--ring-size", ring, "--lossless"])
    # THEN every byte is right, and calls did wait for that
    with recording.open() as capture:
        assert recorded(capture) == recording.said
        assert capture.complete
        assert capture.counters["kernel"]["waits"] > 0
        assert verify(capture).complete


@pytest.mark.skipif(
    not Kernel().has_task_work, reason="a call that cannot leave work to its thread (Linux 6.18) cannot wait"
)
def test_call_waits_for_the_recorder_where_both_share_one_cpu(recorder: Recorder) -> None:
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        recording = recorder.workload("big", 16, SEED, options=["--ring-size", "1M", "--lossless"])
    finally:
        os.sched_setaffinity(0, cpus)
    with recording.open() as capture:
        assert recorded(capture) == recording.said  # the look before the end cannot wait here
        assert capture.counters["kernel"]["waits"] > 0


def test_events_lost_in_a_tiny_ring_do_not_end_the_recording_early(recorder: Recorder) -> None:
    recording = recorder.workload("threads", 5, 101, SEED, options=["--ring-size", TINY, "--no-lossless"])
    flips = [step for step in recording.steps if isinstance(step, Executable)]
    contents = {page for flip in flips for page in flip.pages.values()}
    with recording.open() as capture:
        assert capture.end is not None
        assert capture.end["reason"] == "targets-ended"
        kernel = capture.counters["kernel"]
        assert kernel["lost_events"] + kernel["lost_pages"] > 0
        assert not capture.complete
        assert {page.content for page in capture.pages(missing=False, kinds=CALLS)} <= contents


def test_size_limit_keeps_events_and_says_which_pages_it_left_out(recorder: Recorder) -> None:
    recording = recorder.workload("pages16", SEED, options=["--max-size", 5 * PAGE_SIZE])
    (flip,) = (step for step in recording.steps if isinstance(step, Executable))
    with recording.open() as capture:
        pages = list(capture.pages(kinds={EventKind.MPROTECT}))
        assert [page.address for page in pages] == list(flip.pages)
        assert [page.missing for page in pages] == [None] * 5 + [Missing.LIMIT] * 11
        assert capture.unique_pages == 5
        assert {loss.reason for loss in capture.losses} == {"limit"}
    assert tool("verify", recording.path).status == 1


def test_work_beyond_the_limit_per_call_is_done_later_and_not_lost(
    recorder: Recorder, workloads: Workloads
) -> None:
    # GIVEN a target with three regions of two pages, of which the kernel may take one page per call
    path, pipe = recorder.new_path(), recorder.directory / "pipe"
    os.mkfifo(pipe)
    waiting = f"exec {workloads.path('wait_then_flip')} {recorder.directory} {SEED} <{pipe}"
    with (
        pipe.open("r+b", buffering=0),
        Tracer.spawn(["sh", "-c", waiting], output=path, settings=replace(old_files(), page_limit=1)),
    ):
        # WHEN there is time to read the others
        await_pages(path, 6)
    # THEN all are there, three of them marked as late
    with open_capture(path) as capture:
        pages = list(capture.pages(missing=False, kinds=CALLS))
        assert [page.late for page in pages].count(True) >= 3
        assert len({page.address for page in pages}) == 6
        # Two regions are shared; and the last look, too, leaves a page of each, when nobody can come later.
        assert {loss.reason for loss in capture.losses} <= {"unwatched-writes", "deferred"}


@pytest.mark.parametrize("size", [1, 100, 4095, 12288, 1 << 31])
def test_ring_size_that_the_kernel_would_refuse_is_a_usage_error(size: int) -> None:
    with pytest.raises(UsageError, match="power of two"):
        Settings(ring_bytes=size)
    ran = tool("run", "--ring-size", size, "--", "true")
    assert ran.status == 2
    assert "power of two" in ran.sentence


def test_many_pages_with_the_same_bytes_fit_a_ring_of_far_less(recorder: Recorder) -> None:
    # GIVEN 20 MiB made executable at once, of which all pages but one are the same
    recording = recorder.workload("identical", 5120, SEED, options=["--ring-size", "128K"])
    (step,) = recording.steps
    assert isinstance(step, Step)
    same, other = random_pages(SEED, 2)
    # THEN every page is there, at its address, and nothing was lost
    with recording.open() as capture:
        memory = capture.read(step.pid, step.fields["address"], 5120 * PAGE_SIZE)
        assert memory == same * 2560 + other + same * 2559
        start = step.fields["address"]
        pages = list(capture.pages(start=start, end=start + 5120 * PAGE_SIZE, kinds=CALLS))
        assert [page.address for page in pages] == list(range(start, start + 5120 * PAGE_SIZE, PAGE_SIZE))
        assert len({page.sha256 for page in pages}) == 2
        assert capture.complete
        assert verify(capture).complete

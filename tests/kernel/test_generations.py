"""One page, many contents: each is there, none is stored twice, and any time can be asked about."""

from __future__ import annotations

import pytest

from memory_tracer import EventKind, NotCapturedError, Protection
from tests.workloads import PAGE_SIZE, Executable

from .recording import CALLS, Recorder, Recording, losses_of, recorded

pytestmark = pytest.mark.privileged

SEED = 104729


def flips_of(recording: Recording) -> list[Executable]:
    return [step for step in recording.steps if isinstance(step, Executable)]


def test_twenty_generations_at_one_address_are_twenty_generations(recorder: Recorder) -> None:
    recording = recorder.workload("generations", 20, SEED)
    flips = flips_of(recording)
    contents = [flip.pages[flip.address] for flip in flips]
    with recording.open() as capture:
        pages = capture.generations(flips[0].pid, flips[0].address)
        assert [page.content for page in pages] == contents
        assert [page.generation for page in pages] == list(range(1, 21))
        assert recorded(capture) == recording.said
        assert losses_of(capture) == set()


def test_memory_can_be_read_as_it_was_at_the_time_of_each_generation(recorder: Recorder) -> None:
    recording = recorder.workload("generations", 11, SEED)
    flips = flips_of(recording)
    pid, address = flips[0].pid, flips[0].address
    with recording.open() as capture:
        events = capture.events(kinds={EventKind.MPROTECT}, start=address, end=address + 1)
        times = [event.timestamp_ns for event in events if event.protection & Protection.EXEC]
        assert len(times) == 11
        for time, flip in zip(times, flips, strict=True):
            assert capture.read(pid, address, PAGE_SIZE, at=time) == flip.pages[address]
            assert capture.read(pid, address + 3, 5, at=time) == flip.pages[address][3:8]
        with pytest.raises(NotCapturedError):
            capture.read(pid, address, 1, at=times[0] - 1)


def test_content_that_comes_back_is_the_generation_it_was_and_is_stored_once(recorder: Recorder) -> None:
    recording = recorder.workload("two_contents", 13, SEED)
    flips = flips_of(recording)
    with recording.open() as capture:
        pages = capture.pages(kinds={EventKind.MPROTECT}, protection=Protection.EXEC)
        assert [page.generation for page in pages] == [number % 2 + 1 for number in range(13)]
        assert recorded(capture) == recording.said
        assert len(capture.generations(flips[0].pid, flips[0].address)) == 2
        assert capture.unique_pages == 2


def test_content_that_came_back_after_another_region_changed_it_is_current(recorder: Recorder) -> None:
    """Two regions share a page; what was last sent of the one is not what the page held last."""
    recording = recorder.workload("overlapping", 31, SEED)
    with recording.open() as capture:
        last = flips_of(recording)[-1]
        for address, content in last.pages.items():
            assert capture.read(last.pid, address, PAGE_SIZE) == content


@pytest.fixture(scope="module")
def sparse(recorders: Recorder) -> Recording:
    """128 MiB with seven pages in them, flipped 61 times; each flip changes one page."""
    return recorders.workload("sparse", 128, 7, 61, SEED)


def test_sparse_hot_region_costs_only_its_changed_pages(sparse: Recording) -> None:
    with sparse.open() as capture:
        rows = list(capture.page_rows(kinds=CALLS, exclude_file_backed=True))
        # The first flip sends all seven pages (five of them a second time when first compared).
        assert 7 + 60 <= len(rows) <= 7 + 60 + 7
        assert capture.unique_pages == 7 + 60
        assert capture.stored_bytes < 1 << 20
        assert capture.losses == ()


def test_sparse_hot_region_has_the_right_bytes_at_every_flip(sparse: Recording) -> None:
    flips = flips_of(sparse)
    with sparse.open() as capture:
        events = capture.events(kinds={EventKind.MPROTECT}, protection=Protection.EXEC)
        times = [event.timestamp_ns for event in events]
        assert len(times) == 61
        for time, flip in zip(times, flips, strict=True):
            for address, content in flip.pages.items():
                assert capture.read(flip.pid, address, PAGE_SIZE, at=time) == content


def test_calls_that_change_nothing_are_counted_and_not_stored(recorder: Recorder) -> None:
    recording = recorder.workload("unchanged", 1009, SEED)
    (content,) = {page for flip in flips_of(recording) for page in flip.pages.values()}
    with recording.open() as capture:
        assert capture.unique_pages == 1
        assert capture.page_count < 50
        kernel = capture.counters["kernel"]
        calls = capture.events(kinds={EventKind.MPROTECT}, exclude_file_backed=True)
        assert sum(1 for _ in calls) + kernel["coalesced"] == 2 * 1009
        flip = flips_of(recording)[-1]
        assert capture.read(flip.pid, flip.address, PAGE_SIZE) == content
        assert capture.losses == ()


def test_exact_compares_every_page_of_every_call(recorder: Recorder) -> None:
    recording = recorder.workload("sparse", 64, 3, 29, SEED, options=["--exact"])
    with recording.open() as capture:
        assert capture.counters["kernel"]["skipped"] == 0
        assert capture.unique_pages == 3 + 28
        last = flips_of(recording)[-1]
        for address, content in last.pages.items():
            assert capture.read(last.pid, address, PAGE_SIZE) == content


def test_capture_of_a_recording_without_code_is_complete(recorder: Recorder) -> None:
    recording = recorder.command("true")
    with recording.open() as capture:
        assert list(capture.pages()) == []
        assert capture.complete


@pytest.mark.parametrize("flips", [1, 40], ids=["copied", "compared"])
@pytest.mark.parametrize("how", ["emptied", "replaced"])
def test_memory_that_was_discarded_reads_as_zeros_and_not_as_what_it_held(
    recorder: Recorder, how: str, flips: int
) -> None:
    recording = recorder.workload("discarded", how, flips, SEED)
    last = flips_of(recording)[-1]
    with recording.open() as capture:
        events = [
            event
            for event in capture.events(kinds={EventKind.MPROTECT}, start=last.address, end=last.address + 1)
            if event.protection & Protection.EXEC
        ]
        emptied, written = (event.timestamp_ns for event in events[-2:])
        pages = flips_of(recording)[-2].pages
        held = b"".join(pages[address] for address in sorted(pages))
        size = 2 * PAGE_SIZE
        assert capture.read(last.pid, last.address, size, at=emptied - 1) == held
        assert capture.read(last.pid, last.address, size, at=written - 1) == bytes(size)
        assert capture.read(last.pid, last.address, size) == held[:PAGE_SIZE] + bytes(PAGE_SIZE)
        assert capture.complete

"""The capture holds exactly the bytes that became executable: where, when, by whom, from where."""

from __future__ import annotations

import errno
import os
from itertools import pairwise
from pathlib import Path

import pytest

from memory_tracer import EventKind, Protection, Status, open_capture
from tests.workloads import PAGE_SIZE, Executable, Step, Workloads, parse

from . import machine
from .recording import (
    TOOL,
    Recorder,
    Recording,
    await_pages,
    end_of,
    line_from,
    line_to,
    losses_of,
    recorded,
    running,
)

pytestmark = pytest.mark.privileged

READ_EXEC = Protection.READ | Protection.EXEC
READ_WRITE = Protection.READ | Protection.WRITE
SEED = 7919


@pytest.fixture(scope="module")
def sixteen(recorders: Recorder) -> Recording:
    """One recording of the workload pages16, to be looked at from several sides."""
    return recorders.workload("pages16", SEED)


@pytest.fixture(scope="module", params=machine.hooks())
def mapped(recorders: Recorder, request: pytest.FixtureRequest) -> Recording:
    """One recording of the workload mmap_exec with each hook; its file lies beside the capture."""
    return recorders.workload("mmap_exec", recorders.directory, SEED, options=["--hook", request.param])


@pytest.mark.emulated
def test_sixteen_pages_have_their_bytes_addresses_protections_and_thread_in_order(sixteen: Recording) -> None:
    (flip,) = (step for step in sixteen.steps if isinstance(step, Executable))
    with sixteen.open() as capture:
        pages = [page for page in capture.pages() if page.event is EventKind.MPROTECT]
        assert [(page.address, page.content) for page in pages] == list(flip.pages.items())
        assert len({page.content for page in pages}) == 16
        for page in pages:
            assert (page.pid, page.tid) == (flip.pid, flip.tid)
            assert (page.previous_protection, page.protection) == (READ_WRITE, READ_EXEC)
            assert (page.region.start, page.region.length) == (flip.address, flip.length)
            assert not page.region.file_backed
            assert (page.generation, page.missing, page.late) == (1, None, False)
            assert page.comm == "pages16"
        assert all(a.sequence < b.sequence for a, b in pairwise(pages))
        assert losses_of(capture) == set()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("pkey", (SEED,), id="pkey_mprotect", marks=pytest.mark.emulated),
        pytest.param("unmap_at_once", (SEED,), id="unmapped at once after use"),
        pytest.param("big", (16, SEED), id="4096 pages in one call"),
        pytest.param("huge", (3, SEED), id="huge pages"),
        pytest.param("execute_only", (SEED,), id="execute-only memory", marks=pytest.mark.emulated),
        pytest.param("threads", (5, 23, SEED), id="five threads with 23 flips each"),
        pytest.param("forks", (SEED,), id="seven processes made in every way", marks=pytest.mark.emulated),
        pytest.param("thread_exec", (SEED,), id="execve from a thread"),
        pytest.param("leader_gone", (SEED,), id="the first thread has ended"),
    ],
)
def test_every_flip_of_every_thread_is_there_with_its_bytes(
    recorder: Recorder, name: str, arguments: tuple[int, ...]
) -> None:
    recording = recorder.workload(name, *arguments)
    with recording.open() as capture:
        assert recorded(capture) == recording.said
        # Whether a look comes while another thread maps something is chance.
        assert losses_of(capture) <= {"missed-looks"}


def test_region_unmapped_at_once_is_still_there_and_its_unmapping_is_an_event(recorder: Recorder) -> None:
    recording = recorder.workload("unmap_at_once", SEED)
    (flip,) = (step for step in recording.steps if isinstance(step, Executable))
    with recording.open() as capture:
        calls = {EventKind.MPROTECT, EventKind.MUNMAP}
        events = capture.events(start=flip.address, end=flip.address + 1, kinds=calls)
        assert [event.kind for event in events] == [EventKind.MPROTECT, EventKind.MUNMAP]
        assert capture.read(flip.pid, flip.address, PAGE_SIZE) == flip.pages[flip.address]
        (region,) = capture.regions(start=flip.address, end=flip.address + 1)
        assert (region.pages, region.missing) == (1, 0)


def test_mapped_file_is_named_and_failed_calls_are_events_with_their_error(mapped: Recording) -> None:
    flips = [step for step in mapped.steps if isinstance(step, Executable)]
    failures = [step.fields for step in mapped.steps if isinstance(step, Step)]
    path = mapped.path.parent / "code"
    with mapped.open() as capture:
        (event,) = capture.events(start=flips[0].address, end=flips[0].address + 1, kinds={EventKind.MMAP})
        assert event.region is not None
        assert (event.region.path, event.region.inode) == (str(path), path.stat().st_ino)
        assert event.region.offset == 0
        # The file was made a moment before, so its bytes are taken.
        assert event.status & Status.RECENT
        assert capture.read(event.pid, event.region.start, event.region.length) == path.read_bytes()

        # By its lock a call is not seen that fails before it asks for it (docs/limitations.md).
        unseen = {errno.EBADF} if capture.metadata["hook"] == "mm-lock" else set()
        failed = [event for event in capture.events() if not event.succeeded]
        assert [(str(event.kind), event.arguments[:2], -(event.result or 0)) for event in failed] == [
            (item["call"], (item["address"], item["length"]), item["errno"])
            for item in failures
            if item["errno"] not in unseen
        ]


def test_failed_mprotect_that_changed_a_part_has_the_bytes_of_that_part(mapped: Recording) -> None:
    partial = [step for step in mapped.steps if isinstance(step, Executable)][-1]
    with mapped.open() as capture:
        (event,) = (event for event in capture.events() if event.status & Status.PARTIAL)
        assert event.result == -errno.ENOMEM
        assert event.region is not None
        assert (event.region.start, event.region.length) == (partial.address, PAGE_SIZE)
        assert capture.read(partial.pid, partial.address, PAGE_SIZE) == partial.pages[partial.address]


def test_writable_and_executable_memory_is_no_silent_gap(mapped: Recording) -> None:
    with mapped.open() as capture:
        assert [(loss.reason, loss.count) for loss in capture.losses] == [("unwatched-writes", 1)]
        assert not capture.complete


@pytest.mark.emulated
def test_bytes_written_to_a_memfd_and_a_deleted_file_through_another_mapping_are_there(
    recorder: Recorder, workloads: Workloads, tmp_path: Path
) -> None:
    # GIVEN executable mappings of a memfd and of a deleted file that nobody touched since they were made
    path = recorder.new_path()
    target = (workloads.path("wait_then_flip"), tmp_path, SEED)
    with running(*TOOL, "run", "-o", path, "--", *target) as process:
        steps = list(parse(line_from(process) for _ in range(4)))
        # WHEN the tracer has fetched what was not in the process's page tables
        await_pages(path, 6)
        line_to(process)
        after = end_of(process)
    # THEN nothing is missing
    assert after.status == 0
    steps += parse(after.out.splitlines())
    flips = [step for step in steps if isinstance(step, Executable)]
    assert len(flips) == 4
    with open_capture(path) as capture:
        for flip in flips:
            for address, content in flip.pages.items():
                assert content in [page.content for page in capture.generations(flip.pid, address)]
        assert losses_of(capture) == {"unwatched-writes"}  # they are shared


def test_caller_lies_in_code_the_process_had_mapped(sixteen: Recording) -> None:
    with sixteen.open() as capture:
        (event,) = capture.events(kinds={EventKind.MPROTECT}, protection=Protection.EXEC)
        assert event.caller is not None
        mapped = [
            other.region
            for other in capture.events(kinds={EventKind.MMAP, EventKind.EXEC_MAPPING})
            if other.region is not None
        ]
        (code,) = (region for region in mapped if region.start <= event.caller < region.end)
        assert code.path is not None
        assert Path(code.path).name.startswith("libc")


def test_wall_time_of_an_event_is_within_the_recording(sixteen: Recording) -> None:
    with sixteen.open() as capture:
        assert capture.end is not None
        created, ended = capture.metadata["created_ns"], capture.end["ended_ns"]
        times = [event.wall_time.timestamp() * 1e9 for event in capture.events()]
    assert times == sorted(times)
    assert created <= times[0]
    assert times[-1] <= ended


def test_process_has_its_owner_its_arguments_and_its_end(sixteen: Recording) -> None:
    with sixteen.open() as capture:
        (process,) = capture.processes
        assert process.uid == os.getuid()
        assert process.command_line[-1] == str(SEED)
        assert process.wait_status == 0


def test_pages_beyond_the_end_of_a_file_are_no_loss(
    recorder: Recorder, workloads: Workloads, tmp_path: Path
) -> None:
    with recorder.command(workloads.path("beyond_end"), tmp_path / "file").open() as capture:
        (event,) = (
            event
            for event in capture.events()
            if event.kind is EventKind.MMAP and event.region and event.region.path == str(tmp_path / "file")
        )
        assert event.outcome is not None
        assert (event.page_count, event.outcome.captured, event.outcome.in_file) == (3, 1, 2)
        assert capture.complete

"""Attaching to what runs already: a baseline first, then every event, and the targets go on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memory_tracer import EventKind, TargetError, Tracer, open_capture
from memory_tracer.capture.certificate import verify
from tests.workloads import PAGE_SIZE, Executable, Step, Workloads, parse

from .recording import (
    CALLS,
    TOOL,
    Recorder,
    await_end,
    await_that,
    end_of,
    execute,
    line_from,
    line_to,
    old_files,
    running,
    tool,
)

pytestmark = pytest.mark.privileged

SEED = 7753


class Waiting:
    """The workload wait_then_flip: it has code already, and makes more when told to."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        self.before = [
            step for step in parse(line_from(process) for _ in range(4)) if isinstance(step, Executable)
        ]

    def flip(self) -> Executable:
        """Let it make its second code, and wait until it has."""
        line_to(self.process)
        (step,) = parse([line_from(self.process)])
        assert isinstance(step, Executable)
        return step

    def finish(self) -> int:
        """Let it end by itself and return its exit status."""
        return end_of(self.process).status


@contextmanager
def waiting(workloads: Workloads, directory: Path, seed: int = SEED) -> Iterator[Waiting]:
    """Start the workload; in ``with`` it waits for ``flip``."""
    directory.mkdir(exist_ok=True)
    with running(workloads.path("wait_then_flip"), directory, seed) as process:
        yield Waiting(process)


def await_baseline(tracer: Tracer, pids: int = 1) -> None:
    """Wait until the tracer has attached and written the baseline of so many processes."""

    def written() -> bool:
        with open_capture(tracer.path) as capture:
            of = {event.pid for event in capture.events(kinds={EventKind.BASELINE})}
            return len(of) == pids and capture.page_count >= 6 * pids

    await_that(written, "the baseline")


def test_code_that_was_there_before_and_code_made_after_are_one_story(
    recorder: Recorder, workloads: Workloads
) -> None:
    path = recorder.new_path()
    with waiting(workloads, recorder.directory) as target:
        with Tracer.attach(target.pid, output=path, settings=old_files()) as tracer:
            await_baseline(tracer)
            after = target.flip()
            assert target.finish() == 0
            await_that(lambda: len(list(tracer.pages())) > 0, "the end of the recording")
        with open_capture(path) as capture:
            # The bytes of anonymous memory, of a memfd and of a deleted file come first.
            baseline = {
                page.address: page.content
                for page in capture.pages(missing=False, kinds={EventKind.BASELINE})
            }
            for flip in target.before:
                for address, content in flip.pages.items():
                    assert baseline[address] == content
            generations = capture.generations(target.pid, after.address)
            assert [page.content for page in generations] == [
                target.before[0].pages[after.address],
                after.pages[after.address],
            ]
            assert [page.event for page in generations] == [EventKind.BASELINE, EventKind.MPROTECT]
            (process,) = capture.processes
            assert (process.pid, process.wait_status) == (target.pid, 0)
            assert [loss.reason for loss in capture.losses] == ["unwatched-writes"]  # the memfd's


def test_files_in_the_baseline_are_named_and_not_copied(recorder: Recorder, workloads: Workloads) -> None:
    path = recorder.new_path()
    with waiting(workloads, recorder.directory) as target:
        maps = Path(f"/proc/{target.pid}/maps").read_text()
        with Tracer.attach(target.pid, output=path, settings=old_files()) as tracer:
            await_baseline(tracer)
            target.finish()
    files = set()
    for line in maps.splitlines():
        match = re.fullmatch(r"(\w+)-\w+ r-xp (\w+) \S+ (\d+) +(/\S+)", line)
        if match is not None:
            files.add((int(match[1], 16), int(match[2], 16), int(match[3]), match[4]))
    assert len(files) >= 3
    with open_capture(path) as capture:
        named = {
            (event.region.start, event.region.offset, event.region.inode, event.region.path)
            for event in capture.events(kinds={EventKind.BASELINE})
            if event.region is not None and event.outcome is not None and event.outcome.in_file
        }
        assert files <= named
        copied = [page for page in capture.pages() if page.region.path in {file[3] for file in files}]
        assert copied == []


def test_file_pages_that_the_process_changed_are_in_the_baseline_with_their_bytes(
    recorder: Recorder, workloads: Workloads
) -> None:
    # GIVEN a private mapping of a file of which only the second of three pages was written to
    path = recorder.new_path()
    with running(workloads.path("patched_file"), recorder.directory, SEED) as process:
        (flip,) = parse([line_from(process)])
        assert isinstance(flip, Executable)
        with Tracer.attach(process.pid, output=path, settings=old_files()) as tracer:
            await_that(lambda: _has_baseline(tracer.path), "the baseline")
    # THEN only that page is copied; the others are the file's
    with open_capture(path) as capture:
        end = flip.address + flip.length
        pages = {page.address: page.content for page in capture.pages(start=flip.address, end=end)}
        assert pages == flip.pages
        (event,) = capture.events(start=flip.address, end=end, kinds={EventKind.BASELINE})
        assert event.outcome is not None
        assert (event.outcome.captured, event.outcome.in_file) == (1, 2)


@pytest.mark.emulated
def test_several_processes_have_a_baseline_and_events_each(recorder: Recorder, workloads: Workloads) -> None:
    path = recorder.new_path()
    one, other = recorder.directory / "one", recorder.directory / "other"
    with waiting(workloads, one, SEED) as first, waiting(workloads, other, SEED + 100) as second:
        with Tracer.attach(first.pid, second.pid, first.pid, output=path, settings=old_files()) as tracer:
            await_baseline(tracer, pids=2)
            flips = [target.flip() for target in (first, second)]
            assert [target.finish() for target in (first, second)] == [0, 0]
        with open_capture(path) as capture:
            assert {process.pid for process in capture.processes} == {first.pid, second.pid}
            for flip in (*first.before, *second.before, *flips):
                for address, content in flip.pages.items():
                    assert content in [page.content for page in capture.generations(flip.pid, address)]


def test_target_goes_on_when_the_recording_ends_before_it(recorder: Recorder, workloads: Workloads) -> None:
    path = recorder.new_path()
    with waiting(workloads, recorder.directory) as target:
        with Tracer.attach(target.pid, output=path, settings=old_files()) as tracer:
            await_baseline(tracer)
        # The recording is over, the target is not, and nothing about it is in the way.
        target.flip()
        assert "TracerPid:\t0\n" in Path(f"/proc/{target.pid}/status").read_text()
        assert target.finish() == 0
    with open_capture(path) as capture:
        assert capture.end is not None
        assert capture.end["reason"] == "interrupted"
        assert list(capture.pages(kinds=CALLS)) == []


def test_attaching_in_the_middle_of_a_flood_leaves_no_gap(recorder: Recorder, workloads: Workloads) -> None:
    # GIVEN a process in the middle of 499 generations, of which it says more than a pipe holds
    path = recorder.new_path()
    with running(workloads.path("generations"), 499, SEED) as process:
        lines = [line_from(process) for _ in range(29)]
        with Tracer.attach(process.pid, output=path, settings=old_files()) as tracer:
            await_that(lambda: _has_baseline(tracer.path), "the baseline")
            # WHEN it goes on while it is recorded
            ran = end_of(process)
            assert ran.status == 0
            await_end(process.pid)
    flips = [step for step in parse([*lines, *ran.out.splitlines()]) if isinstance(step, Executable)]
    contents = [flip.pages[flip.address] for flip in flips]
    with open_capture(path) as capture:
        # THEN from some generation on every one is there, in order
        address = flips[0].address
        recorded = [page.content for page in capture.pages(start=address, end=address + 1, kinds=CALLS)]
        assert 0 < len(recorded) < 499
        assert recorded == contents[-len(recorded) :]
        # AND the baseline is a content that the page had until then, or nothing if it was not executable
        found = capture.pages(start=address, end=address + 1, kinds={EventKind.BASELINE})
        assert {page.content for page in found} <= set(contents[: 1 - len(recorded)])


def _has_baseline(path: Path) -> bool:
    with open_capture(path) as capture:
        return any(capture.events(kinds={EventKind.BASELINE}))


def test_process_whose_first_thread_has_ended_can_be_recorded(
    recorder: Recorder, workloads: Workloads
) -> None:
    path = recorder.new_path()
    with running(workloads.path("leader_gone"), SEED, "wait") as process:
        (ready,) = parse([line_from(process)])
        assert isinstance(ready, Step)
        with Tracer.attach(process.pid, output=path, settings=old_files()) as tracer:
            await_that(lambda: _has_baseline(tracer.path), "the baseline")
            ran = end_of(process)
            assert ran.status == 0
    (flip,) = (step for step in parse(ran.out.splitlines()) if isinstance(step, Executable))
    with open_capture(path) as capture:
        for address, content in flip.pages.items():
            assert capture.read(process.pid, address, PAGE_SIZE) == content


def test_attach_from_the_command_line_ends_after_its_duration(
    recorder: Recorder, workloads: Workloads
) -> None:
    path = recorder.new_path()
    with waiting(workloads, recorder.directory) as target:
        ran = tool("attach", "-o", path, "--duration", "0.1", target.pid)
        assert ran.status == 0
        assert ran.out == b""
        assert "Incomplete: unwatched-writes: 2 regions" in ran.err
        assert target.finish() == 0
    with open_capture(path) as capture:
        assert capture.end is not None
        assert capture.end["reason"] == "duration"
        assert capture.metadata["targets"] == [target.pid]


def test_attach_ends_when_the_last_target_does(recorder: Recorder, workloads: Workloads) -> None:
    path = recorder.new_path()
    with (
        waiting(workloads, recorder.directory) as target,
        running(*TOOL, "attach", "-o", path, target.pid) as process,
    ):
        await_that(lambda: path.exists() and path.stat().st_size > 0, "the capture is begun")
        await_that(lambda: _has_baseline(path), "the baseline")
        assert target.finish() == 0
        assert end_of(process).status == 0
    with open_capture(path) as capture:
        assert capture.end is not None
        assert capture.end["reason"] == "targets-ended"


def test_process_that_ended_before_the_recording_began_is_an_error(recorder: Recorder) -> None:
    with running("cat") as process:
        tracer = Tracer.attach(process.pid, output=recorder.new_path())
        assert end_of(process).status == 0
        with pytest.raises(TargetError, match=r"no process|ended"), tracer:
            list(tracer.pages())


@pytest.mark.parametrize(
    ("limit", "all_sampled"), [("nofile=100:", True), ("nofile=100:100", False)], ids=["soft", "hard"]
)
def test_process_with_many_threads_is_recorded_with_few_open_files_allowed(
    recorder: Recorder, workloads: Workloads, limit: str, all_sampled: bool
) -> None:
    path = recorder.new_path()
    with running(workloads.path("many_threads"), 120, SEED) as process:
        flip, _ = parse(line_from(process) for _ in range(2))
        assert isinstance(flip, Executable)
        # Who may raise hard limits does.
        limited = ("setpriv", "--bounding-set=-sys_resource", "prlimit", f"--{limit}", *TOOL)
        ran = execute((*limited, "attach", "-o", path, "--duration", "0.1", process.pid))
        assert ran.status == 0, ran.err
    with open_capture(path) as capture:
        for address, content in flip.pages.items():
            assert capture.read(process.pid, address, PAGE_SIZE) == content
        assert capture.complete
        assert all_sampled == (not [note for note in verify(capture).notes if "sample" in note])


def test_attaching_without_the_right_to_look_at_the_memory_is_refused(
    recorder: Recorder, workloads: Workloads
) -> None:
    with waiting(workloads, recorder.directory) as target:
        path = recorder.new_path()
        command = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace", *TOOL)
        refused = execute((*command, "attach", "-o", path, target.pid))
    assert refused.status == 1
    assert "CAP_SYS_PTRACE" in refused.sentence
    assert not path.exists()

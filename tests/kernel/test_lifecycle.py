"""From a process's first instruction to its end: every descendant is followed, none is confused."""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from memory_tracer import Capture, Event, EventKind, Protection, Status, open_capture
from memory_tracer.report.story import tell
from tests.workloads import PAGE_SIZE, SOURCES, Executable, Step, Workloads, compile_c, parse

from .recording import (
    TOOL,
    Argument,
    Recorder,
    await_end,
    end_of,
    execute,
    line_from,
    line_to,
    recorded,
    running,
    said,
)

pytestmark = pytest.mark.privileged

SEED = 6700417
FOUND_OR_MAPPED = frozenset({EventKind.EXEC_MAPPING, EventKind.MMAP})

_MAPS_LINE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) (\S{3})\S ([0-9a-f]+) \S+ (\d+) *(.*)")


def executable_mappings(maps: bytes) -> list[tuple[int, int, int | None, int | None]]:
    """Return (start, end, inode, offset) of each executable line of /proc/PID/maps."""
    found = []
    for line in maps.splitlines():
        match = _MAPS_LINE.match(line)
        assert match is not None
        start, end, protection, offset, inode, name = match.groups()
        if b"x" in protection and name != b"[vsyscall]":
            file = (int(inode), int(offset, 16)) if int(inode) else (None, None)
            found.append((int(start, 16), int(end, 16), *file))
    return found


def mapped(capture: Capture, pid: int | None = None) -> set[tuple[int, int, int | None, int | None]]:
    """Return (start, end, inode, offset) of what the capture saw mapped executable."""
    regions = [event.region for event in capture.events(kinds=FOUND_OR_MAPPED, pid=pid)]
    return {(r.start, r.end, r.inode, r.offset) for r in regions if r is not None}


def only(capture: Capture, kind: EventKind) -> Event:
    (event,) = capture.events(kinds={kind})
    return event


def test_every_executable_mapping_of_a_dynamically_linked_program_is_seen(recorder: Recorder) -> None:
    recording = recorder.command("cat", "/proc/self/maps")
    with recording.open() as capture:
        # The loader maps a library as a whole and then lays its parts over it: the code is what stays.
        seen = mapped(capture)
        own = executable_mappings(recording.ran.out)
        assert len(own) >= 4
        for start, end, inode, offset in own:
            assert any(
                s <= start and end <= e and i == inode and (o is None or o + start - s == offset)
                for s, e, i, o in seen
            )


def test_segments_of_a_static_program_are_seen_before_it_runs(recorder: Recorder, tmp_path: Path) -> None:
    program = tmp_path / "print_maps"
    compile_c(SOURCES / "print_maps.c", program, "-static")
    recording = recorder.command(program)
    with recording.open() as capture:
        assert mapped(capture) == set(executable_mappings(recording.ran.out))
        events = list(capture.events())
        assert [events[0].kind, events[1].kind] == [EventKind.EXEC, EventKind.EXEC_MAPPING]
        assert events[0].comm == "print_maps"
        (code,) = (event for event in events if event.region and event.region.path == str(program))
        assert code.outcome is not None
        assert code.outcome.in_file == code.page_count
        assert capture.complete


def test_program_executed_from_a_memfd_has_its_bytes_in_the_capture(
    recorder: Recorder, workloads: Workloads
) -> None:
    program = workloads.path("pages16")
    recording = recorder.workload("memfd_exec", program, SEED)
    file = program.read_bytes()
    with recording.open() as capture:
        (event,) = (
            event
            for event in capture.events(kinds={EventKind.EXEC_MAPPING})
            if event.status & Status.UNLINKED and event.region is not None and event.region.offset
        )
        assert event.region is not None
        assert event.region.path == "/memfd:program"
        code = capture.read(event.pid, event.region.start, event.region.length)
        assert event.region.offset is not None
        expected = file[event.region.offset : event.region.offset + event.region.length]
        assert code == expected.ljust(event.region.length, b"\0")
        assert recorded(capture) == recording.said
        assert capture.losses == ()
        findings = {sight.history.region: sight.findings for sight in tell(capture).sights}
        assert "program without a file" in findings[event.region]


@pytest.mark.emulated
def test_tree_of_processes_has_the_parents_and_ends_it_had(recorder: Recorder) -> None:
    recording = recorder.workload("forks", SEED)
    steps = [step for step in recording.steps if isinstance(step, Step)]
    with recording.open() as capture:
        assert {process.pid for process in capture.processes} == {step.pid for step in steps}
        parents = {process.pid: process.parent_pid for process in capture.processes}
        for step in steps:
            assert parents[step.pid] == step.fields["parent"] or step.fields["how"] == "root"
        assert all(process.wait_status == 0 for process in capture.processes)
        assert all(process.ended_ns is not None for process in capture.processes)
        kinds = Counter(event.kind for event in capture.events())
        # Seven processes: the root executed, the others were forked; three executed once more.
        assert (kinds[EventKind.FORK], kinds[EventKind.EXEC], kinds[EventKind.EXIT]) == (6, 4, 7)


def test_threads_begin_and_end_as_events(recorder: Recorder) -> None:
    recording = recorder.workload("threads", 7, 1, SEED)
    tids = {step.tid for step in recording.steps if isinstance(step, Executable)}
    with recording.open() as capture:
        assert {event.tid for event in capture.events(kinds={EventKind.THREAD})} == tids
        assert {event.tid for event in capture.events(kinds={EventKind.THREAD_EXIT})} == tids


def test_many_short_processes_are_all_there(recorder: Recorder) -> None:
    loop = "i=0; while [ $i -lt 53 ]; do /bin/true; i=$((i+1)); done"
    recording = recorder.command("sh", "-c", loop)
    with recording.open() as capture:
        assert len(capture.processes) == 54
        kinds = Counter(event.kind for event in capture.events())
        assert (kinds[EventKind.FORK], kinds[EventKind.EXEC], kinds[EventKind.EXIT]) == (53, 54, 54)
        assert capture.complete


def test_process_that_gets_the_pid_of_another_is_not_mixed_with_it(recorder: Recorder) -> None:
    recording = recorder.workload("pid_reuse", SEED)
    first, second = (step for step in recording.steps if isinstance(step, Executable))
    assert (first.pid, first.address) == (second.pid, second.address)
    assert first.pages != second.pages
    with recording.open() as capture:
        lives = [process for process in capture.processes if process.pid == first.pid]
        assert [process.wait_status for process in lives] == [0, 1 << 8]
        pages = list(capture.pages(kinds={EventKind.MPROTECT}))
        assert [(page.content, page.generation) for page in pages] == [
            (content, 1) for flip in (first, second) for content in flip.pages.values()
        ]
        assert len(capture.regions(start=first.address, end=first.address + 1)) == 2
        # The second process had the page last; at the time of the first one it was the first one's.
        assert capture.read(first.pid, first.address, PAGE_SIZE) == second.pages[first.address]
        before = capture.read(first.pid, first.address, PAGE_SIZE, at=pages[0].timestamp_ns)
        assert before == first.pages[first.address]


def test_script_is_followed_into_its_interpreter(
    recorder: Recorder, workloads: Workloads, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\nexec {workloads.path('pages16')} {SEED}\n")
    script.chmod(0o700)
    recording = recorder.command(script)
    with recording.open() as capture:
        assert recorded(capture) == recording.said
        (process,) = capture.processes
        assert process.command_line == (str(workloads.path("pages16")), str(SEED))
        assert [event.comm for event in capture.events(kinds={EventKind.EXEC})] == ["script", "pages16"]


def test_process_killed_by_a_signal_ends_with_that_signal(recorder: Recorder) -> None:
    recording = recorder.command("sh", "-c", "kill -KILL $$")
    assert recording.ran.status == 128 + signal.SIGKILL
    with recording.open() as capture:
        assert only(capture, EventKind.EXIT).result == signal.SIGKILL
        assert capture.complete


def test_descendants_are_recorded_after_the_command_has_ended(
    recorder: Recorder, workloads: Workloads
) -> None:
    # GIVEN a command that leaves a child, which waits for a line
    path = recorder.new_path()
    script = f"exec 3<&0; echo $$; (read line; exec {workloads.path('pages16')} {SEED}) <&3 & exit 5"
    with running(*TOOL, "run", "-o", path, "--", "sh", "-c", script) as process:
        # WHEN the line comes after the command has ended
        await_end(int(line_from(process)))
        line_to(process)
        ran = end_of(process)
    # THEN the status is the command's, and what the child did is in the capture
    assert ran.status == 5
    with open_capture(path) as capture:
        assert recorded(capture) == said(parse(ran.out.splitlines()))
        assert capture.complete


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        pytest.param(["--no-follow"], {EventKind.EXEC, EventKind.EXIT}, id="no-follow"),
        pytest.param([], {EventKind.EXEC, EventKind.FORK, EventKind.EXIT}, id="follow"),
    ],
)
def test_descendants_are_followed_unless_told_not_to(
    recorder: Recorder, options: list[Argument], kinds: set[EventKind]
) -> None:
    recording = recorder.command("sh", "-c", "/bin/true; exit 3", options=options)
    assert recording.ran.status == 3
    with recording.open() as capture:
        steps = {event.kind for event in capture.events() if event.kind >= EventKind.FORK}
        assert steps == kinds


def test_target_inherits_nothing_from_the_tracer(recorder: Recorder) -> None:
    """Neither descriptors nor ignored or blocked signals."""
    script = "ls /proc/self/fd; grep -E '^Sig(Blk|Ign)' /proc/self/status; env"
    plain = execute(["sh", "-c", script])
    recording = recorder.command("sh", "-c", script)
    assert recording.ran.out.splitlines() == plain.out.splitlines()


def test_protection_change_by_the_kernel_at_exec_is_no_call(recorder: Recorder) -> None:
    recording = recorder.command("true")
    with recording.open() as capture:
        for event in capture.events(kinds={EventKind.EXEC_MAPPING}):
            assert event.protection & Protection.EXEC
            assert event.previous_protection is None
            assert event.arguments == ()

"""What a recording shall leave out stays in the kernel, and what it shall have is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from memory_tracer import EventKind, Protection, Settings, Tracer, open_capture
from memory_tracer.record.settings import ProtectionFilter
from tests.workloads import Executable, Workloads, parse

from .recording import Argument, Recorder, Recording, await_that, line_from, recorded, running, said

pytestmark = pytest.mark.privileged

SEED = 86028121
NOBODY = 65534


def kinds_in(recording: Recording) -> set[EventKind]:
    with recording.open() as capture:
        # Nothing is sent and then thrown away.
        assert capture.counters["kernel"]["events"] == capture.event_count
        return {event.kind for event in capture.events()}


@pytest.mark.parametrize(
    "kinds",
    [("mprotect",), ("exit",), ("exec", "fork"), ("exec_mapping", "munmap")],
    ids="+".join,
)
def test_only_the_kinds_asked_for_are_recorded(recorder: Recorder, kinds: tuple[str, ...]) -> None:
    options = [word for kind in kinds for word in ("--event", kind)]
    recording = recorder.workload("forks", SEED, options=options)
    assert kinds_in(recording) <= {EventKind[kind.upper()] for kind in kinds}
    with recording.open() as capture:
        assert capture.event_count > 0
        if "mprotect" in kinds:
            assert recorded(capture) == recording.said


def test_without_the_kind_of_their_call_pages_are_not_taken(recorder: Recorder) -> None:
    recording = recorder.workload("pages16", SEED, options=["--event", "exit"])
    assert kinds_in(recording) == {EventKind.EXIT}
    with recording.open() as capture:
        assert capture.page_count == 0


@pytest.mark.parametrize(
    ("protection", "found"),
    [
        ("x", {"r-x", "rwx"}),
        ("wx", {"rwx"}),
        ("rwx", {"rwx"}),
        ("r-x", {"r-x"}),
        ("any", {"r--", "rw-", "r-x", "rwx"}),
    ],
)
def test_protection_filter_chooses_the_calls(
    recorder: Recorder, tmp_path: Path, protection: str, found: set[str]
) -> None:
    recording = recorder.workload("mmap_exec", tmp_path, SEED, options=["--prot", protection])
    with recording.open() as capture:
        calls = capture.events(kinds={EventKind.MMAP, EventKind.MPROTECT})
        # What takes execute away is always told, or a region would seem executable for ever.
        gained = {
            str(event.protection)
            for event in calls
            if not (event.previous_protection or Protection.NONE) & Protection.EXEC
        }
        assert found <= gained
        assert gained <= found | {"---"} if protection == "any" else gained == found


@pytest.mark.emulated
def test_file_backed_mappings_can_be_left_out(recorder: Recorder, tmp_path: Path) -> None:
    recording = recorder.workload("wait_then_flip", tmp_path, SEED, options=["--exclude-file-backed"])
    with recording.open() as capture:
        backed = [event.region for event in capture.events() if event.region and event.region.file_backed]
        # Nobody can look a memfd or a deleted file up later: those stay.
        assert {Path(region.path or "").name for region in backed} == {"memfd:code", "deleted"}
        assert len(said(recording.steps)) == 1


def test_file_backed_mappings_can_be_left_out_of_the_baseline(
    recorder: Recorder, workloads: Workloads
) -> None:
    path = recorder.new_path()
    settings = Settings(exclude_file_backed=True)
    with running(workloads.path("wait_then_flip"), recorder.directory, SEED) as process:
        steps = list(parse(line_from(process) for _ in range(4)))
        with Tracer.attach(process.pid, output=path, settings=settings) as tracer:
            await_that(lambda: _baseline_pages(tracer.path) >= 6, "the baseline")
    with open_capture(path) as capture:
        found = {event.region.start for event in capture.events(kinds={EventKind.BASELINE}) if event.region}
        assert {step.address for step in steps if isinstance(step, Executable)} <= found
        backed = [event.region for event in capture.events() if event.region and event.region.file_backed]
        assert {Path(region.path or "").name for region in backed} == {"memfd:code", "deleted"}


def _baseline_pages(path: Path) -> int:
    with open_capture(path) as capture:
        return capture.page_count


def test_protection_filter_holds_for_the_baseline(recorder: Recorder, workloads: Workloads) -> None:
    path = recorder.new_path()
    settings = Settings(protection=ProtectionFilter.parse("wx"))
    with running(workloads.path("wait_then_flip"), recorder.directory, SEED) as process:
        for _ in range(4):
            line_from(process)
        with Tracer.attach(process.pid, output=path, settings=settings, duration=0.05) as tracer:
            list(tracer.events())
    with open_capture(path) as capture:
        assert capture.end is not None
        assert list(capture.events(kinds={EventKind.BASELINE})) == []


def test_user_filter_takes_only_that_users_threads(recorder: Recorder, workloads: Workloads) -> None:
    program = workloads.path("pages16")
    as_nobody = (
        f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "
        "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
    )
    script = f"{program} {SEED}; {as_nobody} {program} {SEED + 100}"
    recording = recorder.command("sh", "-c", script, options=["--uid", NOBODY])
    _, of_nobody = (step for step in recording.steps if isinstance(step, Executable))
    with recording.open() as capture:
        assert recorded(capture) == said([of_nobody])
        assert {event.uid for event in capture.events()} == {NOBODY}


@pytest.mark.parametrize("options", [["--comm", "pages16"], ["--comm", "pages1"]], ids=["whole", "prefix"])
def test_name_filter_takes_only_threads_with_exactly_that_name(
    recorder: Recorder, workloads: Workloads, options: Sequence[Argument]
) -> None:
    script = f"{workloads.path('generations')} 3 {SEED}; {workloads.path('pages16')} {SEED}"
    recording = recorder.command("sh", "-c", script, options=options)
    last = [step for step in recording.steps if isinstance(step, Executable)][-1]
    with recording.open() as capture:
        names = {event.comm for event in capture.events()}
        assert (recorded(capture), names) == (
            (said([last]), {"pages16"}) if options[1] == "pages16" else ({}, set())
        )

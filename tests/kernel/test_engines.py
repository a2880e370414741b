"""Every way the program can loop over pages, as older kernels make it, records the same bytes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from memory_tracer import EventKind, Settings, Tracer, UsageError, open_capture
from memory_tracer.record.kernel import Kernel
from memory_tracer.record.settings import PAGE_LOOPS
from tests.workloads import PAGE_SIZE, Executable, Workloads, parse

from .recording import Argument, Ran, Recorder, Recording, await_that, old_files, recorded, tool

pytestmark = pytest.mark.privileged

SEED = 49979687


@dataclass(frozen=True)
class Engine:
    """Records a command in this process, with one page loop, with or without reading page tables."""

    page_loop: str
    recorder: Recorder
    workloads: Workloads
    capfd: pytest.CaptureFixture[str]

    def record(self, name: str, *arguments: Argument) -> Recording:
        """Record a workload to its end."""
        path = self.recorder.new_path()
        command = [str(self.workloads.path(name)), *map(str, arguments)]
        with Tracer.spawn(
            command, output=path, settings=replace(old_files(), page_loop=self.page_loop)
        ) as tracer:
            list(tracer.pages())
        assert tracer.wait() == 0
        printed = self.capfd.readouterr()
        return Recording(path, Ran(0, printed.out.encode(), printed.err))


@pytest.fixture(params=[*PAGE_LOOPS, "iterator, page by page"])
def engine(
    request: pytest.FixtureRequest,
    recorder: Recorder,
    workloads: Workloads,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Engine:
    """Each page loop there is; the last one as on machines whose page tables are not known."""
    page_loop, _, page_by_page = request.param.partition(", ")
    if page_by_page:
        monkeypatch.setattr(Kernel, "physical_mask", 0)
    return Engine(page_loop, recorder, workloads, capfd)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("pages16", (SEED,), id="pages16"),
        pytest.param("generations", (23, SEED), id="generations"),
        pytest.param("forks", (SEED,), id="forks"),
        pytest.param("big", (3, SEED), id="big"),
        pytest.param("huge", (1, SEED), id="huge"),
    ],
)
def test_page_loop_records_what_the_workload_says(
    engine: Engine, name: str, arguments: tuple[int, ...]
) -> None:
    recording = engine.record(name, *arguments)
    with recording.open() as capture:
        assert capture.metadata["page_loop"] == engine.page_loop
        assert recorded(capture) == recording.said


def test_page_loop_is_bounded_on_a_sparse_region(engine: Engine) -> None:
    recording = engine.record("sparse", 16, 3, 13, SEED)
    flips = [step for step in recording.steps if isinstance(step, Executable)]
    contents = {page for flip in flips for page in flip.pages.values()}
    with recording.open() as capture:
        there = {page.content for page in capture.pages(missing=False, kinds={EventKind.MPROTECT})}
        assert there - {bytes(PAGE_SIZE)} == contents
        assert capture.stored_bytes < 1 << 20


def test_mappings_of_an_executed_program_are_known_with_every_page_loop(engine: Engine) -> None:
    # GIVEN a program that goes on for long enough to be asked about
    path, pipe = engine.recorder.new_path(), engine.recorder.directory / "pipe"
    os.mkfifo(pipe)
    program = engine.workloads.path("wait_then_flip")
    command = ["sh", "-c", f"exec {program} {engine.recorder.directory} {SEED} <{pipe}"]
    with (
        pipe.open("r+b", buffering=0) as target,
        Tracer.spawn(
            command, output=path, settings=replace(old_files(), page_loop=engine.page_loop)
        ) as tracer,
    ):
        await_that(lambda: str(program) in _mapped_files(path), "the program's code is in the capture")
        target.write(b"\n\n")
        assert tracer.wait() == 0
    steps = list(parse(engine.capfd.readouterr().out.splitlines()))
    assert len(steps) == 5


def _mapped_files(path: Path) -> set[str | None]:
    with open_capture(path) as capture:
        return {event.region.path for event in capture.events(kinds={EventKind.EXEC_MAPPING}) if event.region}


def test_page_loop_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="iterator, callback, bounded"):
        Settings(page_loop="recursion")


@pytest.mark.emulated
def test_doctor_names_the_page_loop_and_that_all_is_well() -> None:
    ran = tool("doctor", "--json")
    assert ran.status == 0
    findings = {line["subject"]: line for line in map(json.loads, ran.out.splitlines())}
    assert findings["page loop"]["state"] == Kernel().page_loop
    assert all(finding["ok"] for finding in findings.values())
    _, *lines = tool("doctor").out.decode().splitlines()
    assert len(lines) == len(findings)
    assert all(line.startswith("ok ") for line in lines)

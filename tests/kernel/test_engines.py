"""Every way the program can see calls and loop over pages, as older kernels make it, records the same."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from memory_tracer import EventKind, Settings, Tracer, UnsupportedError, UsageError, open_capture
from memory_tracer.record.kernel import Kernel
from memory_tracer.record.loader import Program
from memory_tracer.record.settings import PAGE_LOOPS
from tests.workloads import PAGE_SIZE, Executable, Workloads, parse

from . import machine
from .recording import Argument, Ran, Recorder, Recording, await_that, old_files, recorded, tool

pytestmark = pytest.mark.privileged

SEED = 49979687


@dataclass(frozen=True)
class Engine:
    """Records a command in this process, with settings that choose parts of the kernel program."""

    settings: Settings
    recorder: Recorder
    workloads: Workloads
    capfd: pytest.CaptureFixture[str]

    def record(self, name: str, *arguments: Argument) -> Recording:
        """Record a workload to its end."""
        path = self.recorder.new_path()
        command = [str(self.workloads.path(name)), *map(str, arguments)]
        with Tracer.spawn(command, output=path, settings=self.settings) as tracer:
            list(tracer.pages())
        assert tracer.wait() == 0
        printed = self.capfd.readouterr()
        return Recording(path, Ran(0, printed.out.encode(), printed.err))


ENGINES: dict[str, dict[str, Any]] = {
    **{page_loop: {"page_loop": page_loop, "hook": "tracepoint"} for page_loop in PAGE_LOOPS},
    "page by page": {"page_loop": "iterator"},
    **{hook: {"hook": hook} for hook in machine.hooks()},
    **{f"{hook}, calls on memory only": {"hook": hook, "all_calls": False} for hook in machine.hooks()},
}


@pytest.fixture(params=ENGINES)
def engine(
    request: pytest.FixtureRequest,
    recorder: Recorder,
    workloads: Workloads,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Engine:
    """Each there is; page by page it goes on machines whose page tables are not known."""
    if request.param == "page by page":
        monkeypatch.setattr(Kernel, "physical_mask", 0)
    settings = replace(old_files(), **ENGINES[request.param])
    return Engine(settings, recorder, workloads, capfd)


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
def test_engine_records_what_the_workload_says(engine: Engine, name: str, arguments: tuple[int, ...]) -> None:
    recording = engine.record(name, *arguments)
    with recording.open() as capture:
        assert capture.metadata["page_loop"] == (engine.settings.page_loop or Kernel().page_loop)
        assert capture.metadata["hook"] == (engine.settings.hook or machine.hooks()[0])
        assert recorded(capture) == recording.said


def test_engine_is_bounded_on_a_sparse_region(engine: Engine) -> None:
    recording = engine.record("sparse", 16, 3, 13, SEED)
    flips = [step for step in recording.steps if isinstance(step, Executable)]
    contents = {page for flip in flips for page in flip.pages.values()}
    with recording.open() as capture:
        there = {page.content for page in capture.pages(missing=False, kinds={EventKind.MPROTECT})}
        assert there - {bytes(PAGE_SIZE)} == contents
        assert capture.stored_bytes < 1 << 20


def test_mappings_of_an_executed_program_are_known_with_every_engine(engine: Engine) -> None:
    # GIVEN a program that goes on for long enough to be asked about
    path, pipe = engine.recorder.new_path(), engine.recorder.directory / "pipe"
    os.mkfifo(pipe)
    program = engine.workloads.path("wait_then_flip")
    command = ["sh", "-c", f"exec {program} {engine.recorder.directory} {SEED} <{pipe}"]
    with (
        pipe.open("r+b", buffering=0) as target,
        Tracer.spawn(command, output=path, settings=engine.settings) as tracer,
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


def test_hook_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="mm-lock, tracepoint, fexit"):
        Settings(hook="fishing")


@pytest.mark.skipif(machine.hooks()[0] != "mm-lock", reason="this kernel has no hook mm-lock (Linux 6.18)")
def test_hook_mm_lock_without_its_page_loop_is_refused_in_one_sentence() -> None:
    with pytest.raises(UnsupportedError, match="use --hook tracepoint"):
        Program(Settings(page_loop="bounded", hook="mm-lock"), Kernel())


@pytest.mark.skipif("fexit" in machine.hooks(), reason="this kernel has the hook fexit")
def test_hook_fexit_where_it_cannot_be_used_is_refused_in_one_sentence() -> None:
    with pytest.raises(UnsupportedError, match="the hook fexit cannot be used, because "):
        Program(Settings(hook="fexit"), Kernel())


@pytest.mark.emulated
def test_doctor_names_the_page_loop_and_that_all_is_well() -> None:
    ran = tool("doctor", "--json")
    assert ran.status == 0
    findings = {line["subject"]: line for line in map(json.loads, ran.out.splitlines())}
    assert findings["page loop"]["state"] == Kernel().page_loop
    assert findings["hook"]["state"] == machine.hooks()[0]
    assert all(finding["ok"] for finding in findings.values())
    _, *lines = tool("doctor").out.decode().splitlines()
    assert len(lines) == len(findings)
    assert all(line.startswith("ok ") for line in lines)

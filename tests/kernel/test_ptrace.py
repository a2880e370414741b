"""The ptrace engine: every turn from writing to executing, and nothing that the target could notice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

import memory_tracer as mt
from memory_tracer.model import EventKind
from tests.workloads import PAGE_SIZE, Step, Workloads, parse, random_pages

from .recording import (
    OLD_FILES,
    TOOL,
    Recorder,
    Recording,
    await_pages,
    end_of,
    execute,
    line_from,
    line_to,
    losses_of,
    recorded,
    running,
    tool,
)
from .test_runtimes import COMMANDS, classes, command_of

__all__ = ["classes"]

PTRACE = ("--engine", "ptrace", *OLD_FILES)
SEED = 15485863


def traced(recorder: Recorder, name: str, *arguments: str | int | Path) -> Recording:
    recording = recorder.workload(name, *arguments, options=("--engine", "ptrace"))
    with recording.open() as capture:
        assert capture.metadata["engine"] == "ptrace"
        assert losses_of(capture) == frozenset()
    return recording


@pytest.mark.parametrize(
    ("count", "threads", "view"),
    [
        pytest.param(10_000, 1, (), id="one page"),
        pytest.param(10_000, 2, (), id="two threads, two pages"),
        pytest.param(10_000, 1, ("memfd",), id="two views of a memfd"),
    ],
)
def test_every_generation_of_a_page_is_there_in_order_and_exact(
    recorder: Recorder, count: int, threads: int, view: Sequence[str]
) -> None:
    recording = traced(recorder, "rwx_generations", count, SEED, threads, *view)
    places = {
        step.fields["thread"]: step.fields["address"] for step in recording.steps if isinstance(step, Step)
    }
    assert len(places) == threads
    with recording.open() as capture:
        for thread, address in places.items():
            written = random_pages(SEED + thread * count + 1, count)
            expected = [
                b"\xb8" + (number & 0xFFFF).to_bytes(4, "little") + b"\xc3" + page[6:]
                for number, page in enumerate(written, 1)
            ]
            pages = [page for page in capture.pages(kinds={EventKind.FETCH}) if page.address == address]
            assert [page.generation for page in pages] == list(range(1, count + 1))
            assert [page.content for page in pages] == expected


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("pages16", (SEED,), id="pages16"),
        pytest.param("generations", (43, SEED), id="generations"),
        pytest.param("forks", (SEED,), id="forks"),
        pytest.param("big", (3, SEED), id="big"),
        pytest.param("threads", (), id="threads"),
        pytest.param("huge", (1, SEED), id="huge"),
    ],
)
def test_what_calls_make_executable_is_recorded_as_the_workload_says(
    recorder: Recorder, name: str, arguments: Sequence[int]
) -> None:
    recording = traced(recorder, name, *arguments)
    with recording.open() as capture:
        assert recorded(capture) == recording.said


def test_program_sees_its_own_faults_and_signals_as_ever(recorder: Recorder, workloads: Workloads) -> None:
    program = workloads.path("own_faults")
    alone = execute([program])
    recording = recorder.command(program, options=PTRACE)
    assert alone.status == -signal.SIGUSR1
    assert recording.ran.status == 128 + signal.SIGUSR1
    told = [[step.fields for step in parse(out.splitlines())] for out in (alone.out, recording.ran.out)]  # type: ignore[union-attr]
    assert len(told[0]) == 3
    assert told[0] == told[1]


def test_program_executed_by_another_thread_than_the_first_is_followed(recorder: Recorder) -> None:
    recording = recorder.workload("thread_exec", options=("--engine", "ptrace"))
    with recording.open() as capture:
        (process,) = capture.processes
        assert process.wait_status == 0
        assert len(list(capture.events(kinds={EventKind.EXEC}))) >= 2


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "ruby"])
def test_runtime_gives_the_same_output_and_its_code_is_in_the_capture(
    recorder: Recorder, name: str, classes: Path
) -> None:
    command = command_of(name, classes)
    alone = execute(command)
    recording = recorder.command(*command, options=PTRACE)
    assert (recording.ran.status, recording.ran.out) == (alone.status, alone.out)
    with recording.open() as capture:
        made = [page for page in capture.pages(missing=False) if page.event is not EventKind.EXEC_MAPPING]
        assert made
        assert losses_of(capture) == frozenset()


def test_sbcl_compiles_and_executes_as_ever(recorder: Recorder) -> None:
    if shutil.which("sbcl") is None:
        pytest.skip("sbcl is not installed")
    form = "(dotimes (i 20) (print (funcall (compile nil `(lambda (x) (* x ,i))) 7)))"
    command = ("sbcl", "--noinform", "--non-interactive", "--eval", form)
    alone = execute(command)
    recording = recorder.command(*command, options=PTRACE)
    assert (recording.ran.status, recording.ran.out) == (0, alone.out)
    with recording.open() as capture:
        assert any(page.event is EventKind.FETCH for page in capture.pages(missing=False))


@pytest.mark.parametrize("ending", ["duration", "interrupt"])
def test_process_that_was_attached_to_goes_on_with_the_protection_it_asked_for(
    recorder: Recorder, workloads: Workloads, ending: str
) -> None:
    path = recorder.new_path()
    with running(workloads.path("rwx_loop")) as target:
        address = json.loads(line_from(target))["address"]
        duration = ("--duration", "1") if ending == "duration" else ()
        command = ("attach", "-q", "-o", path, *PTRACE, *duration, target.pid)
        if ending == "duration":
            assert tool(*command).status == 0
        else:
            with running(*TOOL, *command) as tracer:
                await_pages(path, 5)
                tracer.send_signal(signal.SIGINT)
                assert end_of(tracer).status == 0
        status = Path(f"/proc/{target.pid}/status").read_text()
        assert "TracerPid:\t0\n" in status
        line_to(target)
        ended = end_of(target)
    assert ended.status == 0, ended.err
    (said,) = [step for step in parse(ended.out.splitlines()) if isinstance(step, Step)]
    assert said.fields["protection"] == "rwxp"
    with mt.open_capture(path) as capture:
        pages = [page for page in capture.pages(missing=False) if page.address == address]
    assert pages[0].event is EventKind.BASELINE
    assert len(pages) > 1
    assert all(len(page.content or b"") == PAGE_SIZE for page in pages)


def test_process_that_flips_survives_whenever_its_tracer_is_killed(
    recorder: Recorder, workloads: Workloads
) -> None:
    moments = random.Random(SEED)
    with running(workloads.path("rwx_loop"), "flips") as target:
        line_from(target)
        for _ in range(20):
            path = recorder.new_path()
            with running(*TOOL, "attach", "-q", "-o", path, *PTRACE, target.pid) as tracer:
                await_pages(path, 1)
                time.sleep(moments.uniform(0, 0.2))
                tracer.send_signal(signal.SIGKILL)
                assert end_of(tracer).status == -signal.SIGKILL
            assert "TracerPid:\t0\n" in Path(f"/proc/{target.pid}/status").read_text()
        line_to(target)
        ended = end_of(target)
    assert ended.status == 0, ended.err
    assert json.loads(ended.out.splitlines()[-1])["protection"] == "r-xp"


def test_command_without_its_tracer_may_still_make_other_calls(
    recorder: Recorder, workloads: Workloads
) -> None:
    # GIVEN a launched command that flips
    path = recorder.new_path()
    command = (*TOOL, "run", "-q", "-o", path, *PTRACE, "--", workloads.path("rwx_loop"), "flips")
    with running(*command) as tracer:
        line_from(tracer)
        await_pages(path, 1)
        # WHEN the tracer is killed
        tracer.send_signal(signal.SIGKILL)
        # THEN the next call of the command that makes memory executable fails, and it can say so
        assert tracer.stderr is not None
        assert tracer.stderr.readline() == b"mprotect: Function not implemented\n"
        end_of(tracer)
    # AND what had arrived is in the capture, which says that it was not closed
    with mt.open_capture(path) as capture:
        assert "not-closed" in losses_of(capture)


def test_command_goes_on_after_an_interrupt_and_is_waited_for(
    recorder: Recorder, workloads: Workloads
) -> None:
    path = recorder.new_path()
    command = (*TOOL, "run", "-o", path, *PTRACE, "--", workloads.path("rwx_loop"))
    with running(*command) as tracer:
        line_from(tracer)
        await_pages(path, 5)
        tracer.send_signal(signal.SIGINT)
        assert tracer.stderr is not None
        while b"cannot do without their tracer" not in tracer.stderr.readline():
            assert tracer.poll() is None
        line_to(tracer)
        ended = end_of(tracer)
    assert json.loads(ended.out.splitlines()[-1])["protection"] == "rwxp"


def test_recording_takes_no_capability(recorder: Recorder, workloads: Workloads) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.geteuid():
        pytest.skip("this takes root, to give it up, and setpriv")
    path = recorder.new_path()
    without = (setpriv, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    ran = execute((*without, *TOOL, "run", "-o", path, *OLD_FILES, "--", workloads.path("rwx_generations")))
    assert ran.status == 0, ran.err
    assert "using the ptrace engine, because" in ran.err.splitlines()[0]
    with mt.open_capture(path) as capture:
        assert capture.metadata["engine"] == "ptrace"
        assert len(list(capture.pages(kinds={EventKind.FETCH}))) == 17


def test_registers_and_the_address_that_faulted_are_those_of_the_jump(recorder: Recorder) -> None:
    recording = traced(recorder, "known_registers", 5)
    jumps = [step.fields for step in recording.steps if isinstance(step, Step) and step.name == "jump"]
    with recording.open() as capture:
        events = list(capture.events(kinds={EventKind.FETCH}))
        others = [event for event in capture.events() if event.kind is not EventKind.FETCH]
    assert len(jumps) == len(events) == 5
    for jump, event in zip(jumps, events, strict=True):
        assert event.registers is not None
        found = dict(event.registers.items())
        # Of the flags, interrupts are on, one bit is always set, and a fault sets RF (Intel SDM, volume 3).
        flags = jump["values"]["eflags"] | 0x202
        assert found["eflags"] & ~0x10000 == flags
        assert found == found | jump["values"] | {"eflags": found["eflags"], "rip": jump["to"]}
        assert event.fault_address == event.caller == jump["to"]
        assert (found["cs"], found["ss"]) == (0x33, 0x2B)
        assert found["orig_rax"] == 2**64 - 1
    assert all(event.registers is None and event.fault_address is None for event in others)


def test_registers_are_shown(recorder: Recorder) -> None:
    recording = traced(recorder, "known_registers", 1)
    (jump,) = [step.fields for step in recording.steps if isinstance(step, Step) and step.name == "jump"]
    lines = tool("events", recording.path, "--registers", "--event", "fetch").out.decode().splitlines()
    assert lines[1].endswith(f"fault={jump['to']:#x}")
    shown = dict(word.split("=") for line in lines[2:] for word in line.split())
    assert shown["rip"] == hex(jump["to"])
    assert shown["r15"] == hex(jump["values"]["r15"])
    assert len(shown) == 27
    (event,) = map(json.loads, tool("events", recording.path, "--json", "--event", "fetch").out.splitlines())
    assert event["fault_address"] == hex(jump["to"])
    assert event["registers"].items() >= shown.items()


def test_engine_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(mt.UsageError, match="auto, ebpf, ptrace"):
        mt.Tracer.spawn(["true"], engine="kprobes", output=tmp_path / "x.mtrace")


def test_recording_from_python_ends_with_its_target(workloads: Workloads) -> None:
    with mt.Tracer.spawn([str(workloads.path("rwx_generations")), "5"], engine="ptrace") as tracer:
        pages = [page for page in tracer.pages() if page.event is EventKind.FETCH]
    assert tracer.wait() == 0
    assert len(pages) == 5
    assert all(page.evidence & mt.Evidence.FAULT for page in pages)

"""The benchmarks run their smallest cases, and what they report is what happened."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.bench import Bench
from benchmarks.bystander import Bystander
from benchmarks.document import render
from benchmarks.flips import Bursts, Case, Flips
from benchmarks.generators.measure import Subject
from benchmarks.generators.programs import GENERATORS
from benchmarks.generators.table import render as render_generators
from benchmarks.samples import Spread, rotated
from benchmarks.startup import Startup
from benchmarks.tables import Chart, Table
from benchmarks.tracers import (
    ALL_TRACERS,
    MEMORY_TRACER,
    STRACE,
    UNTRACED,
    WITH_PTRACE,
    BenchmarkError,
    Tracer,
    run,
    running,
)

SMALLEST = Case("new", pages=2, flips=17)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    return Bench(tmp_path)


@pytest.mark.privileged
@pytest.mark.parametrize("mode", ["new", "ready", "changed", "unchanged"])
def test_every_flip_of_the_target_is_in_the_capture(bench: Bench, mode: str) -> None:
    target = [bench.program("flips"), mode, "2", "17", "0"]
    done = run(MEMORY_TRACER, target, bench.directory)
    captured = done.captured
    assert captured is not None
    assert done.usage.cpu_ns > 0
    assert done.usage.peak_bytes > 1 << 20
    assert captured.lost == 0
    # The 16 flips of the warm-up change the region, too; an unchanged one is stored while it is not hot yet.
    expected = {"new": 17 * 2, "ready": 17 * 2, "changed": (16 + 17) * 2, "unchanged": 2}
    assert captured.pages >= expected[mode]


@pytest.mark.privileged
def test_strace_sees_the_calls_it_is_compared_for(bench: Bench) -> None:
    trace = bench.directory / "calls"
    command = [part.format(trace=trace) for part in STRACE.prefix]
    run(UNTRACED, [*command, bench.program("flips"), "new", "2", "17", "0"], bench.directory)
    assert trace.read_text().count("8192, PROT_READ|PROT_EXEC) = 0") == 17


@pytest.mark.privileged
def test_measurements_have_one_sample_for_each_tracer_and_round(bench: Bench) -> None:
    flips, bursts = Flips(bench, [SMALLEST]), Bursts(bench, [SMALLEST])
    for number in range(2):
        flips.run_round(number)
        bursts.run_round(number)
    for tracer in ALL_TRACERS:
        assert len(flips.samples[SMALLEST, tracer]) == 2
        assert all(sample.median_ns > 0 for sample in flips.samples[SMALLEST, tracer])
    assert [sample.lost for sample in bursts.samples[SMALLEST]] == [0, 0]
    text = render([flips, bursts], {"kernel": "Linux 0"})
    assert "a new region each time" in text
    assert "- kernel: Linux 0" in text


@pytest.mark.privileged
def test_bystander_is_measured_while_another_process_is_traced(bench: Bench) -> None:
    bystander = Bystander(Bench(bench.directory, scale=0.01))
    bystander.run_round(0)
    assert set(bystander.samples) == set(ALL_TRACERS)
    assert len(bystander.tables()[0].rows) == 3 * len(ALL_TRACERS)


@pytest.mark.privileged
def test_first_instruction_lies_between_start_and_end(bench: Bench) -> None:
    startup = Startup(bench)
    startup.run_round(0)
    for tracer in ALL_TRACERS:
        for sample in startup.samples[tracer.name]:
            assert sample.first_ns is not None
            assert 0 < sample.first_ns < sample.end_ns


@pytest.mark.privileged
@pytest.mark.parametrize("tracer", [MEMORY_TRACER, WITH_PTRACE], ids=["ebpf", "ptrace"])
def test_code_that_a_generator_dumps_is_compared_with_the_capture(bench: Bench, tracer: Tracer) -> None:
    generator = next(one for one in GENERATORS if one.name == "LuaJIT")
    if not generator.installed:
        pytest.skip("luajit is not installed")
    subject = Subject(bench, generator, tracer)
    subject.run_round(0)
    (measured,) = subject.rounds
    assert measured.same_output
    assert measured.comparison.every_version.total > 0
    assert measured.comparison.every_version.exact == measured.comparison.every_version.total
    text = render_generators([(generator, subject.rounds), (GENERATORS[0], [])], "Linux 0")
    assert "| LuaJIT " in text
    assert "Not installed where this was measured: Node." in text


def test_command_that_fails_is_an_error_with_its_last_words(bench: Bench) -> None:
    with pytest.raises(BenchmarkError, match="so it ends"):
        run(UNTRACED, ["sh", "-c", "echo so it ends >&2; exit 3"], bench.directory)


def test_command_that_does_not_wait_is_no_neighbour(bench: Bench) -> None:
    with pytest.raises(BenchmarkError), running(UNTRACED, ["false"], bench.directory):
        pytest.fail("there is nothing to measure beside")


def test_stopped_command_says_so(bench: Bench) -> None:
    assert run(UNTRACED, ["sleep", "infinity"], bench.directory, stop_after=0.1).stopped


def test_spread_is_median_and_extremes() -> None:
    assert Spread.of([3000, 1000, 9000]).text("µs", 1000) == "3.0 (1.0 to 9.0) µs"
    assert Spread.of([0, 0]).text("", digits=0) == "0"


def test_each_round_starts_with_another_case() -> None:
    assert [rotated("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]
    assert sorted(rotated("abc", 2)) == ["a", "b", "c"]


def test_table_is_aligned_markdown() -> None:
    table = Table(("name", "n"))
    table.add("long name", "12")
    assert table.markdown().splitlines() == ["| name      |  n |", "| :-------- | -: |", "| long name | 12 |"]


def test_chart_is_mermaid() -> None:
    chart = Chart("speed", "ratio", ("one", "two"), (1.0, 2.0), (3.0, 10.0))
    assert chart.markdown().splitlines() == [
        "```mermaid",
        "xychart-beta",
        '    title "speed"',
        '    x-axis ["one", "two"]',
        '    y-axis "ratio" 0 --> 11.0',
        "    bar [1.00, 2.00]",
        "    line [3.00, 10.00]",
        "```",
    ]

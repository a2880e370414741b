"""Real code generators run as they always do, and what they generate is in the capture."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import memory_tracer as mt

from .recording import Ran, Recorder, Recording, execute, tool

pytestmark = pytest.mark.privileged

RUNTIMES = Path(__file__).parent.parent / "runtimes"

PHP = (
    "php",
    "-d",
    "opcache.enable_cli=1",
    "-d",
    "opcache.jit_buffer_size=32M",
    "-d",
    "opcache.jit=1205",
    RUNTIMES / "loop.php",
)

COMMANDS: dict[str, Sequence[str | Path]] = {
    "luajit": ("luajit", RUNTIMES / "loop.lua"),
    "ruby": ("ruby", "--yjit", "--yjit-call-threshold=2", RUNTIMES / "loop.rb"),
    "php": PHP,
    "node": ("node", RUNTIMES / "loop.js"),
    "pypy3": ("pypy3", RUNTIMES / "loop.py"),
    "java": ("java", "-cp", "CLASSES", "Loop"),
}


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the compiled Java program."""
    directory = tmp_path_factory.mktemp("classes")
    if shutil.which("javac"):
        subprocess.run(["javac", "-d", directory, RUNTIMES / "Loop.java"], check=True)
    return directory


def command_of(name: str, classes: Path) -> list[str | Path]:
    if shutil.which(name) is None or (name == "java" and shutil.which("javac") is None):
        pytest.skip(f"{name} is not installed")
    return [classes if part == "CLASSES" else part for part in COMMANDS[name]]


def generated(recording: Recording) -> list[mt.RegionHistory]:
    """The regions that no linked file backs and that have bytes in the capture."""
    with recording.open() as capture:
        return [
            region
            for region in capture.regions()
            if region.pages and (region.unlinked or not region.region.file_backed)
        ]


@pytest.mark.parametrize("name", COMMANDS)
def test_runtime_gives_the_same_output_and_its_code_is_recorded(
    name: str, classes: Path, recorder: Recorder
) -> None:
    command = command_of(name, classes)
    untraced: Ran = execute(command)
    recording = recorder.command(*command)
    assert (recording.ran.status, recording.ran.out) == (untraced.status, untraced.out)
    assert untraced.status == 0
    assert generated(recording)


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("luajit", "LuaJIT"),
        ("ruby", "YJIT"),
        ("php", "PHP"),
        ("node", "V8"),
        ("pypy3", "PyPy"),
        ("java", "HotSpot"),
    ],
)
def test_report_knows_whose_code_it_is(name: str, runtime: str, classes: Path, recorder: Recorder) -> None:
    recording = recorder.command(*command_of(name, classes))
    report = json.loads(tool("report", recording.path, "--json").out)
    assert {group["runtime"] for group in report["generated"]} == {runtime}
    assert {region["runtime"] for region in report["regions"] if region["pages"]} == {runtime}


def test_every_trace_of_luajit_is_in_the_capture_byte_for_byte(recorder: Recorder, tmp_path: Path) -> None:
    if shutil.which("luajit") is None:
        pytest.skip("luajit is not installed")
    traces = tmp_path / "traces"
    recording = recorder.command("luajit", RUNTIMES / "loop.lua", traces)
    lines = [line.split() for line in traces.read_text().splitlines()]
    assert len(lines) > 5
    with recording.open() as capture:
        (process,) = capture.processes
        for address, code in lines:
            expected = bytes.fromhex(code)
            assert capture.read(process.pid, int(address), len(expected)) == expected


def test_php_jit_buffer_is_recorded_as_far_as_it_is_used(recorder: Recorder) -> None:
    if shutil.which("php") is None:
        pytest.skip("php is not installed")
    recording = recorder.command(*PHP, options=["-q"])
    used = int(recording.ran.err.splitlines()[-1])
    assert used > mt.model.PAGE_SIZE
    (buffer,) = (region for region in generated(recording) if region.region.length == 32 << 20)
    assert buffer.pages * mt.model.PAGE_SIZE >= used


def test_region_of_128_mebibytes_flipped_for_every_method_stays_bounded(recorder: Recorder) -> None:
    """Ruby 3.1 fills its whole region with one pattern; each page of that is stored once, not per flip."""
    command = command_of("ruby", Path())
    recording = recorder.command(*command)
    with recording.open() as capture:
        regions = (region for region in capture.regions() if region.region.length == 128 << 20)
        region = max(regions, key=lambda region: region.flips)
        assert region.flips > 1000
        assert region.generations > 1
        assert capture.stored_bytes < region.region.length

"""What Node says of the functions it compiles names the captured code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import memory_tracer as mt
from memory_tracer.show.symbols import Function, SymbolFiles

from .recording import Recorder, tool
from .test_runtimes import RUNTIMES

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]


def compiled(files: SymbolFiles, pid: int) -> list[Function]:
    """Return the functions of the script that V8 optimised."""
    return [one for one in files.of(pid).within(0, 1 << 64) if one.name.startswith("JS:*")]


def check(path: Path, names: Path, pid: int) -> None:
    """Each region that a function is in is named, and its instructions begin with the name."""
    functions = compiled(SymbolFiles([names]), pid)
    assert functions
    function = functions[-1]
    shown = tool("show", path, hex(function.start), "--size", "32", "--disasm", "--symbols", names)
    assert shown.status == 0, shown.err
    lines = shown.out.decode().splitlines()
    named = lines.index(f"{function.name}:")
    assert lines[named + 1].startswith(f"{function.start:#014x}  ")
    assert b"named functions: " in tool("report", path, "--symbols", names).out


def test_a_perf_map_of_node_names_its_code(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("capstone")
    monkeypatch.chdir(tmp_path)  # V8 leaves a log where it runs
    recording = recorder.command("node", "--perf-basic-prof", RUNTIMES / "loop.js")
    with recording.open() as capture:
        (process,) = capture.processes
    written = Path(f"/tmp/perf-{process.pid}.map")
    names = tmp_path / written.name
    shutil.move(written, names)
    check(recording.path, names, process.pid)


def test_a_jitdump_of_node_names_its_code(tmp_path: Path) -> None:
    pytest.importorskip("capstone")
    path = tmp_path / "node.mtrace"
    # Node writes it into its working directory.
    ran = tool("run", "-o", path, "--", "node", "--perf-prof", RUNTIMES / "loop.js", cwd=tmp_path)
    assert ran.status == 0, ran.err
    (names,) = tmp_path.glob("jit-*.dump")
    with mt.open_capture(path) as capture:
        (process,) = capture.processes
    check(path, names, process.pid)

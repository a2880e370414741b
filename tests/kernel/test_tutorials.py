"""The tutorials do what they say: their files are written, their commands typed, their lines compared."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .recording import ENVIRONMENT, SOURCE

pytestmark = pytest.mark.privileged

ROOT = Path(__file__).parents[2]
#: Files of a tutorial have their name above them, in bold.
FILE = re.compile(r"^\*\*([\w.]+)\*\*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What every tutorial types, as programs that stand before all others.
PROGRAMS = {
    "sudo": 'exec "$@"',
    "python": f'exec {sys.executable} "$@"',
    "memory-tracer": f'exec {sys.executable} -m memory_tracer "$@"',
}
#: Where a command's output ends.
MARK = "==== the end of command"


def steps(document: Path) -> list[tuple[str, list[str]]]:
    """Return each command of a document and the lines that are shown below it."""
    found: list[tuple[str, list[str]]] = []
    for block in CONSOLE.findall(document.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line != "[...]":
                found[-1][1].append(line)
    return found


def normal(line: str) -> str:
    """Return a line without what is different each time: numbers, excerpts, directories, columns' widths."""
    line = re.sub(r"\b0x[0-9a-f]+|\b[\d,]*\d(\.\d+)?", "N", line)
    line = re.sub(r"\S*/(?=score\.js)", "", line)
    line = re.sub(r"(named functions?): .*", r"\1", line)
    return re.sub(r"\bm?s\b|\bpages?\b|  +", " ", line).strip()


def test_each_command_of_a_tutorial_has_the_lines_it_shows(document: Path, tmp_path: Path) -> None:
    text = document.read_text()
    for name, content in FILE.findall(text):
        (tmp_path / name).write_text(content)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)
    typed = steps(document)
    script = "\n".join(f"{command}\necho '{MARK}' $?" for command, _ in typed)
    ran = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=ENVIRONMENT
        | {"PATH": f"{programs}:{ENVIRONMENT['PATH']}", "PYTHONPATH": f"{SOURCE}:{ROOT}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    outputs = re.split(rf"^{MARK} (\d+)\n", ran.stdout, flags=re.MULTILINE)
    assert len(outputs) == 2 * len(typed) + 1, ran.stderr
    for (command, expected), output, status in zip(typed, outputs[::2], outputs[1::2], strict=False):
        # grep -c of nothing has status 1.
        assert status == "0" or command.startswith("grep -c"), f"{command}: {ran.stderr}"
        lines = {normal(line) for line in output.splitlines()}
        missing = [line for line in expected if normal(line) not in lines]
        assert missing == [], f"{command} says:\n{output}"


@pytest.fixture(params=["unpacking.md", "watching-a-jit.md"])
def document(request: pytest.FixtureRequest) -> Path:
    needed = {"unpacking.md": ("gcc", "readelf", "objdump"), "watching-a-jit.md": ("node",)}[request.param]
    for program in needed:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pytest.importorskip("capstone")
    pytest.importorskip("yara_x")
    return ROOT / "docs" / str(request.param)

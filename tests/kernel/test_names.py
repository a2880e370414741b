"""Names chosen by the target never act on the terminal of whoever looks at a capture."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from memory_tracer import EventKind
from tests.workloads import Executable, Step

from .recording import Recorder, Recording, tool

pytestmark = pytest.mark.privileged

SEED = 122949823


@pytest.fixture(scope="module")
def hostile(recorders: Recorder) -> Recording:
    """A recording of a process, a file and arguments with escapes and line breaks in their names."""
    return recorders.workload("hostile_name", recorders.directory, SEED, "\x1b]0;argument\x07\n\x9b31m")


def region_address(recording: Recording) -> int:
    (flip,) = (step for step in recording.steps if isinstance(step, Executable))
    return flip.address


VIEWS: list[tuple[str, ...]] = [
    ("report",),
    ("report", "--all"),
    ("events",),
    ("regions",),
    ("pages",),
    ("verify",),
    ("show", "ADDRESS"),
    ("events", "--json"),
    ("regions", "--json"),
    ("pages", "--json"),
    ("report", "--json"),
    ("export", "--format", "jsonl", "--no-content"),
]


def test_names_are_in_the_capture_byte_for_byte(hostile: Recording) -> None:
    (names,) = (step.fields for step in hostile.steps if isinstance(step, Step))
    with hostile.open() as capture:
        (event,) = capture.events(kinds={EventKind.MPROTECT}, path="owned")
        assert os.fsencode(event.comm) == bytes.fromhex(names["comm"])
        assert event.region is not None
        assert event.region.path is not None
        assert os.fsencode(event.region.path) == bytes.fromhex(names["path"])


@pytest.mark.parametrize("view", VIEWS, ids=" ".join)
def test_view_prints_no_character_that_acts_on_a_terminal(hostile: Recording, view: tuple[str, ...]) -> None:
    arguments = [hex(region_address(hostile)) if word == "ADDRESS" else word for word in view[1:]]
    ran = tool(view[0], hostile.path, *arguments)
    assert ran.status == 0
    lines = ran.out.decode("utf-8", errors="strict").splitlines() + ran.err.splitlines()
    assert lines
    for line in lines:
        assert line.isprintable()


def test_json_gives_the_names_back_exactly(hostile: Recording) -> None:
    ran = tool("events", "--json", "--event", "mprotect", "--path", "owned", hostile.path)
    (event,) = (json.loads(line) for line in ran.out.splitlines())
    (names,) = (step.fields for step in hostile.steps if isinstance(step, Step))
    assert os.fsencode(event["comm"]) == bytes.fromhex(names["comm"])


def test_export_makes_no_file_name_of_a_captured_one(hostile: Recording, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert tool("export", hostile.path, "--format", "raw", "-o", out).status == 0
    names = [path.name for path in out.rglob("*")]
    assert len(names) >= 2
    assert all(name.isascii() and name.isprintable() and "owned" not in name for name in names)


def test_hostile_output_name_is_made_harmless_in_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\nb.mtrace"
    ran = tool("run", "-o", path, "true")
    assert ran.status == 0
    assert path.exists()
    assert all(line.isprintable() for line in ran.err.splitlines())

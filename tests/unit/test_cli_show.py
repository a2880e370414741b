"""``memory-tracer show``: which bytes, in which form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import memory_tracer
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, PID, page_bytes, write_capture
from .scenario import CHILD_PID, CODE, NOISE, PACKED, CommandLine, whole_scenario


def show_raw(capture: Path, address: int, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "memory_tracer", "show", capture, hex(address), "--raw", *arguments],
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(memory_tracer.__path__[0]).parent)},
    )


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "whole.mtrace", whole_scenario())


def test_last_bytes_are_shown_as_a_hex_dump(cli: CommandLine, whole: Path) -> None:
    ran = cli("show", whole, hex(BASE))
    heading, caller, moment, first, *_ = ran.out.splitlines()
    assert (ran.status, ran.err) == (0, "")
    assert heading == f"# {BASE:#x}-{BASE + PAGE_BYTES:#x} r-x 4 KiB, anonymous, pid {PID} (sample)"
    assert caller == "# first made executable by 0x401234"
    assert moment == "# generation 2, after mprotect at 1.000003000 s, 1 page known"
    assert first == f"{BASE:#x}  55 48 89 e5 b8 2a 00 00  00 5d c3 00 00 00 00 00  |UH...*...]......|"


def test_instructions_are_shown_on_request(cli: CommandLine, whole: Path) -> None:
    pytest.importorskip("capstone")
    ran = cli("show", whole, hex(BASE), "--disasm")
    assert "mov eax, 0x2a" in ran.out
    assert f"{PAGE_BYTES - 11} zero bytes" in ran.out


def test_earlier_bytes_are_shown_by_generation_and_by_time(cli: CommandLine, whole: Path) -> None:
    by_generation = cli("show", whole, hex(BASE), "--generation", "1").out
    assert by_generation == cli("show", whole, hex(BASE), "--at", "1.000002").out
    assert by_generation.splitlines()[3].split()[1:9] == ["01", *["00"] * 7]


def test_missing_pages_are_lines_that_say_why(cli: CommandLine, hostile: Path) -> None:
    lines = cli("show", hostile, hex(PACKED)).out.splitlines()
    assert lines[2] == f"{PACKED:#x}  4 KiB without record: never touched, or as in the file behind it"
    assert lines[-1] == f"{PACKED + 2 * PAGE_BYTES:#x}  8 KiB missing because it was swapped out"


def test_address_of_several_processes_needs_a_pid(cli: CommandLine, hostile: Path) -> None:
    ran = cli("show", hostile, hex(BASE))
    assert ran.status == 2
    assert f"--pid: {PID} (sample), {CHILD_PID} (ev\\x1b[31mil\\xff)" in ran.err
    assert "55 48 89 e5" in cli("show", hostile, hex(BASE), "--pid", PID).out
    assert "07 00 00 00" in cli("show", hostile, hex(BASE), "--pid", CHILD_PID).out


def test_raw_is_exactly_the_bytes(hostile: Path, whole: Path) -> None:
    ran = show_raw(whole, BASE)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, CODE, b"")
    assert show_raw(whole, BASE, "--generation", "1").stdout == page_bytes(1)
    assert show_raw(hostile, PACKED + PAGE_BYTES + 10, "--size", "20").stdout == NOISE[10:30]


def test_raw_says_which_zeros_are_not_from_memory(hostile: Path) -> None:
    ran = show_raw(hostile, PACKED)
    assert ran.stdout == bytes(PAGE_BYTES) + NOISE
    assert f"zeros instead of {PACKED:#x}  4 KiB without record" in ran.stderr.decode()


def test_raw_refuses_a_terminal(cli: CommandLine, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    ran = cli("show", whole, hex(BASE), "--raw")
    assert (ran.status, ran.out) == (2, "")
    assert "--raw does not print to a terminal" in ran.err


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["0x1000"], 1, "nothing at 0x1000 is in the capture; memory-tracer regions lists what is"),
        ([hex(BASE), "--generation", "9"], 2, "has 2 generations; there is no generation 9"),
        ([hex(BASE), "--at", "0"], 1, "nothing at 0x7f0000000000 is in the capture at that time"),
        ([hex(BASE), "--at", "1", "--generation", "1"], 2, "--at and --generation both choose a moment"),
        ([hex(BASE), "--size", "0"], 2, "--size must be at least 1"),
        ([hex(BASE), "--pid", "1"], 1, "nothing at 0x7f0000000000"),
    ],
    ids=["nowhere", "generation", "too-early", "both", "size", "pid"],
)
def test_what_cannot_be_shown_gives_one_sentence(
    cli: CommandLine, whole: Path, arguments: list[str], status: int, sentence: str
) -> None:
    ran = cli("show", whole, *arguments)
    assert (ran.status, ran.out) == (status, "")
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


def test_missing_capstone_is_named_with_the_command_that_installs_it(
    cli: CommandLine, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "capstone", None)
    ran = cli("show", whole, hex(BASE), "--disasm")
    assert ran.status == 1
    assert "pip install 'memory-tracer[disasm]'" in ran.err

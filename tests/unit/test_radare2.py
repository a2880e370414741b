"""What is exported, as radare2 sees it. Debian 12 does not have it: then these are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.foreign import foreign

from .builders import BASE, write_capture
from .scenario import CommandLine, whole_scenario

#: What is at BASE in the end.
INSTRUCTIONS = ["push rbp", "mov rbp, rsp", "mov eax, 0x2a", "pop rbp", "ret"]
RAW_OPTIONS = ("-n", "-a", "x86", "-b", "64", "-m", hex(BASE))


def radare2(path: Path, *options: str) -> list[str]:
    """Return the five instructions at BASE."""
    quiet = ("-q", "-2", "-e", "scr.color=0", "-e", "asm.syntax=intel")
    shown = foreign("r2", *quiet, *options, "-c", f"pi 5 @ {BASE:#x}", path)
    return [line.strip() for line in shown.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("form", "name", "options"),
    [
        ("core", "", ()),
        ("elf", "*-code.elf", ()),
        ("raw", "*-g2.bin", RAW_OPTIONS),
    ],
)
def test_radare2_shows_the_instructions(
    cli: CommandLine, tmp_path: Path, form: str, name: str, options: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    capture = write_capture(tmp_path / "x.mtrace", whole_scenario())
    assert cli("export", capture, "--format", form, "-o", out).status == 0
    assert radare2(next(out.glob(name)) if name else out, *options) == INSTRUCTIONS

"""Programs that are not ours, which open what we write."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.workloads import TIME_LIMIT_SECONDS


def foreign(program: str, *arguments: str | Path) -> str:
    """Run ``program`` and return what it prints; skip the test where it is not installed."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run(
        [path, *map(str, arguments)],
        capture_output=True,
        check=True,
        timeout=TIME_LIMIT_SECONDS,
        env=os.environ | {"LC_ALL": "C", "HOME": "/nonexistent"},
    )
    return done.stdout.decode(errors="replace")


def gdb(core: Path, *commands: str) -> str:
    """Let gdb open a core file and run ``commands``; return what it prints."""
    options = [part for command in commands for part in ("-ex", command)]
    return foreign(
        "gdb", "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", *options, "--core", core
    )

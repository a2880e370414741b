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


def chromium(page: Path, fragment: str, *options: str, time_ms: int = 3000) -> str:
    """Open ``page`` at ``#fragment`` without a window, offline; return what ``options`` make it print.

    The browser's clock runs ahead when nothing is left to do, so that ``time_ms`` take no time.
    """
    quiet = ("--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    # The sandbox needs what root and containers do not have. Nothing but our own page is opened.
    sandbox = ("--no-sandbox", "--disable-dev-shm-usage")
    profile = page.parent / f"{page.stem}-profile"
    where = (f"--user-data-dir={profile}", "--window-size=1300,900", f"--virtual-time-budget={time_ms}")
    return foreign("chromium", *quiet, *sandbox, *where, *options, f"{page.as_uri()}#{fragment}")


def gdb(core: Path, *commands: str) -> str:
    """Let gdb open a core file and run ``commands``; return what it prints."""
    options = [part for command in commands for part in ("-ex", command)]
    return foreign(
        "gdb", "-nx", "-q", "-batch", "-iex", "set debuginfod enabled off", *options, "--core", core
    )

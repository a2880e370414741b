"""What was measured on: everything that makes numbers differ elsewhere."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from memory_tracer.terminal import clean
from memory_tracer.version import VERSION


def describe(directory: Path) -> dict[str, str]:
    """Return facts about this machine; ``directory`` is where the captures are written."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} CPUs",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "kernel": f"Linux {platform.release()}, {platform.machine()}",
        "captures on": _lines(["df", "--output=fstype", str(directory)])[-1],
        "memory-tracer": VERSION,
        "Python": platform.python_version(),
        "strace": _lines(["strace", "--version"])[0].rpartition(" ")[2],
    }


def bpf_users() -> set[str]:
    """Name the processes that keep BPF programs attached: another tracer would slow the untraced runs."""
    names = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(entry.readlink()) == "anon_inode:bpf_link" for entry in (process / "fd").iterdir()):
                names.add(clean((process / "comm").read_text(errors="replace").rstrip("\n")))
        except OSError:  # it ended meanwhile
            continue
    return names


def _processor() -> str:
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _lines(command: list[str]) -> list[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()

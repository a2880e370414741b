"""What a capture says about where it comes from (docs/file-format.md, METADATA)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..version import VERSION
from .settings import Settings

if TYPE_CHECKING:
    from .loader import Program


def capture_metadata(program: Program, command: Sequence[str] | None, pids: Sequence[int]) -> dict[str, Any]:
    """Describe a recording with the kernel program that is about to start."""
    return _common("ebpf", program.settings, command, pids) | {
        "hook": program.hook,
        "page_loop": program.page_loop,
        "page_tables": program.walks_page_tables,
        "ring_bytes": program.settings.ring_bytes,
    }


def ptrace_metadata(settings: Settings, command: Sequence[str] | None, pids: Sequence[int]) -> dict[str, Any]:
    """Describe a recording with ptrace that is about to start."""
    return _common("ptrace", settings, command, pids) | {
        "hook": "seccomp" if command is not None else "syscall",
    }


def _common(
    engine: str, settings: Settings, command: Sequence[str] | None, pids: Sequence[int]
) -> dict[str, Any]:
    system = os.uname()
    return {
        "tool": {"name": "memory-tracer", "version": VERSION},
        "created_ns": time.time_ns(),
        "clock": _clock(),
        "host": {
            "node": system.nodename,
            "release": system.release,
            "version": system.version,
            "machine": system.machine,
            "boot_id": _boot_id(),
        },
        "command": list(command) if command is not None else None,
        "targets": list(pids),
        "engine": engine,
        "filters": settings.describe(),
    }


def _clock() -> dict[str, int]:
    """Both clocks at one moment: the pair, of a few, whose readings lie closest together."""
    readings = []
    for _ in range(5):
        before, realtime, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, (before + after) // 2, realtime))
    _, monotonic, realtime = min(readings)
    return {"monotonic_ns": monotonic, "realtime_ns": realtime}


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None

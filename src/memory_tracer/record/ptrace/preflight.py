"""Whether this system lets us trace a child with a filter, found out by trying."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from . import abi, system
from .filter import build_filter, install_filter


def yama_scope() -> int:
    """How far ptrace is restricted (Documentation/admin-guide/LSM/Yama.rst); 0 where it is not."""
    try:
        return int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text())
    except (OSError, ValueError):
        return 0


def why_not() -> str | None:
    """What keeps ``run --engine ptrace`` from working here; None when nothing does."""
    machine = abi.this_machine()
    if machine is None or "orig_rax" not in machine.registers:
        return "it knows x86-64 only"
    gate, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            os.read(gate, 1)
            install_filter(build_filter(machine.abis, 0))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(gate)
    tracer = system.Tracer()
    try:
        tracer.seize(pid, system.OPTION_SECCOMP)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return f"ptrace is not permitted ({error.strerror})"
    finally:
        os.close(ours)
    while True:
        _, status = tracer.wait(pid)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return None if status == 0 else "seccomp filters are not permitted"
        tracer.resume(system.PTRACE_CONT, pid)

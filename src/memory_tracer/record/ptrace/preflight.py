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


def forbidden_by_yama(scope: int, *, launched: bool) -> str | None:
    """What kernel.yama.ptrace_scope forbids, and what helps; None where it does not matter."""
    setting = f"kernel.yama.ptrace_scope is {scope}"
    if scope >= 3:
        return f"yama forbids ptrace to everybody until the next boot ({setting})"
    if scope == 2:
        return f"yama lets only CAP_SYS_PTRACE trace ({setting}); run with sudo"
    if scope == 1 and not launched:
        return (
            f"yama lets nobody but root trace processes that are not their children ({setting}); "
            "run with sudo, or start the program with `memory-tracer run`"
        )
    return None


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
        return forbidden_by_yama(yama_scope(), launched=True) or f"ptrace is not permitted ({error.strerror})"
    finally:
        os.close(ours)
    while True:
        _, status = tracer.wait(pid)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            return None if status == 0 else "seccomp filters are not permitted"
        tracer.resume(system.PTRACE_CONT, pid)

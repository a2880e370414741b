"""What this kernel and this user can do, found out by trying."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import Error
from .kernel import BTF_PATH, Kernel
from .libbpf import Library
from .loader import Program
from .ptrace.preflight import why_not, yama_scope
from .settings import MIN_RING_BYTES, Settings

_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_SYS_PTRACE": 19, "CAP_PERFMON": 38, "CAP_BPF": 39}


#: The findings that tell whether an engine works.
_KERNEL_PROGRAM, _PTRACE = "BPF program", "ptrace"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``memory-tracer doctor``."""

    subject: str
    ok: bool
    state: str
    remedy: str | None = None


def examine() -> list[Finding]:
    """Look at everything a recording needs, the actual load and attach included."""
    kernel = Kernel()
    system = os.uname()
    program, ptrace = _program(kernel), _ptrace()
    return [
        Finding("kernel", True, f"Linux {system.release} {system.machine}"),
        _btf(),
        _libbpf(),
        _user(),
        _tracefs(kernel),
        *program,
        ptrace,
        _engine(by_kernel=program[0].ok, by_ptrace=ptrace.ok),
        _lockdown(),
        _compiler(),
    ]


def can_record(findings: list[Finding]) -> bool:
    """Whether ``run`` would work, with one engine or the other."""
    return any(finding.ok for finding in findings if finding.subject in (_KERNEL_PROGRAM, _PTRACE))


def _btf() -> Finding:
    if BTF_PATH.exists():
        return Finding("type information", True, f"{BTF_PATH} is there")
    return Finding(
        "type information", False, f"{BTF_PATH} is missing", "boot a kernel built with CONFIG_DEBUG_INFO_BTF"
    )


def _libbpf() -> Finding:
    try:
        return Finding("libbpf", True, Library().version)
    except Error as error:
        return Finding("libbpf", False, str(error), "apt install libbpf1")


def _user() -> Finding:
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    held = [name for name, bit in _CAPABILITIES.items() if effective >> bit & 1]
    enough = "CAP_SYS_ADMIN" in held or {"CAP_BPF", "CAP_PERFMON"} <= set(held)
    state = f"uid {os.geteuid()}, " + (", ".join(held) if held else "no capabilities that matter")
    return Finding("privilege", enough, state, None if enough else "run with sudo")


def _tracefs(kernel: Kernel) -> Finding:
    try:
        kernel.tracepoint_id("syscalls", "sys_exit_mprotect")
    except Error as error:
        return Finding("tracefs", False, str(error), "run with sudo")
    return Finding("tracefs", True, "system call tracepoints are there")


def _program(kernel: Kernel) -> list[Finding]:
    """Load and attach the real program, without targets."""
    try:
        program = Program(Settings(ring_bytes=MIN_RING_BYTES), kernel)
    except Error as error:
        return [Finding(_KERNEL_PROGRAM, False, str(error), "memory-tracer --verbose run true")]
    try:
        program.attach()
    except Error as error:
        return [Finding(_KERNEL_PROGRAM, False, str(error), "memory-tracer --verbose run true")]
    finally:
        program.close()
    walks = program.walks_page_tables
    return [
        Finding(_KERNEL_PROGRAM, True, "loads and attaches"),
        Finding("hook", True, program.hook),
        Finding("page loop", True, program.page_loop),
        Finding(
            "absent pages",
            True,
            "seen in the page tables" if walks else "tried one by one: large sparse regions are slow",
        ),
    ]


def _ptrace() -> Finding:
    """Trace a child for a moment."""
    reason = why_not()
    if reason is not None:
        return Finding(_PTRACE, False, reason, "allow ptrace and seccomp (docker run --cap-add SYS_PTRACE)")
    scope = yama_scope()
    if scope and os.geteuid():
        return Finding(
            _PTRACE,
            True,
            f"works with run; attach is restricted (kernel.yama.ptrace_scope is {scope})",
            "attach with sudo",
        )
    return Finding(_PTRACE, True, "works without privilege: run --engine ptrace")


def _engine(*, by_kernel: bool, by_ptrace: bool) -> Finding:
    """What ``--engine auto`` takes."""
    if by_kernel or by_ptrace:
        return Finding("engine", True, "ebpf" if by_kernel else "ptrace")
    return Finding("engine", False, "none works here", "what the lines above say")


def _lockdown() -> Finding:
    """Integrity mode is fine; confidentiality refuses bpf_probe_read_kernel (security/lockdown)."""
    try:
        text = Path("/sys/kernel/security/lockdown").read_text()
    except OSError:
        return Finding("lockdown", True, "not to be seen (securityfs is not mounted, or there is none)")
    mode = text[text.find("[") + 1 : text.find("]")]
    if mode == "confidentiality":
        return Finding("lockdown", False, mode, "boot without lockdown=confidentiality")
    return Finding("lockdown", True, mode)


def _compiler() -> Finding:
    """Only for building; nothing is compiled when recording."""
    name = shutil.which("clang")
    return Finding("build", True, f"clang at {name}" if name else "the ziglang wheel would be used")

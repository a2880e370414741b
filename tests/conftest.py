"""Fixtures for all tests, and what ``privileged`` means.

A test marked ``privileged`` loads BPF programs. Without the right to do so it is skipped with the
reason; with MEMORY_TRACER_REQUIRE_PRIVILEGED=1 in the environment it fails instead, as it does when
it skips itself for any other reason, so that a run that claims to have tested everything has. Only
those marked ``may_skip`` too need something that a machine may refuse even to root.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest

from tests.workloads import Workloads

_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_BPF_PROG_LOAD = 5
_BPF_PROG_TYPE_TRACEPOINT = 5
# Two instructions: return 0 (Documentation/bpf/standardization/instruction-set.rst).
_EMPTY_PROGRAM = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)


def _must_run() -> bool:
    return os.environ.get("MEMORY_TRACER_REQUIRE_PRIVILEGED") == "1"


@cache
def _why_unprivileged() -> str | None:
    """Load the smallest tracing program there is; return why that failed, None when it did not."""
    number = _SYS_BPF.get(platform.machine())
    if number is None:
        return f"there is no kernel program for {platform.machine()}"
    instructions = ctypes.create_string_buffer(_EMPTY_PROGRAM)
    license_name = ctypes.create_string_buffer(b"GPL")
    # The head of union bpf_attr for BPF_PROG_LOAD (include/uapi/linux/bpf.h).
    attributes = struct.pack(
        "<IIQQ",
        _BPF_PROG_TYPE_TRACEPOINT,
        len(_EMPTY_PROGRAM) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_name),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(number, _BPF_PROG_LOAD, attributes, len(attributes))
    if descriptor < 0:
        return f"BPF tracing programs cannot be loaded here: {os.strerror(ctypes.get_errno())}"
    os.close(descriptor)
    return None


def pytest_configure() -> None:
    """Give what the tests start the usual signals: in the background or under nohup some are ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a privileged test where it cannot run."""
    if item.get_closest_marker("privileged") is None:
        return
    reason = _why_unprivileged()
    if reason is not None:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a privileged test's skip into a failure where everything must run."""
    report = yield
    must_run = item.get_closest_marker("privileged") is not None and not item.get_closest_marker("may_skip")
    if must_run and report.skipped and not hasattr(report, "wasxfail") and _must_run():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"this test must run (MEMORY_TRACER_REQUIRE_PRIVILEGED=1), but: {reason}"
    return report


@pytest.fixture(scope="session")
def workloads(tmp_path_factory: pytest.TempPathFactory) -> Workloads:
    """The C programs in tests/workloads, compiled on demand and once per run."""
    return Workloads(tmp_path_factory.mktemp("workloads"))


@pytest.fixture(scope="session")
def sample_source() -> Path:
    """The bundled sample's source."""
    return Path(__file__).parent.parent / "src" / "memory_tracer" / "samples" / "self_decrypting.c"

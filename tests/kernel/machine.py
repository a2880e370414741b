"""What some tests need of the machine itself: huge pages, swap, 32-bit programs. Given back afterwards.

Each is a context manager that skips the test, with the reason, where the machine does not have it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memory_tracer.errors import UnsupportedError
from memory_tracer.record import functions
from memory_tracer.record.kernel import Kernel
from memory_tracer.record.libbpf import Library
from memory_tracer.record.settings import HOOKS
from tests.workloads import TIME_LIMIT_SECONDS, compile_c

_HUGE_PAGES = 4  # more than any program has at once
_HUGE_PAGE_DIRECTORY = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
_SWAP_BYTES = 16 << 20
_ADMINISTRATION = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def hooks() -> list[str]:
    """By what this kernel lets calls be seen, the best first."""
    kernel = Kernel()
    try:
        lacking = set() if kernel.has_lock_hook else {"mm-lock"}
        lacking |= {"fexit"} if functions.why_not(kernel, Library(), kernel.page_loop) else set()
        return [hook for hook in HOOKS if hook not in lacking]
    except UnsupportedError:  # no BTF: the tests will be skipped for that reason
        return ["tracepoint"]


@contextmanager
def huge_pages() -> Iterator[None]:
    """Reserve a few huge pages of 2 MiB."""
    reserved, free = (_HUGE_PAGE_DIRECTORY / name for name in ("nr_hugepages", "free_hugepages"))
    if not reserved.exists():
        pytest.skip("this kernel has no huge pages of 2 MiB")
    before = reserved.read_text()
    try:
        reserved.write_text(str(int(before) + _HUGE_PAGES))
    except OSError as error:
        pytest.skip(f"huge pages cannot be reserved here: {error.strerror}")
    try:
        if int(free.read_text()) < _HUGE_PAGES:
            pytest.skip("there is no memory for huge pages")
        yield
    finally:
        reserved.write_text(before)


def _administer(*command: str | Path) -> None:
    """Run a command of the administrator's; skip where it fails."""
    program = shutil.which(command[0], path=_ADMINISTRATION)
    if program is None:
        pytest.skip(f"there is no {command[0]} here")
    done = subprocess.run(
        [program, *command[1:]], capture_output=True, text=True, timeout=TIME_LIMIT_SECONDS, check=False
    )
    if done.returncode:
        pytest.skip(f"{command[0]} failed: {done.stderr.strip()}")


@contextmanager
def swap() -> Iterator[None]:
    """Swap to a file."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        file = Path(directory, "swap")
        with file.open("wb") as content:
            os.posix_fallocate(content.fileno(), 0, _SWAP_BYTES)
        file.chmod(0o600)
        _administer("mkswap", file)
        _administer("swapon", file)
        try:
            yield
        finally:
            _administer("swapoff", file)


@contextmanager
def compat_programs() -> Iterator[None]:
    """32-bit programs: compile one, and run it."""
    with tempfile.TemporaryDirectory() as directory:
        source, program = Path(directory, "program.c"), Path(directory, "program")
        source.write_text('__asm__(".globl _start\\n_start: xor %ebx, %ebx; mov $1, %eax; int $0x80");')
        try:
            compile_c(source, program, "-m32", "-static", "-nostdlib")
        except subprocess.CalledProcessError:
            pytest.skip("the compiler makes no 32-bit programs")
        try:
            subprocess.run([program], check=True, timeout=TIME_LIMIT_SECONDS)
        except OSError as error:
            pytest.skip(f"32-bit programs do not run here: {error.strerror}")
    yield

"""Run a command by itself and under the tracers that are compared."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from memory_tracer import Error, open_capture
from memory_tracer.terminal import clean

#: Far beyond what anything here needs, except where a limit of its own is given (seconds).
TIME_LIMIT = 60.0
#: How long what is stopped may take to end in order (seconds).
_GRACE = 5.0
#: How often the tracer's own use of CPU and memory is looked at (seconds).
_LOOK_SECONDS = 0.02


class BenchmarkError(Error):
    """A command that is measured failed, or something it needs is not installed."""


@dataclass(frozen=True, slots=True)
class Tracer:
    """How a command is put under a tracer: what stands before it, ``{trace}`` being the tracer's output."""

    name: str
    prefix: tuple[str, ...] = ()
    #: It leaves a capture of ours.
    captures: bool = False
    #: It takes the target's command line as one argument, and splits it at blanks.
    joins: bool = False

    def command(self, target: Sequence[str], trace: Path) -> list[str]:
        """Return the whole command line."""
        prefix = [part.format(trace=trace) for part in self.prefix]
        return [*prefix, " ".join(target)] if self.joins else [*prefix, *target]

    @property
    def installed(self) -> bool:
        """Whether it can be started here."""
        return not self.prefix or shutil.which(self.prefix[0]) is not None


UNTRACED = Tracer("untraced")
_RECORD = (sys.executable, "-m", "memory_tracer", "run", "--force", "-o", "{trace}")
MEMORY_TRACER = Tracer("memory-tracer", (*_RECORD, "--"), captures=True)
#: The way that works since Linux 5.8, and does not wait for anything.
CLASSIC = Tracer(
    "memory-tracer --hook tracepoint",
    (*_RECORD, "--hook", "tracepoint", "--no-lossless", "--"),
    captures=True,
)
#: The same with the engine that needs no privilege.
WITH_PTRACE = Tracer("memory-tracer", (*_RECORD, "--engine", "ptrace", "--"), captures=True)
STRACE = Tracer("strace", ("strace", "-f", "-e", "trace=%memory", "-o", "{trace}", "--"))
#: It counts the calls that ask for execute, and keeps nothing else. Braces are doubled for ``format``.
_COUNT = (
    "tracepoint:syscalls:sys_enter_mprotect,tracepoint:syscalls:sys_enter_mmap "
    "/args->prot & 4/ {{ @calls[pid] = count(); }}"
)
BPFTRACE = Tracer("bpftrace", ("bpftrace", "-q", "-o", "{trace}", "-e", _COUNT, "-c"), joins=True)
PERF_TRACE = Tracer("perf trace", ("perf", "trace", "-e", "mprotect,mmap,munmap", "-o", "{trace}", "--"))
#: Those that are always compared, and those that are where they are installed.
TRACERS = (UNTRACED, MEMORY_TRACER, STRACE)
ALL_TRACERS = (*TRACERS, *(tracer for tracer in (CLASSIC, BPFTRACE, PERF_TRACE) if tracer.installed))


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture holds and lacks: pages with their bytes, pages without, regions nobody watched."""

    pages: int
    lost: int
    unwatched: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What the tracer took by itself, without its target: CPU time, and memory at its peak."""

    cpu_ns: int = 0
    peak_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A command that has ended. Times are ``CLOCK_MONOTONIC`` nanoseconds, of the tracer's start and end."""

    output: bytes
    started_ns: int
    ended_ns: int
    stopped: bool
    captured: Captured | None
    usage: Usage


def run(tracer: Tracer, target: Sequence[str], directory: Path, *, stop_after: float | None = None) -> Run:
    """Run ``target`` to its end, or stop it after so many seconds; ``directory`` takes the trace.

    Raises ``BenchmarkError`` when it cannot be run, fails, or has to be stopped without ``stop_after``.
    """
    trace = directory / "trace"
    with tempfile.TemporaryFile() as messages:
        started = time.monotonic_ns()
        with _started(tracer.command(target, trace), messages, subprocess.DEVNULL) as process:
            watcher = Watcher(process.pid)
            output, stopped = _finish(process, stop_after or TIME_LIMIT)
            ended = time.monotonic_ns()
            watcher.join()
        if (stopped and stop_after is None) or (process.returncode and not stopped):
            raise _failure(process, messages)
    captured = _captured(trace) if tracer.captures else None
    trace.unlink(missing_ok=True)
    return Run(output, started, ended, stopped, captured, watcher.usage)


@contextlib.contextmanager
def running(tracer: Tracer, target: Sequence[str], directory: Path) -> Iterator[None]:
    """Hold ``target``, which prints a line and waits for the end of its input, under ``tracer``.

    Raises ``BenchmarkError`` when it cannot be run or fails.
    """
    trace = directory / "attached"
    with tempfile.TemporaryFile() as messages:
        with _started(tracer.command(target, trace), messages, subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                if not process.stdout.readline():
                    raise _failure(process, messages)
                yield
            finally:
                _finish(process, TIME_LIMIT)
        if process.returncode:
            raise _failure(process, messages)
    trace.unlink(missing_ok=True)


def _started(command: list[str], messages: IO[bytes], stdin: int) -> subprocess.Popen[bytes]:
    # Under sudo the target would run as the caller, who cannot reach our private directory.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    try:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=messages,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise BenchmarkError(f"{command[0]!r} cannot be run: {error.strerror}") from error


def _finish(process: subprocess.Popen[bytes], seconds: float) -> tuple[bytes, bool]:
    """Close a process's input and wait; return what it printed, and whether it had to be stopped."""
    try:
        return process.communicate(timeout=seconds)[0], False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # the tracer and its target share the group
    try:
        return process.communicate(timeout=_GRACE)[0], True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0], True


def _failure(process: subprocess.Popen[bytes], messages: IO[bytes]) -> BenchmarkError:
    messages.seek(0)
    lines = messages.read().decode(errors="replace").splitlines() or ["nothing"]
    return BenchmarkError(f"a command to be measured failed, saying {clean(lines[-1])}: {process.args!r}")


class Watcher(threading.Thread):
    """Looks at a process now and then, until it has ended: afterwards its own share cannot be told."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = Path(f"/proc/{pid}")
        self.usage = Usage()
        self.start()

    def run(self) -> None:
        """Look until there is nothing to look at."""
        while usage := self._look():
            self.usage = usage
            time.sleep(_LOOK_SECONDS)

    def _look(self) -> Usage | None:
        try:
            fields = (self._process / "stat").read_text().rpartition(") ")[2].split()
            status = dict(line.split(":", 1) for line in (self._process / "status").read_text().splitlines())
            peak = int(status["VmHWM"].split()[0]) << 10
        except (OSError, KeyError):  # it has ended; what is not waited for has no memory
            return None
        ticks = int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
        return Usage(ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK")), peak)


def _captured(path: Path) -> Captured:
    with open_capture(path) as capture:
        lost = sum(loss.count for loss in capture.losses if loss.unit == "pages")
        unwatched = sum(loss.count for loss in capture.losses if loss.reason == "unwatched-writes")
        return Captured(capture.page_count, lost, unwatched)

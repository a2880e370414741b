"""Runs memory-tracer as its users do, and puts what it recorded into the form of what workloads say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import memory_tracer as mt
from memory_tracer.model import EventKind
from memory_tracer.record.kernel import Kernel
from memory_tracer.record.settings import Settings
from tests.workloads import PAGE_SIZE, TIME_LIMIT_SECONDS, Executable, Step, Workloads, parse

TOOL = (sys.executable, "-m", "memory_tracer")
SOURCE = Path(mt.__path__[0]).parent

#: The calls of a target, as opposed to what the kernel or the tracer did.
CALLS = frozenset({EventKind.MMAP, EventKind.MPROTECT, EventKind.PKEY_MPROTECT})

#: In which a subprocess finds memory-tracer.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(SOURCE), "NO_COLOR": "1"}

Argument = str | int | Path

#: Programs that were compiled a moment ago count as old: their own code is not copied.
OLD_FILES = ("--file-age", "0")


def old_files() -> Settings:
    """Return settings with which every file counts as old: only deleted ones are copied."""
    return Settings(files_since_ns=1 << 62)


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    status: int
    out: bytes
    err: str

    @property
    def sentence(self) -> str:
        """The one line on standard error; fails when there is not exactly one, from memory-tracer."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("memory-tracer: "), self.err
        return lines[0].removeprefix("memory-tracer: ")


def execute(
    command: Sequence[Argument],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
    seconds: float = TIME_LIMIT_SECONDS,
) -> Ran:
    """Run a command to its end. The limit of ``seconds`` only ends what hangs."""
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=ENVIRONMENT | dict(variables or {}),
        timeout=seconds,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr.decode(errors="surrogateescape"))


def tool(
    *arguments: Argument,
    stdin: bytes = b"",
    cwd: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Ran:
    """Run memory-tracer."""
    return execute((*TOOL, *arguments), stdin=stdin, cwd=cwd, variables=variables)


@contextmanager
def running(*command: Argument) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command with pipes at both ends and leave none behind."""
    with subprocess.Popen(
        [str(part) for part in command],
        bufsize=0,  # communicate() does not see what readline() has taken in advance
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_from(process: subprocess.Popen[bytes]) -> bytes:
    """Return the next line of a running command's output."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the command ended before it said what it should say"
    return line


def line_to(process: subprocess.Popen[bytes]) -> None:
    """Let a command that waits for a line go on."""
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def end_of(process: subprocess.Popen[bytes]) -> Ran:
    """Close a running command's input and wait for its end."""
    out, err = process.communicate(timeout=TIME_LIMIT_SECONDS)
    return Ran(process.returncode, out, err.decode(errors="surrogateescape"))


def await_that(condition: Callable[[], bool], what: str) -> None:
    """Look again and again until ``condition`` holds; fail when it never does."""
    deadline = monotonic() + TIME_LIMIT_SECONDS
    while not condition():
        assert monotonic() < deadline, f"this never happened: {what}"
        os.sched_yield()


def await_end(pid: int) -> None:
    """Wait until process ``pid`` has ended, reaped or not."""

    def ended() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
        except OSError:
            return True

    await_that(ended, f"process {pid} ended")


def await_pages(path: Path, count: int) -> None:
    """Wait until the growing capture at ``path`` holds ``count`` page rows."""
    await_that(lambda: path.exists() and path.stat().st_size > 0, f"{path} was begun")
    with mt.open_capture(path) as capture:

        def arrived() -> bool:
            capture.refresh()
            return capture.page_count >= count

        await_that(arrived, f"{count} pages in {path}")


@dataclass(frozen=True)
class Flip:
    """A range that became executable: by which call, where, and the bytes of its pages."""

    call: str
    address: int
    length: int
    pages: Mapping[int, bytes]

    def __repr__(self) -> str:
        """Leave the bytes out: pytest prints what differs."""
        return f"Flip({self.call}, {self.address:#x}+{self.length:#x}, {len(self.pages)} pages)"


def losses_of(capture: mt.Capture) -> frozenset[str]:
    """Return why a capture is incomplete, but for what only says that the kernel is old.

    Before Linux 6.7 user space lists what a program has mapped, and many end before it comes, or is done.
    """
    expected = () if Kernel().knows("bpf_iter_task_vma_new") else ("unlisted-programs", "gone")
    return frozenset(loss.reason for loss in capture.losses).difference(expected)


FlipsByThread = dict[tuple[int, int], list[Flip]]


def said(steps: Iterable[Executable | Step]) -> FlipsByThread:
    """Return what a workload says it made executable, by (pid, tid), in order."""
    flips: FlipsByThread = defaultdict(list)
    for step in steps:
        if isinstance(step, Executable):
            flip = Flip(step.call, step.address, step.length, step.pages)
            flips[step.pid, step.tid].append(flip)
    return dict(flips)


def recorded(capture: mt.Capture) -> FlipsByThread:
    """Return what a capture says calls made executable, by (pid, tid), in order.

    Mappings of files that can be looked up, such as the dynamic loader's of libraries, are left out.
    """
    contents: dict[tuple[int, int, int], dict[int, bytes]] = defaultdict(dict)
    for page in capture.pages(missing=False, kinds=CALLS):
        assert page.content is not None
        contents[page.pid, page.tid, page.timestamp_ns][page.address] = page.content
    flips: FlipsByThread = defaultdict(list)
    for event in capture.events(kinds=CALLS, protection=mt.Protection.EXEC):
        assert event.region is not None
        # Without VMA lookup the kernel program does not know what an mmap has mapped.
        unknown = event.kind is EventKind.MMAP and event.status & mt.Status.MAPPING_UNKNOWN
        linked = (event.region.file_backed or unknown) and not event.status & mt.Status.UNLINKED
        if event.succeeded and not linked:
            pages = contents[event.pid, event.tid, event.timestamp_ns]
            flips[event.pid, event.tid].append(
                Flip(str(event.kind), event.region.start, event.region.length, pages)
            )
    return dict(flips)


@dataclass(frozen=True)
class Recording:
    """A capture, and what the target itself said and how it ended."""

    path: Path
    ran: Ran

    @property
    def steps(self) -> list[Executable | Step]:
        """What the workload said."""
        return list(parse(self.ran.out.splitlines()))

    @property
    def said(self) -> FlipsByThread:
        """What the workload says it made executable."""
        return said(self.steps)

    def open(self) -> mt.Capture:
        """Open the capture."""
        return mt.open_capture(self.path)


class Recorder:
    """Records commands with ``memory-tracer run``, each into a capture of its own."""

    def __init__(self, directory: Path, workloads: Workloads) -> None:
        """Write captures into ``directory``."""
        self.directory = directory
        self._workloads = workloads
        self._count = 0

    def new_path(self) -> Path:
        """Return the name of a capture that does not exist yet."""
        self._count += 1
        return self.directory / f"{self._count}.mtrace"

    def command(
        self,
        *command: Argument,
        options: Sequence[Argument] = OLD_FILES,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
    ) -> Recording:
        """Record any command."""
        path = self.new_path()
        ran = tool("run", "-o", path, *options, "--", *command, stdin=stdin, variables=variables)
        return Recording(path, ran)

    def workload(
        self, name: str, *arguments: Argument, options: Sequence[Argument] = (), stdin: bytes = b""
    ) -> Recording:
        """Record a workload, which must succeed."""
        recording = self.command(
            self._workloads.path(name), *arguments, options=(*OLD_FILES, *options), stdin=stdin
        )
        assert recording.ran.status == 0, recording.ran.err
        return recording


def memory_of(pid: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the pages of a stopped or waiting process, as the kernel shows them."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for address in range(start, end, PAGE_SIZE):
            yield address, os.pread(memory.fileno(), PAGE_SIZE, address)

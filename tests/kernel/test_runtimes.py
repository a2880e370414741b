"""Real code generators: traced, they compute the same in bounded time, and what they made is captured."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from memory_tracer import EventKind, Protection, open_capture
from memory_tracer.record.memory import ProcessMemory, Source
from tests.workloads import PAGE_SIZE

from .recording import (
    CALLS,
    TOOL,
    Argument,
    Recorder,
    await_that,
    end_of,
    execute,
    line_from,
    line_to,
    running,
)

pytestmark = pytest.mark.privileged

PROGRAMS = Path(__file__).parent.parent / "runtimes"

#: No more than this many times what it takes alone would be a hang (measured: seconds at most).
SECONDS = 60
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Runtime:
    """A code generator and its program."""

    command: tuple[str, ...]
    program: str

    def arguments(self, *more: str) -> tuple[Argument, ...]:
        """Return the command line, or skip the test where the runtime is not installed."""
        if shutil.which(self.command[0]) is None:
            pytest.skip(f"{self.command[0]} is not installed")
        return (*self.command, PROGRAMS / self.program, *more)


LUAJIT = Runtime(("luajit",), "luajit.lua")
RUBY = Runtime(("ruby", "--yjit"), "ruby.rb")
PHP = Runtime(
    (
        "php",
        "-dopcache.enable_cli=1",
        "-dopcache.file_update_protection=0",
        "-dopcache.jit_buffer_size=32M",
        "-dopcache.jit=tracing",
    ),
    "php.php",
)
NODE = Runtime(("node",), "node.js")
PYPY = Runtime(("pypy3",), "pypy.py")
JAVA = Runtime(("java",), "Jvm.java")

#: Write code, then make it executable; and: write into memory that is executable all the time.
FLIPPING = {"LuaJIT": LUAJIT, "Ruby": RUBY, "PHP": PHP}
WRITING = {"Node": NODE, "PyPy": PYPY, "Java": JAVA}


@pytest.mark.parametrize("runtime", [*(FLIPPING | WRITING).values()], ids=[*FLIPPING, *WRITING])
def test_traced_runtime_computes_the_same_in_bounded_time_and_space(
    recorder: Recorder, runtime: Runtime
) -> None:
    plain = execute(runtime.arguments(), seconds=SECONDS)
    path = recorder.new_path()
    traced = execute((*TOOL, "run", "-q", "-o", path, "--", *runtime.arguments()), seconds=SECONDS)
    assert (traced.out, traced.err, traced.status) == (plain.out, plain.err, 0)
    assert int(plain.out) > 0
    with open_capture(path) as capture:
        assert capture.stored_bytes < MOST_BYTES
        assert capture.counters["kernel"]["lost_pages"] == 0
        assert any(page.content.strip(b"\0") for page in capture.pages(missing=False) if page.content)


@pytest.mark.parametrize("runtime", WRITING.values(), ids=WRITING)
def test_memory_written_while_it_is_executable_is_told(recorder: Recorder, runtime: Runtime) -> None:
    recording = recorder.command(*runtime.arguments())
    with recording.open() as capture:
        assert "unwatched-writes" in [loss.reason for loss in capture.losses]
        assert any(region.rwx for region in capture.regions())


@pytest.mark.parametrize("runtime", FLIPPING.values(), ids=FLIPPING)
def test_capture_has_all_code_that_is_in_memory_at_some_moment(recorder: Recorder, runtime: Runtime) -> None:
    """The oracle is the process's own memory, looked at while the runtime waits for input."""
    path = recorder.new_path()
    with running(*TOOL, "run", "-o", path, "--", *runtime.arguments("wait")) as process:
        while line_from(process) != b"ready\n":
            pass
        with open_capture(path) as capture:
            await_that(lambda: capture.refresh() or bool(capture.processes), "the runtime is in the capture")
            pid = capture.processes[0].pid
        code = code_of(pid)
        moment = time.monotonic_ns()
        line_to(process)
        assert end_of(process).status == 0
    assert len(code) >= 2
    with open_capture(path) as capture:
        for address, content in code.items():
            assert capture.read(pid, address, PAGE_SIZE, at=moment) == content, hex(address)
        made = {page.address for page in capture.pages(pid=pid, kinds=CALLS) if page.address in code}
        assert made == set(code)


def code_of(pid: int) -> dict[int, bytes]:
    """Return the pages of ``pid`` that are executable, belong to no linked file and are not all zero."""
    code = {}
    with ProcessMemory(pid) as memory:
        for mapping in memory.mappings():
            special = mapping.name in (b"[vdso]", b"[vsyscall]", b"[uprobes]")
            if special or mapping.linked or not mapping.protection & Protection.EXEC:
                continue
            for run in memory.read(mapping, mapping.start, mapping.end):
                if run.source is not Source.PROCESS:
                    continue
                assert run.content is not None
                for number in range(run.pages):
                    content = run.content[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
                    if content.strip(b"\0"):
                        code[run.address + number * PAGE_SIZE] = content
    return code


def test_machine_code_that_luajit_says_it_made_is_in_the_capture_byte_for_byte(recorder: Recorder) -> None:
    """The oracle is LuaJIT itself: jit.util.tracemc gives each trace's code and its address."""
    recording = recorder.command(*LUAJIT.arguments("wait"), stdin=b"\n")
    _, *traces, ready = recording.ran.out.decode().splitlines()
    assert ready == "ready"
    assert len(traces) > 90
    with recording.open() as capture:
        (process,) = capture.processes
        for trace in traces:
            _, address, text = trace.split()
            code = bytes.fromhex(text)
            assert capture.read(process.pid, int(address), len(code)) == code


def test_generations_of_a_jit_are_told_apart(recorder: Recorder) -> None:
    recording = recorder.command(*LUAJIT.arguments())
    with recording.open() as capture:
        (area,) = (region for region in capture.regions(kinds={EventKind.MPROTECT}) if not region.region.path)
        assert area.flips > 90
        assert area.generations > 1
        assert not area.rwx

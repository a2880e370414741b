"""The capture against the process's own memory: whatever code is there at some moment is captured.

The runtimes wait for input while their memory is looked at, so it does not change meanwhile.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_tracer import Protection, open_capture
from memory_tracer.record.memory import Mapping, ProcessMemory, Source
from tests.workloads import PAGE_SIZE

from .recording import TOOL, Recorder, await_that, end_of, line_from, line_to, running

pytestmark = pytest.mark.privileged

NEVER = 1 << 62  # no file changed since then

PROGRAMS = Path(__file__).parent.parent / "runtimes"

#: Each runs one of the programs to its end, says so, and waits for a line.
WAITING = {
    "luajit": [
        "luajit",
        "-e",
        f"dofile('{PROGRAMS}/loop.lua') jit.off() print('ready') io.stdout:flush() io.read()",
    ],
    "ruby": [
        "ruby",
        "--yjit",
        "--yjit-call-threshold=2",
        "-e",
        f"load '{PROGRAMS}/loop.rb'; puts 'ready'; $stdout.flush; $stdin.gets",
    ],
    "php": [
        "php",
        "-dopcache.enable_cli=1",
        "-dopcache.jit_buffer_size=32M",
        "-dopcache.jit=1205",
        "-r",
        f'include "{PROGRAMS}/loop.php"; echo "ready\\n"; fgets(STDIN);',
    ],
}


def code_of(pid: int) -> dict[int, bytes]:
    """Return what ``pid`` has in executable memory of no linked file, without pages of zeros."""
    code: dict[int, bytearray] = {}
    with ProcessMemory(pid, files_since_ns=NEVER) as memory:
        for mapping in filter(_holds_generated_code, memory.mappings()):
            end, run = 0, bytearray()
            for address, content in _pages_of(memory, mapping):
                if not content.strip(b"\0"):
                    continue
                if address != end:
                    run = code.setdefault(address, bytearray())
                run += content
                end = address + PAGE_SIZE
    return {address: bytes(content) for address, content in code.items()}


def _pages_of(memory: ProcessMemory, mapping: Mapping) -> Iterator[tuple[int, bytes]]:
    for run in memory.read(mapping, mapping.start, mapping.end):
        if run.source is Source.PROCESS:
            assert run.content is not None
            for offset in range(0, len(run.content), PAGE_SIZE):
                yield run.address + offset, run.content[offset : offset + PAGE_SIZE]


def _holds_generated_code(mapping: Mapping) -> bool:
    own = mapping.protection & Protection.EXEC and not mapping.linked
    return bool(own) and not mapping.name.startswith(b"[v")


@pytest.mark.parametrize("name", WAITING)
def test_every_page_of_code_in_memory_is_in_the_capture_as_it_is(recorder: Recorder, name: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    path = recorder.new_path()
    with running(*TOOL, "run", "-o", path, "--", *WAITING[name]) as process:
        while line_from(process) != b"ready\n":
            pass
        with open_capture(path) as capture:
            await_that(lambda: capture.refresh() or len(capture.processes) > 0, f"{name} is in the capture")
            pid = capture.processes[0].pid
        code = code_of(pid)
        moment = time.monotonic_ns()
        line_to(process)
        assert end_of(process).status == 0
    assert sum(map(len, code.values())) >= 2 * PAGE_SIZE
    with open_capture(path) as capture:
        different = [
            hex(address)
            for address, content in code.items()
            if capture.read(pid, address, len(content), at=moment) != content
        ]
    assert different == []

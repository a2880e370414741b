"""Reading another process's memory from user space, also while it goes away."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from memory_tracer.model import Protection
from memory_tracer.record.memory import Mapping, ProcessMemory, Source

NEVER = 1 << 62  # no file changed since then

_PROGRAM = "cat"  # waits for its input


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([_PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()  # from here on it is past its execve
        yield process
        process.kill()


def executable(memory: ProcessMemory) -> list[Mapping]:
    return [mapping for mapping in memory.mappings() if mapping.protection & Protection.EXEC]


def sources(memory: ProcessMemory, mapping: Mapping) -> set[Source]:
    return {run.source for run in memory.read(mapping, mapping.start, mapping.end)}


def test_code_of_files_and_of_the_kernel_is_left_where_it_is(program: subprocess.Popen[bytes]) -> None:
    with ProcessMemory(program.pid, files_since_ns=NEVER) as memory:
        mappings = [mapping for mapping in executable(memory) if mapping.name != b"[vsyscall]"]
        assert any(mapping.linked for mapping in mappings)
        assert any(mapping.special for mapping in mappings)
        assert all(sources(memory, mapping) == {Source.FILE} for mapping in mappings)
        assert not memory.gone


def test_memory_of_a_process_that_has_ended_is_gone(program: subprocess.Popen[bytes]) -> None:
    with ProcessMemory(program.pid, files_since_ns=NEVER) as memory:
        (stack,) = (mapping for mapping in memory.mappings() if mapping.name == b"[stack]")
        code = [mapping for mapping in executable(memory) if mapping.linked]
        page = stack.end - 4096
        assert [run.content is None for run in memory.read(stack, page, stack.end)] == [False]
        program.kill()
        program.wait()
        assert memory.gone
        assert [run.content is None for run in memory.read(stack, page, stack.end)] == [True]
        assert all(sources(memory, mapping) == {Source.FILE} for mapping in code)

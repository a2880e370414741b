"""Compiles and runs the C programs beside this file, and works out the bytes they say were executable."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

SOURCES = Path(__file__).parent
PAGE_SIZE = 4096

#: What the compiler needs to know of a program.
_FRAME_POINTERS = ("-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
_OPTIONS = {
    "nested_calls": _FRAME_POINTERS,
    "coverage/calls_back": _FRAME_POINTERS,
    "coverage/i386_program": ("-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"),
}

#: Far beyond what any workload needs on a slow machine; only a hang gets there.
TIME_LIMIT_SECONDS = 120


def random_pages(seed: int, count: int) -> list[bytes]:
    """Return what ``fill_page`` in workload.h writes for ``seed``, ``seed + 1``, ...: xorshift64 words."""
    states = np.arange(seed, seed + count, dtype=np.uint64)
    words = np.empty((count, PAGE_SIZE // 8), dtype="<u8")
    for column in range(words.shape[1]):
        states ^= states << np.uint64(13)
        states ^= states >> np.uint64(7)
        states ^= states << np.uint64(17)
        words[:, column] = states
    return [row.tobytes() for row in words]


@dataclass(frozen=True)
class Content:
    """Consecutive pages a workload wrote."""

    address: int
    pages: int
    seed: int
    code: bytes

    def pages_by_address(self) -> dict[int, bytes]:
        """Return the content of each page."""
        pages = random_pages(self.seed, self.pages)
        pages[0] = self.code + pages[0][len(self.code) :]
        return {self.address + number * PAGE_SIZE: page for number, page in enumerate(pages)}


@dataclass(frozen=True)
class Executable:
    """A range that a call made executable, and what was in it at that moment."""

    pid: int
    tid: int
    call: str
    address: int
    length: int
    contents: tuple[Content, ...]

    @cached_property
    def pages(self) -> dict[int, bytes]:
        """The content of every page that was ever written, by address."""
        return {
            address: page for content in self.contents for address, page in content.pages_by_address().items()
        }


@dataclass(frozen=True)
class Step:
    """Any other line: what happened, to whom, and the line's own fields."""

    name: str
    pid: int
    tid: int
    fields: dict[str, Any]


def parse(lines: Iterable[str | bytes]) -> Iterator[Executable | Step]:
    """Read a workload's output, in order."""
    for line in lines:
        fields = json.loads(line)
        name, pid, tid = fields.pop("step"), fields.pop("pid"), fields.pop("tid")
        if name != "executable":
            yield Step(name, pid, tid, fields)
            continue
        contents = tuple(
            Content(item["address"], item["pages"], item["seed"], bytes.fromhex(item["code"]))
            for item in fields["contents"]
        )
        yield Executable(pid, tid, fields["call"], fields["address"], fields["length"], contents)


def executables(output: str | bytes) -> list[Executable]:
    """Return only the flips of a workload's whole output, in order."""
    return [step for step in parse(output.splitlines()) if isinstance(step, Executable)]


class Workloads:
    """Compiles workloads when they are first asked for, into one directory."""

    def __init__(self, directory: Path) -> None:
        """Compile into ``directory``."""
        self._directory = directory

    def path(self, name: str) -> Path:
        """Return the program of that name, compiled."""
        program = self._directory / name
        if not program.exists():
            program.parent.mkdir(exist_ok=True)
            compile_c(SOURCES / f"{name}.c", program, *_OPTIONS.get(name, ()))
        return program

    def run(self, name: str, *arguments: str | int | Path) -> list[Executable | Step]:
        """Run a workload by itself and return what it says happened."""
        command = [str(self.path(name)), *map(str, arguments)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=TIME_LIMIT_SECONDS)
        return list(parse(done.stdout.splitlines()))


def compile_c(source: Path, program: Path, *options: str) -> None:
    """Compile one C file with the system's compiler; every warning is an error."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None, "the tests need a C compiler: install gcc"
    command = [compiler, "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run([*command, *options, "-o", str(program), str(source)], check=True)

"""A capture with one of everything a view has to show, hostile names included."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from memory_tracer.cli.main import main
from memory_tracer.model import EventKind, Missing
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, PID, RecordStream, page_bytes, write_capture

DEVICE, INODE = 8 << 20 | 1, 55
PROGRAM = 0x40_0000
PACKED = BASE + 0x10_0000
CHILD_PID = 5000
HOSTILE_COMM = b"ev\x1b[31mil\xff"
HOSTILE_PATH = b"/tmp/\x1b]0;owned\x07\xe2\x80\xaename"

#: push rbp; mov rbp, rsp; mov eax, 42; pop rbp; ret
CODE = bytes.fromhex("554889e5b82a0000005dc3").ljust(PAGE_BYTES, b"\0")
#: Bytes as an encrypted page has them.
NOISE = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(PAGE_BYTES // 32))


def whole_scenario() -> RecordStream:
    """One process, one page of code at BASE in two generations, nothing missing."""
    stream = RecordStream()
    stream.event(EventKind.FORK, parent_pid=1, uid=1000)
    stream.flip(1)
    cause = stream.event(caller_ip=0x40_1234, previous_protection=3)
    stream.page(cause, CODE)
    stream.event(EventKind.EXIT, result=3 << 8)
    return stream


def hostile_scenario(path: Path) -> Path:
    """Write a capture of two processes with hostile names, a packed region and missing pages."""
    parent = RecordStream()
    parent.event(EventKind.FORK, parent_pid=1, uid=1000)
    parent.command_line(b"./sample", b"\x1b[2J")
    parent.event(EventKind.EXEC, inode=INODE, device=DEVICE)
    parent.path(DEVICE, INODE, HOSTILE_PATH)
    parent.event(EventKind.EXEC_MAPPING, address=PROGRAM, pages=4, inode=INODE, device=DEVICE)
    parent.flip(1)
    cause = parent.event(caller_ip=0x40_1234, previous_protection=3)
    parent.page(cause, CODE)
    cause = parent.event(EventKind.MMAP, PACKED, pages=4, protection=7, result=PACKED)
    parent.page(cause, NOISE, PACKED + PAGE_BYTES)
    parent.missing(cause, Missing.SWAPPED, PACKED + 2 * PAGE_BYTES, pages=2)
    parent.event(address=PACKED, result=-12)
    parent.event(EventKind.EXIT, result=9)
    child = RecordStream(pid=CHILD_PID, start_ns=88_000_000_000, comm=HOSTILE_COMM)
    child.cpu, child.now_ns = 1, parent.now_ns
    child.event(EventKind.FORK, parent_pid=PID, uid=1000)
    cause = child.event()
    child.page(cause, page_bytes(7))
    return write_capture(path, parent, child)


@dataclass(frozen=True)
class Ran:
    """What a command line did."""

    status: int
    out: str
    err: str

    def objects(self) -> list[dict[str, Any]]:
        """Return the JSON lines of the output."""
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """Runs the program's ``main`` and gives back what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Ran:
        status = main([str(argument) for argument in arguments])
        printed = self._capsys.readouterr()
        return Ran(status, printed.out, printed.err)

"""What code generators write about the code they generated, each format as a list of ``Code``.

Everything is in the order of the file, so what stands later at an address replaced what stood before.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from memory_tracer.model import PAGE_SIZE

#: linux/tools/perf/Documentation/jitdump-specification.txt
_JITDUMP_MAGIC = 0x4A695444
_JIT_CODE_LOAD = 0
_FILE_HEADER = struct.Struct("<IIIIIIQQ")
_RECORD_HEADER = struct.Struct("<IIQ")
_CODE_LOAD = struct.Struct("<IIQQQQ")

#: Changed bytes this near to each other are one change: new code may have the byte that was there before.
_SAME_CHANGE = 16

_MACHCODE_LINE = re.compile(r"\s*0x([0-9a-f]{16}):((?:\s+[0-9a-f]+| \|)+)\s*")
_CODE_DUMP = re.compile(r"CODE_DUMP @([0-9a-f]+) \+(\d+)\s+([0-9A-F]*)")
_ASM_LINE = re.compile(r"0x([0-9a-f]+):  (?:\.quad  0x([0-9a-f]{16})|((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:\s|$))")


class DumpError(ValueError):
    """A dump does not have the format it should have."""


@dataclass(frozen=True, slots=True)
class Code:
    """Bytes that a generator says it put at an address."""

    address: int
    content: bytes

    @property
    def end(self) -> int:
        """First address after the code."""
        return self.address + len(self.content)


def jitdump(data: bytes) -> list[Code]:
    """Read the file that ``perf inject --jit`` reads. A record cut off at the end is left out."""
    if len(data) < _FILE_HEADER.size:
        raise DumpError("the jitdump has no header")
    magic, _, position, *_ = _FILE_HEADER.unpack_from(data)
    if magic != _JITDUMP_MAGIC:
        raise DumpError("this is no jitdump of a little-endian machine")
    found = []
    while position + _RECORD_HEADER.size <= len(data):
        kind, size, _ = _RECORD_HEADER.unpack_from(data, position)
        end = position + size
        if size < _RECORD_HEADER.size:
            raise DumpError(f"a jitdump record at {position} has an impossible size")
        if kind == _JIT_CODE_LOAD and end <= len(data):
            *_, address, length, _ = _CODE_LOAD.unpack_from(data, position + _RECORD_HEADER.size)
            # The name between this header and the code ends with a zero; the code ends the record.
            found.append(Code(address, data[end - length : end]))
        position = end
    return found


def machcode(data: bytes) -> list[Code]:
    """Read HotSpot's log with ``PrintAssembly`` and no disassembler installed."""
    return _joined(_machcode_lines(data.decode(errors="replace")))


def _machcode_lines(text: str) -> Iterator[Code]:
    for line in text.splitlines():
        if match := _MACHCODE_LINE.fullmatch(line):
            yield Code(int(match[1], 16), bytes.fromhex(match[2].replace("|", "")))


def code_dump(data: bytes) -> list[Code]:
    """Read PyPy's ``PYPYLOG=jit-backend-dump``."""
    return [
        Code(int(address, 16) + int(offset), bytes.fromhex(code))
        for address, offset, code in _CODE_DUMP.findall(data.decode(errors="replace"))
    ]


def out_asm(data: bytes) -> list[Code]:
    """Read QEMU's ``-d out_asm``: host instructions, and the constants behind them as ``.quad``."""
    return _joined(_asm_lines(data.decode(errors="replace")))


def _asm_lines(text: str) -> Iterator[Code]:
    for line in text.splitlines():
        if match := _ASM_LINE.match(line):
            constant, instruction = match[2], match[3]
            content = bytes.fromhex(constant)[::-1] if constant else bytes.fromhex(instruction)
            yield Code(int(match[1], 16), content)


def plain(data: bytes) -> list[Code]:
    """Read what our own programs write: a line with address and bytes, in hexadecimal, for each code."""
    lines = (line.split() for line in data.decode().splitlines())
    return [Code(int(address, 16), bytes.fromhex(code)) for address, code in lines]


def snapshots(data: bytes) -> list[Code]:
    """Read such lines for whole pages, again and again; of a page seen before return what has changed."""
    seen: dict[int, bytes] = {}
    found: list[Code] = []
    for page in plain(data):
        found += _changed(seen.get(page.address, b""), page)
        seen[page.address] = page.content
    return found


def _changed(old: bytes, page: Code) -> Iterator[Code]:
    if len(old) != len(page.content):
        yield page
        return
    differs = np.frombuffer(old, np.uint8) != np.frombuffer(page.content, np.uint8)
    places = np.flatnonzero(differs)
    for run in np.split(places, np.flatnonzero(np.diff(places) > _SAME_CHANGE) + 1):
        if len(run):
            start, end = int(run[0]), int(run[-1]) + 1
            yield Code(page.address + start, page.content[start:end])


def _joined(pieces: Iterator[Code]) -> list[Code]:
    """Join pieces that follow each other in the file and in memory."""
    joined: list[tuple[int, bytearray]] = []
    end = None
    for piece in pieces:
        if piece.address == end:
            joined[-1][1].extend(piece.content)
        else:
            joined.append((piece.address, bytearray(piece.content)))
        end = piece.end
    return [Code(address, bytes(content)) for address, content in joined]


def versions(codes: list[Code]) -> list[Code]:
    """Leave out what is empty or says again what has been said."""
    return [code for code in dict.fromkeys(codes) if code.content]


def last_state(codes: list[Code]) -> list[Code]:
    """Return what is left when each code has replaced what stood before at its place.

    A patch inside of an older code leaves three pieces: what is before it, the patch, what is after it.
    """
    memory: dict[int, bytearray] = {}
    written: dict[int, bytearray] = {}
    bounds: dict[int, set[int]] = {}
    for piece in (piece for code in codes for piece in pages_of(code)):
        page, start = divmod(piece.address, PAGE_SIZE)
        end = start + len(piece.content)
        memory.setdefault(page, bytearray(PAGE_SIZE))[start:end] = piece.content
        written.setdefault(page, bytearray(PAGE_SIZE))[start:end] = b"\1" * len(piece.content)
        bounds.setdefault(page, set()).update((start, end))
    return [
        Code(page * PAGE_SIZE + start, bytes(memory[page][start:end]))
        for page, ends in bounds.items()
        for start, end in pairwise(sorted(ends))
        if written[page][start]
    ]


def pages_of(code: Code) -> Iterator[Code]:
    """Cut at the bounds of pages: a capture knows each page by itself."""
    address, position = code.address, 0
    while position < len(code.content):
        size = PAGE_SIZE - address % PAGE_SIZE
        yield Code(address, code.content[position : position + size])
        address, position = address + size, position + size

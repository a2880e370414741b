"""The notes of a core file: threads, process, auxiliary vector, mapped files. As far as they are known.

Layouts: struct elf_prstatus and elf_prpsinfo of include/linux/elfcore.h, the rest as in fs/binfmt_elf.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from ..model import PAGE_SIZE, Region
from .elf_format import Layout

_NT_PRSTATUS, _NT_PRPSINFO, _NT_AUXV = 1, 3, 6
_NT_FILE = 0x46494C45
_AT_NULL, _AT_PAGESZ, _AT_UID = 0, 6, 11

#: struct elf_prstatus up to pr_pid, then ppid, pgrp, sid and four times, registers, pr_fpvalid.
_STATUS = {64: struct.Struct("<3ih2x2Q4i8Q27Qi4x"), 32: struct.Struct("<3ih2x2I4i8I17Ii")}
_PROCESS = {64: struct.Struct("<4B4xQ2I4i16s80s"), 32: struct.Struct("<4BI2H4i16s80s")}
#: Where in the registers the instruction pointer is, and the selectors by which debuggers tell the mode.
_REGISTERS = {64: (27, 16, {17: 0x33, 20: 0x2B}), 32: (17, 12, {13: 0x23, 16: 0x2B})}
#: Names of files in a core, in all: a capture may name any number.
_NAMES_LIMIT = 1 << 20


class Thread(NamedTuple):
    """A thread and where it last was, 0 where that is not known."""

    tid: int
    instruction_pointer: int


class Subject(NamedTuple):
    """The process a core is of."""

    pid: int
    parent_pid: int
    uid: int | None
    comm: bytes
    command_line: bytes


def notes(layout: Layout, subject: Subject, threads: Sequence[Thread], files: Sequence[Region]) -> bytes:
    """Return the notes, those of the first thread first, as debuggers expect."""
    first, *others = threads
    parts = [
        _note(_NT_PRSTATUS, _status(layout, subject, first)),
        _note(_NT_PRPSINFO, _process(layout, subject)),
        _note(_NT_AUXV, _auxiliary(layout, subject)),
    ]
    if files:
        parts.append(_note(_NT_FILE, _files(layout, files)))
    parts.extend(_note(_NT_PRSTATUS, _status(layout, subject, thread)) for thread in others)
    return b"".join(parts)


def _note(kind: int, content: bytes) -> bytes:
    name = b"CORE\0"
    head = struct.pack("<3I", len(name), len(content), kind)
    return head + name + bytes(-len(name) % 4) + content + bytes(-len(content) % 4)


def _status(layout: Layout, subject: Subject, thread: Thread) -> bytes:
    count, place, selectors = _REGISTERS[layout.bits]
    registers = [0] * count
    registers[place] = thread.instruction_pointer & ((1 << layout.bits) - 1)
    for number, value in selectors.items():
        registers[number] = value
    ids = (_signed(thread.tid), _signed(subject.parent_pid), 0, 0)
    return _STATUS[layout.bits].pack(0, 0, 0, 0, 0, 0, *ids, *[0] * 8, *registers, 0)


def _process(layout: Layout, subject: Subject) -> bytes:
    uid = (subject.uid or 0) & (0xFFFF if layout.bits == 32 else 0xFFFFFFFF)
    ids = (_signed(subject.pid), _signed(subject.parent_pid), 0, 0)
    name, words = subject.comm[:15], subject.command_line[:79]
    return _PROCESS[layout.bits].pack(0, ord("R"), 0, 0, 0, uid, 0, *ids, name, words)


def _auxiliary(layout: Layout, subject: Subject) -> bytes:
    known = [(_AT_PAGESZ, PAGE_SIZE)]
    if subject.uid is not None:
        known.append((_AT_UID, subject.uid))
    return b"".join(layout.word.pack(number) for entry in (*known, (_AT_NULL, 0)) for number in entry)


def _files(layout: Layout, files: Sequence[Region]) -> bytes:
    ranges: list[int] = []
    names = bytearray()
    for region in files:
        name = (region.path or f"inode {region.inode}").encode(errors="surrogateescape") + b"\0"
        numbers = (region.start, region.end, (region.offset or 0) // PAGE_SIZE)
        if len(names) + len(name) > _NAMES_LIMIT or max(numbers) >= 1 << layout.bits:
            continue
        names += name
        ranges.extend(numbers)
    head = (len(ranges) // 3, PAGE_SIZE, *ranges)
    return b"".join(map(layout.word.pack, head)) + bytes(names)


def _signed(number: int) -> int:
    """Return a PID as the int it is; a capture may say any 32 bits."""
    return number & 0x7FFFFFFF

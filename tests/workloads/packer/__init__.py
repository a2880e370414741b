"""Two packers, which hide a program in another: that decrypts it in memory and starts it there.

Of ``pack``, the packed file is stage 0, with stage 1 and the original program encrypted in it. Stage 0
decrypts stage 1 into fresh memory and calls it; stage 1 decrypts the original, maps it (and its dynamic
loader) into anonymous memory, as execve would; stage 0 wipes stage 1 and starts the original. Stage 0 and
the original say on standard error where stage 1 and the original's entry were.

Of ``pack_fileless``, it is one stage that expands the original into a memfd and lets the kernel execute
that: no file system ever has it.
"""

from __future__ import annotations

import random
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import PAGE_SIZE, SOURCES, compile_c, random_pages

_SOURCES = SOURCES / "packer"
#: Code that needs no loader itself: at any address, without libc.
_STAGE1_OPTIONS = (
    "-static",
    "-nostdlib",
    "-ffreestanding",
    "-fPIC",
    "-fno-stack-protector",
    "-Wl,--build-id=none",
    "-Wl,--entry=load_original",
    f"-Wl,-T,{_SOURCES / 'stage1.lds'}",
)
#: Bytes up to 16 zeros or more, and these.
_RUN = re.compile(rb"(.+?)(\0{16,}|\Z)", re.DOTALL)
_SECTION = struct.Struct("<IIQQQQIIQQ")


@dataclass(frozen=True)
class Code:
    """The section .text of an executable, and where execution of it starts, in bytes from its start."""

    content: bytes
    entry: int


@dataclass(frozen=True)
class Packed:
    """A packed program, and the code of its stage 1."""

    path: Path
    stage1: Code


def code_of(program: Path) -> Code:
    """Return the code of the 64-bit ELF file ``program``."""
    elf = program.read_bytes()
    (entry,) = struct.unpack_from("<Q", elf, 24)  # e_entry
    (table,) = struct.unpack_from("<Q", elf, 40)  # e_shoff
    size, count, names = struct.unpack_from("<HHH", elf, 58)  # e_shentsize, e_shnum, e_shstrndx
    headers = [_SECTION.unpack_from(elf, table + number * size) for number in range(count)]
    names_offset = headers[names][4]
    for name, _, _, address, offset, length, *_ in headers:
        if elf.startswith(b".text\0", names_offset + name):
            return Code(elf[offset : offset + length], entry - address)
    raise AssertionError(f"{program} has no section .text")


def pack(original: Path, directory: Path) -> Packed:
    """Pack the executable ``original``; put what is made on the way into ``directory``."""
    compile_c(_SOURCES / "stage1.c", directory / "stage1", *_STAGE1_OPTIONS)
    stage1 = code_of(directory / "stage1")
    key = random.randrange(1, 1 << 62)
    # One stream of random bytes, so that no page is encrypted like another.
    payload = _whole_pages(stage1.content) + _whole_pages(original.read_bytes())
    encrypted, length = _encrypted(payload, key), len(_whole_pages(stage1.content))
    files = directory / "stage1.encrypted", directory / "original.encrypted"
    files[0].write_bytes(encrypted[:length])
    files[1].write_bytes(encrypted[length:])
    packed = directory / "packed"
    compile_c(
        _SOURCES / "stage0.c",
        packed,
        "-static-pie",  # wherever the original is to be, and without a dynamic loader of its own
        f'-DSTAGE1="{files[0]}"',
        f'-DORIGINAL="{files[1]}"',
        f"-DENTRY={stage1.entry}",
        f"-DKEY={key}UL",
    )
    return Packed(packed, stage1)


def pack_fileless(original: Path, directory: Path) -> Path:
    """Compress and pack the executable ``original`` to be executed from a memfd; return the program."""
    key = random.randrange(1, 1 << 62)
    file, packed = directory / "original.compressed", directory / "fileless"
    file.write_bytes(_encrypted(_whole_pages(_compressed(original.read_bytes())), key))
    compile_c(_SOURCES / "fileless.c", packed, "-static-pie", f'-DORIGINAL="{file}"', f"-DKEY={key}UL")
    return packed


def _compressed(content: bytes) -> bytes:
    """Return the runs that fileless.c expands."""
    runs = [(match[1], len(match[2])) for match in _RUN.finditer(content)]
    packed = b"".join(struct.pack("<2I", len(data), zeros) + data for data, zeros in runs)
    return packed + struct.pack("<2I", 0, 0)


def _whole_pages(content: bytes) -> bytes:
    return content + bytes(-len(content) % PAGE_SIZE)


def _encrypted(content: bytes, key: int) -> bytes:
    """Return whole pages, encrypted as ``decrypt`` in packer.h decrypts them."""
    stream = b"".join(random_pages(key, len(content) // PAGE_SIZE))
    return (np.frombuffer(content, np.uint8) ^ np.frombuffer(stream, np.uint8)).tobytes()

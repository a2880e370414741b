"""The structures of ELF files for x86, both classes: written, and read from hostile bytes.

Field by field as in elf(5), little-endian.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAGIC = b"\x7fELF"
CLASS_32, CLASS_64 = 1, 2
_LITTLE_ENDIAN = 1
_VERSION = 1

ET_EXEC, ET_DYN, ET_CORE = 2, 3, 4
EM_386, EM_X86_64 = 3, 62
PT_LOAD, PT_DYNAMIC, PT_NOTE = 1, 2, 4
PF_X, PF_W, PF_R = 1, 2, 4
SHT_PROGBITS, SHT_STRTAB, SHT_DYNAMIC, SHT_NOBITS = 1, 3, 6, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
#: With so many program headers or more, their number stands in the first section header.
PN_XNUM = 0xFFFF

#: Where e_shoff is; and how many bytes e_shentsize, e_shnum and e_shstrndx take at the end.
_SECTIONS_AT = {64: 40, 32: 32}
_SECTION_COUNTS = 6
_IDENT = struct.Struct("<4s4B8x")


class FileHeader(NamedTuple):
    """The parts of an ELF header that differ from file to file."""

    bits: int
    type: int
    machine: int
    entry: int
    program_headers: int
    program_header_count: int
    section_headers: int = 0
    section_count: int = 0
    names_section: int = 0


class ProgramHeader(NamedTuple):
    """One segment."""

    type: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    alignment: int


class SectionHeader(NamedTuple):
    """One section."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int = 0
    info: int = 0
    alignment: int = 1
    entry_size: int = 0


class Layout:
    """The structures of one class: of 32 or 64 bits."""

    def __init__(self, bits: int) -> None:
        wide = bits == 64
        self.bits = bits
        self.word = struct.Struct("<Q" if wide else "<I")
        self._file = struct.Struct("<2HI3QI6H" if wide else "<2HI3II6H")
        self._program = struct.Struct("<2I6Q" if wide else "<8I")
        self._section = struct.Struct("<2I4Q2I2Q" if wide else "<10I")
        self.header_size = _IDENT.size + self._file.size
        self.program_header_size = self._program.size
        self.section_header_size = self._section.size

    def pack_header(self, header: FileHeader) -> bytes:
        """Return the bytes of the header."""
        ident = _IDENT.pack(MAGIC, CLASS_64 if self.bits == 64 else CLASS_32, _LITTLE_ENDIAN, _VERSION, 0)
        return ident + self._file.pack(
            header.type,
            header.machine,
            _VERSION,
            header.entry,
            header.program_headers,
            header.section_headers,
            0,
            self.header_size,
            self.program_header_size,
            min(header.program_header_count, PN_XNUM),
            self.section_header_size,
            header.section_count,
            header.names_section,
        )

    def with_sections(self, original: bytes, new: FileHeader) -> bytes:
        """Return the header ``original`` with what ``new`` says of the section headers, and no more."""
        packed, word = self.pack_header(new), self.word.size
        table = _SECTIONS_AT[self.bits]
        counts = self.header_size - _SECTION_COUNTS
        return (
            original[:table]
            + packed[table : table + word]
            + original[table + word : counts]
            + packed[counts:]
        )

    def pack_program(self, header: ProgramHeader) -> bytes:
        """Return the bytes of a program header."""
        kind, flags, offset, address, file_size, memory_size, alignment = header
        if self.bits == 64:
            return self._program.pack(
                kind, flags, offset, address, address, file_size, memory_size, alignment
            )
        return self._program.pack(kind, offset, address, address, file_size, memory_size, flags, alignment)

    def pack_section(self, header: SectionHeader) -> bytes:
        """Return the bytes of a section header."""
        name, kind, flags, address, offset, size, link, info, alignment, entry = header
        return self._section.pack(name, kind, flags, address, offset, size, link, info, alignment, entry)

    def unpack_header(self, content: bytes) -> FileHeader:
        """Return the header at the start of ``content``, which ``bits_of`` has recognised."""
        kind, machine, _, entry, phoff, shoff, _, _, phentsize, phnum, _, shnum, shstrndx = (
            self._file.unpack_from(content, _IDENT.size)
        )
        count = phnum if phentsize == self.program_header_size else 0
        return FileHeader(self.bits, kind, machine, entry, phoff, count, shoff, shnum, shstrndx)

    def unpack_program(self, content: bytes) -> ProgramHeader:
        """Return one program header."""
        fields = self._program.unpack(content)
        if self.bits == 64:
            kind, flags, offset, address, _, file_size, memory_size, alignment = fields
        else:
            kind, offset, address, _, file_size, memory_size, flags, alignment = fields
        return ProgramHeader(kind, flags, offset, address, file_size, memory_size, alignment)


def bits_of(content: bytes) -> int | None:
    """Return 32 or 64 if ``content`` begins with the header of an ELF file for x86, else None."""
    if len(content) < 64 or not content.startswith(MAGIC):
        return None
    _, width, order, version, _ = _IDENT.unpack_from(content)
    if width not in (CLASS_32, CLASS_64) or order != _LITTLE_ENDIAN or version != _VERSION:
        return None
    kind, machine = struct.unpack_from("<2H", content, _IDENT.size)
    bits = 64 if width == CLASS_64 else 32
    known = kind in (ET_EXEC, ET_DYN) and machine == (EM_X86_64 if bits == 64 else EM_386)
    return bits if known else None

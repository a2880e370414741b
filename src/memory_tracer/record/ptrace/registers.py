"""The registers of a stopped thread, by name."""

from __future__ import annotations

import struct

from .abi import Machine

#: Code segment of 32-bit programs (arch/x86/include/asm/segment.h: __USER32_CS).
_CS_COMPAT = 0x23
_WORD = struct.Struct("=Q")
_WORD_MASK = (1 << 64) - 1


class Registers:
    """What ptrace returned, unpacked only where somebody asks."""

    __slots__ = ("machine", "raw")

    def __init__(self, machine: Machine, raw: bytes) -> None:
        """Take them from what ptrace returned."""
        self.machine = machine
        self.raw = raw

    def __getitem__(self, name: str) -> int:
        value: int = _WORD.unpack_from(self.raw, self.machine.offsets[name])[0]
        return value

    def changed(self, **values: int) -> bytes:
        """All of them, with some changed."""
        copy, offsets = bytearray(self.raw), self.machine.offsets
        for name, value in values.items():
            _WORD.pack_into(copy, offsets[name], value & _WORD_MASK)
        return bytes(copy)

    @property
    def ip(self) -> int:
        """The instruction pointer."""
        return self[self.machine.pointer]

    @property
    def sp(self) -> int:
        """The stack pointer."""
        return self[self.machine.stack]

    @property
    def compat(self) -> bool:
        """Whether the thread executes 32-bit code."""
        return "cs" in self.machine.offsets and self["cs"] == _CS_COMPAT

"""Bytes as instructions, with Capstone (``pip install memory-tracer[disasm]``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ..analyze.wordsize import word_bits
from ..errors import UsageError, require

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture

#: Zeros from this many on are counted and not decoded. No x86 instruction (15 bytes at most)
#: contains as many.
_ZERO_RUN = 16
_ZEROS = re.compile(rb"\0{%d,}" % _ZERO_RUN)
#: Bytes given to Capstone at once, which keeps some 250 bytes per instruction; and how far an
#: instruction may reach beyond them.
_WINDOW = 1 << 16
_LONGEST_INSTRUCTION = 15
#: Columns for the bytes of an instruction; longer ones push the text to the right.
BYTES_WIDTH = 30

_X86_MACHINES = frozenset({"x86_64", "i386", "i486", "i586", "i686"})
_ARM64_MACHINES = frozenset({"aarch64", "arm64"})


class Instruction(NamedTuple):
    """One line of a listing: an instruction, or bytes that are none.

    ``raw`` is empty for a run of zeros, which is counted and not decoded.
    """

    address: int
    size: int
    raw: bytes
    text: str

    def __str__(self) -> str:
        if not self.raw:
            return f"{self.address:#014x}  {self.text}"
        return f"{self.address:#014x}  {self.raw.hex(' '):<{BYTES_WIDTH}}{self.text}".rstrip()


class Disassembler:
    """Decodes the instructions of one machine.

    ``machine`` is what uname(2) calls it; ``bits`` is 32 or 64, None for what is usual there.
    Raises ``MissingExtraError`` without Capstone, ``UsageError`` for a machine it is not set up for.
    """

    def __init__(self, machine: str, bits: int | None = None) -> None:
        capstone = require("capstone", "instructions", "disasm")
        if machine in _X86_MACHINES:
            wide = bits == 64 or (bits is None and machine == "x86_64")
            mode = capstone.CS_MODE_64 if wide else capstone.CS_MODE_32
            self._engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
            self._unit = 1
        elif machine in _ARM64_MACHINES and bits != 32:
            self._engine = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
            self._unit = 4
        else:
            width = f" with {bits} bits" if bits else ""
            raise UsageError(f"there is no disassembler for {machine!r}{width}; use --hex")
        # Capstone then shows bytes that are no instruction as ".byte" and goes on behind them.
        self._engine.skipdata = True

    def lines(self, content: bytes, address: int) -> Iterator[str]:
        """Yield one line per instruction of ``content``, which lies at ``address``."""
        return map(str, self.instructions(content, address))

    def instructions(self, content: bytes, address: int) -> Iterator[Instruction]:
        """Yield the instructions of ``content``, which lies at ``address``; no byte is left out."""
        position = 0
        while position < len(content):
            zeros = _ZEROS.search(content, position)
            boundary = zeros.start() if zeros else len(content)
            if zeros and position >= boundary:
                # Rounded down, because the next instruction may begin with a zero byte.
                size = (zeros.end() - position) // self._unit * self._unit
                yield Instruction(address + position, size, b"", f"{size} zero bytes")
                position += size
                continue
            end = min(position + _WINDOW, boundary)
            window = content[position : end + _LONGEST_INSTRUCTION]
            before = position
            for at, size, mnemonic, operands in self._engine.disasm_lite(window, address + position):
                if position >= end:
                    break
                raw = content[position : position + size]
                yield Instruction(at, size, raw, f"{mnemonic} {operands}".rstrip())
                position += size
            if position == before:  # less than an instruction is left
                rest = content[position:]
                yield Instruction(address + position, len(rest), rest, ".byte " + ", ".join(map(hex, rest)))
                return


def for_capture(capture: Capture, region: RegionHistory, bits: int | None) -> Disassembler:
    """Return the disassembler for what is in ``region``; ``bits`` overrides what the capture says."""
    host = capture.metadata.get("host")
    machine = host.get("machine") if isinstance(host, dict) else None
    if bits is None:
        bits = word_bits(capture, region.pid, region.process_start_ns, region.region.start)
    return Disassembler(str(machine or "x86_64"), bits)

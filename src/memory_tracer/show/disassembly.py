"""Bytes as instructions, with Capstone (``pip install memory-tracer[disasm]``)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

from ..errors import MissingExtraError, UsageError

#: Zeros from this many on are counted and not decoded. No x86 instruction (15 bytes at most)
#: contains as many.
_ZERO_RUN = 16
_ZEROS = re.compile(rb"\0{%d,}" % _ZERO_RUN)
#: Bytes given to Capstone at once, which keeps some 250 bytes per instruction; and how far an
#: instruction may reach beyond them.
_WINDOW = 1 << 16
_LONGEST_INSTRUCTION = 15
#: Columns for the bytes of an instruction; longer ones push the text to the right.
_BYTES_WIDTH = 30

_X86_MACHINES = frozenset({"x86_64", "i386", "i486", "i586", "i686"})
_ARM64_MACHINES = frozenset({"aarch64", "arm64"})


class Disassembler:
    """Decodes the instructions of one machine.

    ``machine`` is what uname(2) calls it; ``bits`` is 32 or 64, None for what is usual there.
    Raises ``MissingExtraError`` without Capstone, ``UsageError`` for a machine it is not set up for.
    """

    def __init__(self, machine: str, bits: int | None = None) -> None:
        try:
            capstone: Any = importlib.import_module("capstone")
        except ImportError as error:
            raise MissingExtraError(
                "disassembling needs Capstone: pip install 'memory-tracer[disasm]'"
            ) from error
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
        position = 0
        while position < len(content):
            zeros = _ZEROS.search(content, position)
            boundary = zeros.start() if zeros else len(content)
            if zeros and position >= boundary:
                # Rounded down, because the next instruction may begin with a zero byte.
                size = (zeros.end() - position) // self._unit * self._unit
                yield f"{address + position:#014x}  {size} zero bytes"
                position += size
                continue
            end = min(position + _WINDOW, boundary)
            window = content[position : end + _LONGEST_INSTRUCTION]
            before = position
            for at, size, mnemonic, operands in self._engine.disasm_lite(window, address + position):
                if position >= end:
                    break
                yield _line(at, content[position : position + size], f"{mnemonic} {operands}")
                position += size
            if position == before:  # less than an instruction is left
                rest = content[position:]
                yield _line(address + position, rest, ".byte " + ", ".join(map(hex, rest)))
                return


def _line(address: int, raw: bytes, text: str) -> str:
    return f"{address:#014x}  {raw.hex(' '):<{_BYTES_WIDTH}}{text}".rstrip()

"""Bytes as ``hexdump -C`` prints them, with full addresses."""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 16
#: Everything that is no printable ASCII becomes a dot: captured bytes must not reach the terminal.
_PRINTABLE = bytes(byte if 0x20 <= byte < 0x7F else ord(".") for byte in range(256))


def printable(row: bytes) -> str:
    """Return ``row`` as ASCII, a dot for each byte that is not printable."""
    return row.translate(_PRINTABLE).decode("ascii")


def hexdump(content: bytes, address: int) -> Iterator[str]:
    """Yield one line per 16 bytes; lines equal to the one before become a single ``*``."""
    previous = None
    repeated = False
    for offset in range(0, len(content), WIDTH):
        row = content[offset : offset + WIDTH]
        last = offset + WIDTH >= len(content)
        if row == previous and not last:
            if not repeated:
                yield "*"
            repeated = True
            continue
        previous, repeated = row, False
        halves = f"{row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}"
        yield f"{address + offset:#014x}  {halves}  |{printable(row)}|"

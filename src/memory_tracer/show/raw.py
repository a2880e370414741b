"""A view's bytes as they are, for a file or another program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO

from ..analyze.runs import Run
from ..errors import NotCapturedError
from ..terminal import format_size

#: Zeros written in place of missing bytes, at most: a capture may claim any length.
MAX_FILLED = 1 << 30


def write_raw(runs: Iterable[Run], stream: BinaryIO) -> Sequence[Run]:
    """Write the bytes up to the last that is known, zeros in place of missing ones.

    Return the runs filled with zeros. Raises ``NotCapturedError`` when nothing is known, or when
    more than ``MAX_FILLED`` bytes would have to be filled.
    """
    parts = list(runs)
    while parts and parts[-1].content is None:
        parts.pop()
    if not parts:
        raise NotCapturedError("none of these bytes are in the capture")
    holes = [part for part in parts if part.content is None]
    filled = sum(hole.size for hole in holes)
    if filled > MAX_FILLED:
        raise NotCapturedError(
            f"{format_size(filled)} between the bytes are not in the capture; "
            "choose a smaller range with --size, or memory-tracer export --format raw"
        )
    for part in parts:
        if part.content is not None:
            stream.write(part.content)
        else:
            _write_zeros(stream, part.size)
    return holes


def _write_zeros(stream: BinaryIO, size: int) -> None:
    block = bytes(1 << 20)
    stream.writelines(block[: size - offset] for offset in range(0, size, len(block)))

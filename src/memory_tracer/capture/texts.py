"""Paths and command lines: the TEXT records, found by what they describe."""

from __future__ import annotations

import bisect
from collections import defaultdict

from ..wire.layout import TextKind
from .columns import Rows
from .numbering import Numbers


class _History:
    """The texts given for one thing, in order of ordinal."""

    def __init__(self) -> None:
        self._ordinals: list[int] = []
        self._texts: list[bytes] = []

    def add(self, ordinal: int, text: bytes) -> None:
        self._ordinals.append(ordinal)
        self._texts.append(text)

    def before(self, ordinal: int) -> bytes | None:
        """Return the last text given before ``ordinal``."""
        index = bisect.bisect(self._ordinals, ordinal)
        return self._texts[index - 1] if index else None

    def first(self) -> bytes:
        return self._texts[0]


class Texts:
    """The texts of a capture. Strings keep undecodable bytes as surrogates (``surrogateescape``)."""

    def __init__(self, texts: Rows, processes: Numbers) -> None:
        """Take TEXT records and the number of the process each belongs to."""
        self._paths: dict[tuple[int, int], _History] = defaultdict(_History)
        self._command_lines: dict[int, _History] = defaultdict(_History)
        columns = [texts[name].tolist() for name in ("ordinal", "kind", "device", "inode", "length", "text")]
        for ordinal, kind, device, inode, length, text, process in zip(
            *columns, processes.tolist(), strict=True
        ):
            # A length beyond the field is a lie; slicing stops at the field's end.
            if kind == TextKind.PATH:
                self._paths[device, inode].add(ordinal, text[:length])
            elif kind == TextKind.COMMAND_LINE:
                self._command_lines[process].add(ordinal, text[:length])

    def path(self, device: int, inode: int, ordinal: int) -> str | None:
        """Return the file's path as last given before ``ordinal``, else as first given after it."""
        history = self._paths.get((device, inode))
        if history is None:
            return None
        return decode_path(history.before(ordinal) or history.first())

    def command_line(self, process: int, ordinal: int) -> tuple[str, ...]:
        """Return the command line of process number ``process`` last given before ``ordinal``, or ()."""
        history = self._command_lines.get(process)
        text = history.before(ordinal) if history else None
        return tuple(map(_decode, text.removesuffix(b"\0").split(b"\0"))) if text else ()


def decode_path(text: bytes) -> str:
    """Turn a PATH text, leaf first, into a path.

    The kernel ends a whole path with an empty component; one that lost its head begins with "...".
    """
    whole = text == b"\0" or text.endswith(b"\0\0")
    names = [name for name in text.split(b"\0") if name]
    return _decode((b"/" if whole else b".../") + b"/".join(reversed(names)))


def _decode(text: bytes) -> str:
    return text.decode(errors="surrogateescape")

"""How ``events``, ``regions`` and ``pages`` print: a table, or JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..export.objects import line
from ..model import Evidence, Protection, Region
from ..terminal import Column, clean, print_table
from .notice import note, warn_incomplete

if TYPE_CHECKING:
    from ..capture.reader import Capture

_Item = TypeVar("_Item")

TIME = Column("TIME", right=True)
PID = Column("PID", right=True)
ADDRESS = Column("ADDRESS", style="cyan")
EXECUTED = Column("EXECUTED", style=lambda cell: "" if cell == "-" else "bold green")
PROTECTION = Column("PROT", style=lambda cell: "bold red" if "w" in cell and "x" in cell else "")


def open_capture(path: Path) -> Capture:
    """Open the capture; the reader, and NumPy with it, is loaded only now."""
    from ..capture.reader import Capture

    return Capture(path)


def print_rows(
    capture: Capture,
    items: Iterable[_Item],
    columns: Sequence[Column],
    row: Callable[[_Item], Sequence[str]],
    *,
    noun: str,
    limit: int | None,
) -> None:
    """Print one table row per item, then on standard error what the reader should know."""
    if not print_table(columns, map(row, islice(items, limit))):
        note(f"no {noun} match" if capture.event_count else f"the capture holds no {noun}")
    warn_incomplete(capture)


def print_objects(
    capture: Capture,
    items: Iterable[_Item],
    to_object: Callable[[_Item], dict[str, Any]],
    *,
    limit: int | None,
) -> None:
    """Print one JSON line per item."""
    for item in islice(items, limit):
        sys.stdout.write(line(to_object(item)))
    warn_incomplete(capture)


def evidence_words(evidence: Evidence) -> str:
    """Return how it is known that bytes were executed: ``sampled,caller``; ``-`` when it is not."""
    return ",".join(str(flag.name).lower() for flag in evidence) or "-"


def backing(region: Region) -> str:
    """Return the path behind ``region``, clean; the inode where its path is not known."""
    if region.path is not None:
        return clean(region.path)
    return f"inode {region.inode}" if region.file_backed else "anonymous"


def change(previous: Protection | None, protection: Protection) -> str:
    """Return ``rw- > r-x``; a question mark where it was not known what was before."""
    return f"{'?' if previous is None else previous} > {protection}"

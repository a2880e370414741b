"""Differences as JSON objects."""

from __future__ import annotations

from typing import Any

from ..show.disassembly import Instruction
from .align import Change
from .compare import Unknown


def difference_object(change: Change | Unknown) -> dict[str, Any]:
    """Return the object of one difference (``"type": "difference"``)."""
    if isinstance(change, Unknown):
        return {
            "type": "difference",
            "change": f"unknown-in-{change.side}",
            "address": hex(change.address),
            "size": change.size,
            "missing": None if change.missing is None else str(change.missing),
        }
    return {
        "type": "difference",
        "change": _kind(change),
        "old": _line(change.old),
        "new": _line(change.new),
        "changed_bytes": list(change.changed_bytes),
    }


def _kind(change: Change) -> str:
    if change.old is None:
        return "added"
    if change.new is None:
        return "removed"
    return "moved" if change.moved else "changed"


def _line(line: Instruction | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {"address": hex(line.address), "size": line.size, "bytes": line.raw.hex(), "text": line.text}

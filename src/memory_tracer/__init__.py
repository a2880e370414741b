"""Capture which bytes a process made executable at run time, and what exactly they were.

``Tracer`` records, ``open_capture`` reads what was recorded; both give the same values::

    import memory_tracer as mt

    with mt.Tracer.spawn(["./sample"]) as tracer:
        for page in tracer.pages():
            print(hex(page.address), page.protection, page.content)

Everything raised on purpose is an ``Error``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import (
    CaptureError,
    Error,
    LoadError,
    MissingExtraError,
    NotCapturedError,
    OutputError,
    PrivilegeError,
    TargetError,
    UnsupportedError,
    UsageError,
)
from .model import (
    Event,
    EventKind,
    Evidence,
    Loss,
    Missing,
    MissingRun,
    Outcome,
    Page,
    Process,
    Protection,
    Region,
    Registers,
    Status,
)

if TYPE_CHECKING:
    from .analyze.regions import RegionHistory
    from .analyze.triggers import Triggers
    from .capture.certificate import Certificate
    from .capture.reader import Capture, open_capture
    from .record.scope import Criteria, Scope
    from .record.settings import ProtectionFilter, Settings
    from .tracer import Tracer

__all__ = [
    "Capture",
    "CaptureError",
    "Certificate",
    "Criteria",
    "Error",
    "Event",
    "EventKind",
    "Evidence",
    "LoadError",
    "Loss",
    "Missing",
    "MissingExtraError",
    "MissingRun",
    "NotCapturedError",
    "Outcome",
    "OutputError",
    "Page",
    "PrivilegeError",
    "Process",
    "Protection",
    "ProtectionFilter",
    "Region",
    "RegionHistory",
    "Registers",
    "Scope",
    "Settings",
    "Status",
    "TargetError",
    "Tracer",
    "Triggers",
    "UnsupportedError",
    "UsageError",
    "open_capture",
]

#: Names whose modules import NumPy or libbpf; loaded when first used.
_LAZY = {
    "Capture": "capture.reader",
    "Certificate": "capture.certificate",
    "Criteria": "record.scope",
    "ProtectionFilter": "record.settings",
    "RegionHistory": "analyze.regions",
    "Scope": "record.scope",
    "Settings": "record.settings",
    "Tracer": "tracer",
    "Triggers": "analyze.triggers",
    "open_capture": "capture.reader",
}


def __getattr__(name: str) -> Any:
    """Load a public name of a heavy module (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value

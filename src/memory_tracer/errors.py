"""Every exception memory-tracer raises on purpose, and the exit status each one means."""

from __future__ import annotations

import importlib
from typing import Any


class Error(Exception):
    """Root of all deliberate errors.

    The message is one sentence that says what failed and what to do about it. ``detail`` may hold
    more for ``--verbose`` (libbpf's log, a verifier trace); it never holds the only explanation.
    """

    exit_status = 1

    def __init__(self, message: str, *, detail: str | None = None) -> None:
        super().__init__(message)
        self.detail = detail


class UsageError(Error):
    """What the user asked for cannot be meant: a wrong option, address, filter or combination."""

    exit_status = 2


class PrivilegeError(Error):
    """The operation needs rights this user does not have."""


class UnsupportedError(Error):
    """This kernel or system lacks something the operation needs (BTF, libbpf, a program type)."""


class LoadError(Error):
    """The kernel refused the BPF program."""


class TargetError(Error):
    """The process to trace does not exist, ended, or could not be started."""


class OutputError(Error):
    """A file could not be created or written."""


class CaptureError(Error):
    """A file is not a capture, or is damaged beyond what can be read."""


class NotCapturedError(Error):
    """The bytes asked for are not in the capture."""


class MissingExtraError(Error):
    """An optional dependency is not installed; the message names the extra."""


def require(module: str, purpose: str, extra: str | None = None) -> Any:
    """Import ``module``. Raises ``MissingExtraError`` that says how to install it: by ``extra``, or alone."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = f"'memory-tracer[{extra}]'" if extra else module.replace("_", "-")
        name = module.replace("_", "-")
        raise MissingExtraError(f"{purpose} need {name}: pip install {package}") from error

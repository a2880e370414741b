"""Turning kernel trace events on for a while, and reading trace_pipe (Documentation/trace/ftrace.rst)."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from ..errors import UsageError
from .kernel import Kernel


class TraceEvents:
    """Enables trace events and restores every switch it turned. A context manager."""

    def __init__(self, kernel: Kernel) -> None:
        """Change nothing yet."""
        self._directory = kernel.tracefs
        self._changed: list[str] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Turn off what ``enable`` turned on."""
        while self._changed:
            self._write(self._changed.pop(), "0")

    def enable(self, event: str) -> None:
        """Switch ``events/EVENT/enable`` on; a group (``syscalls``) switches on what was off in it."""
        switch = f"events/{event}/enable"
        try:
            state = self._read(switch).strip()
        except FileNotFoundError:
            raise UsageError(f"this kernel has no trace event {event!r}") from None
        if state == "1":
            return
        if "/" not in event and state == "X":  # some of the group are on: leave those alone
            for name in sorted(os.listdir(self._open(f"events/{event}", os.O_DIRECTORY))):
                if name not in ("enable", "filter"):
                    self.enable(f"{event}/{name}")
            return
        self._write(switch, "1")
        self._changed.append(switch)

    def lines(self, seconds: float | None) -> Iterator[str]:
        """Yield lines of trace_pipe until ``seconds`` are over (None: for ever), and "" in between."""
        descriptor = self._open("trace_pipe", os.O_NONBLOCK)
        deadline = None if seconds is None else time.monotonic() + seconds
        pending = b""
        try:
            while deadline is None or time.monotonic() < deadline:
                select.select([descriptor], [], [], 0.1)
                with contextlib.suppress(BlockingIOError):
                    pending += os.read(descriptor, 1 << 16)
                *whole, pending = pending.split(b"\n")
                yield from (line.decode(errors="surrogateescape") for line in whole)
                yield ""  # lets the caller look around
        finally:
            os.close(descriptor)

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC | flags, dir_fd=self._directory)

    def _read(self, name: str) -> str:
        with os.fdopen(self._open(name, 0)) as file:
            return file.read()

    def _write(self, name: str, text: str) -> None:
        descriptor = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

"""Turning kernel trace events on for a while, and reading trace_pipe (Documentation/trace/ftrace.rst)."""

from __future__ import annotations

import math
import os
import select
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from ..errors import UsageError
from .kernel import Kernel

#: How long a busy trace_pipe is read on, in seconds.
LINGER = 2.0


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

    def lines(self, seconds: float | None, goes_on: Callable[[], bool]) -> Iterator[str]:
        """Yield lines of trace_pipe until ``seconds`` are over, or ``goes_on`` says no and it is empty.

        A machine that never falls silent gets ``LINGER`` seconds after ``goes_on`` said no.
        """
        descriptor = self._open("trace_pipe", os.O_NONBLOCK)
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        pending, ended = b"", False
        try:
            while time.monotonic() < deadline:
                if not ended and not goes_on():
                    ended = True
                    deadline = min(deadline, time.monotonic() + LINGER)
                select.select([descriptor], [], [], 0.1)
                try:
                    pending += os.read(descriptor, 1 << 16)
                except BlockingIOError:
                    if ended:
                        return
                *whole, pending = pending.split(b"\n")
                yield from (line.decode(errors="surrogateescape") for line in whole)
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

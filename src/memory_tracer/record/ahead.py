"""What the kernel takes long for, done while the program is being loaded.

Pages of the ring buffer have to be cleared, 64 MiB of them. At the first tracepoint that is opened, and
at the first sampler, the kernel waits for all CPUs, some ten milliseconds each; not at others.
"""

from __future__ import annotations

import contextlib
import os
import threading

from ..errors import Error
from .kernel import Kernel
from .libbpf import Library, Map

#: One of those attached, and a rare one.
_TRACEPOINT = ("syscalls", "sys_enter_mremap")
_LOWEST_FREQUENCY = 1


class Ahead:
    """A ring buffer, a tracepoint and a sampler: created by threads, held until ``close``.

    What fails here is tried again where it is needed, and fails there with a sentence.
    """

    def __init__(self, library: Library, kernel: Kernel, ring_bytes: int, *, tracepoint: bool) -> None:
        """Begin, without the ``tracepoint`` when none will be opened: it slows all processes."""
        self._library = library
        self._kernel = kernel
        self._ring_bytes = ring_bytes
        self._tracepoint = tracepoint
        self._ring: int | None = None
        self._events: list[int] = []
        self._ring_maker = threading.Thread(target=self._create_ring)
        self._opener = threading.Thread(target=self._open_events)
        self._ring_maker.start()
        self._opener.start()

    def _create_ring(self) -> None:
        self._ring = self._library.create_ring("events", self._ring_bytes)

    def _open_events(self) -> None:
        if self._tracepoint:
            with contextlib.suppress(Error):
                self._events.append(self._kernel.open_tracepoint(*_TRACEPOINT))
        with contextlib.suppress(Error, OSError):
            self._events.append(self._kernel.open_sampler(threading.get_native_id(), _LOWEST_FREQUENCY))

    def give_ring(self, events: Map) -> None:
        """Wait for the ring buffer and make it map ``events`` of an object that is not loaded yet."""
        self._ring_maker.join()
        if self._ring is not None:
            events.use(self._ring)
        else:
            events.set_max_entries(self._ring_bytes)

    def wait(self) -> None:
        """Wait for everything."""
        self._ring_maker.join()
        self._opener.join()

    def close(self) -> None:
        """Let go of what there is. May be called twice."""
        self.wait()
        if self._ring is not None:
            os.close(self._ring)
            self._ring = None
        while self._events:
            os.close(self._events.pop())

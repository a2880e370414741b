"""The reader's side of the ring buffer, mapped into this process.

libbpf's own reader calls back for every record, which from Python costs more than a page is worth.
This one hands out everything pending as one array (the kernel maps the data twice in a row, so a
slice never wraps) and gives the room back once that array has been used. Layout and protocol:
kernel/bpf/ringbuf.c, and ring_buffer__process in libbpf's ringbuf.c.
"""

from __future__ import annotations

import contextlib
import mmap
import select

import numpy as np

from ..wire.split import Batch, split

_PAGE = mmap.PAGESIZE


class Ring:
    """Consumes a BPF ring buffer. Not thread-safe: one reader per ring."""

    def __init__(self, descriptor: int, size: int) -> None:
        """Map the ring of ``size`` bytes behind map ``descriptor``."""
        self._mask = size - 1
        self._consumer_page = mmap.mmap(descriptor, _PAGE, mmap.MAP_SHARED, offset=0)
        self._producer_pages = mmap.mmap(
            descriptor, _PAGE + 2 * size, mmap.MAP_SHARED, prot=mmap.PROT_READ, offset=_PAGE
        )
        self._consumer = np.frombuffer(self._consumer_page, dtype="<u8", count=1)
        self._producer = np.frombuffer(self._producer_pages, dtype="<u8", count=1)
        self._data = np.frombuffer(self._producer_pages, dtype=np.uint8, offset=_PAGE)
        self._poll = select.epoll()
        self._poll.register(descriptor, select.EPOLLIN)
        self._descriptor = descriptor
        self.peak_bytes = 0

    def watch(self, descriptor: int) -> None:
        """Let ``wait`` return when ``descriptor`` becomes readable, too."""
        self._poll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Undo ``watch``."""
        self._poll.unregister(descriptor)

    def wait(self, seconds: float) -> set[int]:
        """Sleep until the kernel wakes us, a watched descriptor is readable, or time is up.

        Returns the watched descriptors that are readable.
        """
        return {fd for fd, _ in self._poll.poll(seconds) if fd != self._descriptor}

    def pending(self) -> int:
        """Bytes between reader and writer."""
        return int(self._producer[0]) - int(self._consumer[0])

    def take(self, limit: int) -> Batch:
        """Everything complete within the next ``limit`` bytes; call ``release`` after use."""
        available = self.pending()
        self.peak_bytes = max(self.peak_bytes, available)
        start = int(self._consumer[0]) & self._mask
        return split(self._data[start : start + min(available, limit)])

    def release(self, batch: Batch) -> None:
        """Give the room of ``batch`` back to the kernel. Its arrays must not be used afterwards."""
        self._consumer[0] += np.uint64(batch.consumed)

    def close(self) -> None:
        """Unmap, at the latest when the last array of a batch is gone (an exception may hold one)."""
        self._poll.close()
        del self._consumer, self._producer, self._data
        for pages in (self._consumer_page, self._producer_pages):
            with contextlib.suppress(BufferError):
                pages.close()

"""Write and read page contents past the page cache, in pieces, while the caller prepares the next ones.

Writing to page cache that was never used before costs several times what the disk does, because the
memory has to be found and cleared. So contents go from a few buffers, used again and again, straight to
the disk (O_DIRECT), by a thread of their own. A file system that cannot do that takes them the usual way.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..wire.layout import PAGE_BYTES

#: Offsets, lengths and addresses of direct writes are multiples of this on all disks known to us.
DIRECT_ALIGNMENT = PAGE_BYTES
#: A piece has room for so many pages: with 4 MiB at once a disk is about as fast as it gets.
PIECE_PAGES = 1024
#: As many pieces wait or are being written at most.
_PIECES = 8

#: What writev takes.
Buffer = bytes | memoryview
_Progress = TypeVar("_Progress")


class Placed(NamedTuple):
    """Bytes and where in the file they belong."""

    offset: int
    buffers: Sequence[Buffer]


class _Job(NamedTuple, Generic[_Progress]):
    """Content that lies in a piece, then what belongs around it, and how far the file is with all that."""

    piece: NDArray[np.uint8]
    content: Placed
    around: Sequence[Placed]
    progress: _Progress


def write_at(descriptor: int, place: Placed) -> None:
    """Write everything, or raise ``OSError``."""
    offset, left = place.offset, [memoryview(buffer) for buffer in place.buffers]
    while left:
        written = os.pwritev(descriptor, left, offset)
        offset += written
        left = _after(left, written)


def _after(buffers: list[memoryview], written: int) -> list[memoryview]:
    """Return what is left of ``buffers`` after the first ``written`` bytes."""
    for index, buffer in enumerate(buffers):
        if written < buffer.nbytes:
            return [buffer[written:], *buffers[index + 1 :]]
        written -= buffer.nbytes
    return []


class DirectWriter(Generic[_Progress]):
    """Writes jobs in order, in a thread; after a failure no more. One thread gives jobs."""

    def __init__(self, descriptor: int) -> None:
        """Write to the file behind ``descriptor``, which stays open meanwhile. Start nothing yet."""
        self._descriptor = descriptor
        self._direct = -1
        self._free: list[NDArray[np.uint8]] = []
        self._made = self._under_way = 0
        self._jobs: SimpleQueue[_Job[_Progress] | None] = SimpleQueue()
        self._done: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
        self._thread: Thread | None = None
        #: Of the last job that was written since the last ``flush``; and why the next one was not.
        self._progress: _Progress | None = None
        self._failure: OSError | None = None

    def piece(self) -> NDArray[np.uint8]:
        """Room for ``PIECE_PAGES`` pages; waits for it. Give it to ``submit`` or ``give_back``."""
        if self._free:
            return self._free.pop()
        if self._made < _PIECES:
            self._made += 1
            return _new_piece()
        self._under_way -= 1
        return self._done.get()

    def give_back(self, piece: NDArray[np.uint8]) -> None:
        """Have a piece used again."""
        self._free.append(piece)

    def submit(
        self, piece: NDArray[np.uint8], content: Placed, around: Sequence[Placed], progress: _Progress
    ) -> None:
        """Write ``content``, which lies in ``piece``, then ``around``; then ``progress`` is reached."""
        if self._thread is None:
            self._open()
            self._thread = Thread(target=self._run, name="memory-tracer-write", daemon=True)
            self._thread.start()
        self._under_way += 1
        self._jobs.put(_Job(piece, content, around, progress))

    @property
    def failed(self) -> bool:
        """Whether nothing is written any more, until ``flush``."""
        return self._failure is not None

    def flush(self) -> tuple[_Progress | None, OSError | None]:
        """Wait for all jobs. Returns how far they got since the last time, if at all; what stopped them."""
        while self._under_way:
            self._free.append(self._done.get())
            self._under_way -= 1
        progress, failure = self._progress, self._failure
        self._progress = self._failure = None
        return progress, failure

    def read(self, offset: int, view: memoryview) -> None:
        """Fill ``view``, which lies in a piece, from the file. Raises ``OSError``, also at its end."""
        while view:
            count = os.preadv(self._direct, [view], offset)
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            offset, view = offset + count, view[count:]

    def close(self) -> None:
        """End the thread, after what it was given."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None
            os.close(self._direct)

    def _open(self) -> None:
        """Open the same file again; its name may belong to another one by now."""
        own = f"/proc/self/fd/{self._descriptor}"
        try:
            self._direct = os.open(own, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            self._direct = os.dup(self._descriptor)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._failure is None:
                try:
                    self._write(job)
                    self._progress = job.progress
                except OSError as failure:
                    self._failure = failure
            self._done.put(job.piece)

    def _write(self, job: _Job[_Progress]) -> None:
        try:
            write_at(self._direct, job.content)
        except OSError as refusal:
            if refusal.errno != errno.EINVAL:
                raise
            # Not as aligned as this file system wants it, or cut short by a limit.
            os.dup2(self._descriptor, self._direct, inheritable=False)
            write_at(self._direct, job.content)
        for place in job.around:
            write_at(self._descriptor, place)


def _new_piece() -> NDArray[np.uint8]:
    """Return aligned memory, in huge pages where there are any: they are found four times as fast."""
    memory = mmap.mmap(-1, PIECE_PAGES * PAGE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint8)

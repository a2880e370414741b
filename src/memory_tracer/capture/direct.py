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
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..wire.layout import PAGE_BYTES

#: Offsets, lengths and addresses of direct writes are multiples of this on all disks known to us.
DIRECT_ALIGNMENT = PAGE_BYTES
#: A piece has room for what one direct write takes: with 4 MiB a disk is about as fast as it gets.
PIECE_BYTES = (4 << 20) + (1 << 19)
#: So many pieces are used as long as the disk takes them. It is asked for patience for so many seconds.
_PIECES = 16
_PATIENCE = 0.02
#: When it takes none, there may be more: as many as one call may fill, and one part in so many of the memory
#: that is available. A call that waits in the kernel for us can hold the CPU that serves the disk.
_MOST_BYTES, _MEMORY_SHARE = 9 << 27, 4

#: What writev takes.
Buffer = bytes | memoryview
_Progress = TypeVar("_Progress")


class Placed(NamedTuple):
    """Bytes and where in the file they belong."""

    offset: int
    buffers: Sequence[Buffer]


class _Job(NamedTuple, Generic[_Progress]):
    """A piece, how much of it is to be written where, and how far the file is then."""

    piece: NDArray[np.uint8]
    length: int
    offset: int
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
        self._is_stuck = False
        self._most = _PIECES
        self._jobs: SimpleQueue[_Job[_Progress] | None] = SimpleQueue()
        self._done: SimpleQueue[NDArray[np.uint8]] = SimpleQueue()
        self._thread: Thread | None = None
        #: Of the last job that was written since the last ``flush``; and why the next one was not.
        self._progress: _Progress | None = None
        self._failure: OSError | None = None

    def piece(self) -> NDArray[np.uint8]:
        """``PIECE_BYTES`` of room; waits for it. Give it to ``submit`` or ``give_back``."""
        if self._free:
            return self._free.pop()
        if self._made >= _PIECES:
            patience = 0 if self._is_stuck else _PATIENCE
            with contextlib.suppress(Empty):
                piece = self._done.get(timeout=patience if self._made < self._most else None)
                self._under_way -= 1
                self._is_stuck = False
                return piece
            self._is_stuck = True
        try:
            piece = _new_piece()
        except OSError:
            if not self._under_way:
                raise
            self._under_way -= 1
            return self._done.get()
        self._made += 1
        return piece

    def give_back(self, piece: NDArray[np.uint8]) -> None:
        """Have a piece used again."""
        self._free.append(piece)

    def submit(self, piece: NDArray[np.uint8], length: int, offset: int, progress: _Progress) -> None:
        """Write the first ``length`` bytes of ``piece`` at ``offset``; then ``progress`` is reached."""
        if self._thread is None:
            self._open()
            self._most = max(_PIECES, _memory_for_pieces() // PIECE_BYTES)
            self._thread = Thread(target=self._run, name="memory-tracer-write", daemon=True)
            self._thread.start()
        self._under_way += 1
        self._jobs.put(_Job(piece, length, offset, progress))

    @property
    def busy(self) -> bool:
        """Whether something is still being written."""
        while self._under_way:
            try:
                self._free.append(self._done.get_nowait())
            except Empty:
                return True
            self._under_way -= 1
        return False

    @property
    def failed(self) -> bool:
        """Whether nothing is written any more, until ``flush``."""
        return self._failure is not None

    def flush(self) -> tuple[_Progress | None, OSError | None]:
        """Wait for all jobs. Returns how far they got since the last time, if at all; what stopped them."""
        while self._under_way:
            self._free.append(self._done.get())
            self._under_way -= 1
        del self._free[_PIECES:]
        self._made = len(self._free)
        progress, failure = self._progress, self._failure
        self._progress = self._failure = None
        return progress, failure

    def read(self, offset: int, view: memoryview) -> None:
        """Fill ``view``, which lies in a piece, from the file. Raises ``OSError``, also at its end."""
        directly = self._thread is not None and offset % DIRECT_ALIGNMENT == 0
        while view:
            count = os.preadv(self._direct if directly else self._descriptor, [view], offset)
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
        place = Placed(job.offset, (job.piece.data[: job.length],))
        try:
            write_at(self._direct, place)
        except OSError as refusal:
            if refusal.errno != errno.EINVAL:
                raise
            # Not as aligned as this file system wants it, or cut short by a limit.
            os.dup2(self._descriptor, self._direct, inheritable=False)
            write_at(self._direct, place)


def _new_piece() -> NDArray[np.uint8]:
    """Return aligned memory, in huge pages where there are any: they are found four times as fast."""
    memory = mmap.mmap(-1, PIECE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint8)


def _memory_for_pieces() -> int:
    """How many bytes pieces may take: a limited part of what can be had without swapping (proc(5))."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 0
    return min(_MOST_BYTES, available // _MEMORY_SHARE)

"""Reading late, in a thread that can be given up.

What the kernel program leaves to user space is read from processes that may not want to be read:
a page can belong to somebody who has to be asked for it (userfaultfd(2)) and does not answer. Then
only the thread waits. The recorder goes on, and after a while leaves the thread and the process alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterator
from queue import Empty, SimpleQueue
from threading import Thread

#: Records are handed over in pieces of about this size.
_PIECE_BYTES = 1 << 20
#: How long to wait for a piece at a time, and in all (seconds).
_PATIENCE, _DEADLINE = 0.1, 5.0

_Piece = list[bytes]


class LateReads:
    """Takes records from iterators, one after the other and in order."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._waiting: deque[tuple[Hashable, Iterator[bytes]]] = deque()
        self._worker: _Worker | None = None
        self._asked: float | None = None
        self._avoided: set[Hashable] = set()
        self.abandoned = 0

    def add(self, whose: Hashable, records: Iterator[bytes]) -> None:
        """Read ``records`` when it is their turn. ``whose`` names the process they are read from."""
        if whose in self._avoided:
            self.abandoned += 1
        else:
            self._waiting.append((whose, records))

    def __bool__(self) -> bool:
        """Whether there is something to take, now or later."""
        return bool(self._waiting)

    def take(self) -> _Piece:
        """The next records; none when it takes time to get them. Raises what reading raised."""
        if not self._waiting:
            return []
        if self._worker is None:
            self._worker = _Worker()
        whose, records = self._waiting[0]
        if self._asked is None:
            self._asked = time.monotonic()
            self._worker.requests.put(records)
        try:
            answer = self._worker.answers.get(timeout=_PATIENCE)
        except Empty:
            if time.monotonic() - self._asked > _DEADLINE:
                self._give_up(whose)
            return []
        self._asked = None
        if isinstance(answer, BaseException):
            raise answer
        piece, ended = answer
        if ended:
            self._waiting.popleft()
        return piece

    def _give_up(self, whose: Hashable) -> None:
        """Leave the thread where it is, and the process alone from now on."""
        self._worker = self._asked = None
        self._avoided.add(whose)
        kept = deque(waiting for waiting in self._waiting if waiting[0] != whose)
        self.abandoned += len(self._waiting) - len(kept)
        self._waiting = kept

    def close(self) -> None:
        """End the thread, if it is not waiting for somebody."""
        if self._worker is not None:
            self._worker.requests.put(None)


class _Worker:
    """A thread that takes one piece from an iterator each time it is asked to."""

    def __init__(self) -> None:
        self.requests: SimpleQueue[Iterator[bytes] | None] = SimpleQueue()
        self.answers: SimpleQueue[tuple[_Piece, bool] | BaseException] = SimpleQueue()
        Thread(target=self._run, name="memory-tracer-late", daemon=True).start()

    def _run(self) -> None:
        while (records := self.requests.get()) is not None:
            try:
                self.answers.put(_piece_of(records))
            except BaseException as error:  # noqa: BLE001 - raised again in the recorder
                self.answers.put(error)


def _piece_of(records: Iterator[bytes]) -> tuple[_Piece, bool]:
    """Take about a piece; returns it, and whether that was all."""
    piece: _Piece = []
    size = 0
    for record in records:
        piece.append(record)
        size += len(record)
        if size >= _PIECE_BYTES:
            return piece, False
    return piece, True

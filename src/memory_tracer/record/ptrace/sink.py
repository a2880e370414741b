"""Takes records to the capture, in pieces: at once when many wait, else twenty times a second."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from ...wire.layout import COUNTERS, RecordType
from ...wire.split import split

if TYPE_CHECKING:
    from ...capture.writer import CaptureWriter

_PIECE_BYTES = 1 << 20
_INTERVAL = 0.05
_COUNTERS_EVERY = 20

_KINDS = {RecordType.EVENT: "events", RecordType.PAGE: "pages"}


class Sink:
    """Between the engine, which must not wait for long, and the capture writer."""

    def __init__(self, writer: CaptureWriter) -> None:
        """Start the thread that writes what nobody else did."""
        self._writer = writer
        self._pending = bytearray()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self.counts = dict.fromkeys(COUNTERS, 0)
        self.recorder: dict[str, int] = {"bytes": 0, "records": 0, "pages": 0}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-tracer-sink", daemon=True)
        self._thread.start()

    def put(self, record: bytes, kind: RecordType) -> None:
        """Add one record. Raises what made writing fail."""
        with self._lock:
            if self._error is not None:
                raise self._error
            self._pending += record
            name = _KINDS.get(kind)
            if name is not None:
                self.counts[name] += 1
            self.recorder["records"] += 1
            if len(self._pending) >= _PIECE_BYTES:
                self._flush()

    def _flush(self) -> None:
        data, self._pending = self._pending, bytearray()
        if data:
            self.recorder["bytes"] += len(data)
            self.recorder["pages"] = self.counts["pages"]
            self._writer.append(split(np.frombuffer(data, dtype=np.uint8)))

    def _run(self) -> None:
        ticks = 0
        while not self._closed.wait(_INTERVAL):
            ticks += 1
            with self._lock:
                try:
                    self._flush()
                    if ticks % _COUNTERS_EVERY == 0:
                        self._writer.counters(self.counters())
                except BaseException as error:  # noqa: BLE001 - raised again where records are put
                    self._error = error
                    return

    def counters(self) -> dict[str, dict[str, int]]:
        """Everything counted so far, in the form of the kernel program's counters."""
        limited = self._writer.limited_pages
        return {"kernel": dict(self.counts), "recorder": {**self.recorder, "limited_pages": limited}}

    def close(self) -> None:
        """Write what is left, and the counters. Raises what made writing fail."""
        self._closed.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        self._flush()
        self._writer.counters(self.counters())

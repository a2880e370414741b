"""A recording that goes on for weeks: one capture after the other, until it is told to stop.

Each capture stands for itself. So the next one is begun, with a baseline of its own, before the last one is
ended: for a moment both are written, and nothing falls between.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..capture.losses import RECORDER_LOSSES
from ..errors import Error
from ..record import privileges
from ..record.session import Session
from ..wire.layout import LOSS_COUNTERS
from .config import Config, read_config
from .metrics import MetricsServer, Sample
from .store import Store

if TYPE_CHECKING:
    from ..record.recorder import Recorder

_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
#: How often it is looked whether the next capture is due (seconds).
_PAUSE = 1.0
#: Counters whose sum over several captures says nothing.
_PEAKS = frozenset({"peak_ring_bytes"})


class Recording:
    """One capture, written by a thread of its own."""

    def __init__(self, config: Config, path: Path, room: int) -> None:
        """Load the program and create the capture; its content may take ``room`` bytes."""
        settings = dataclasses.replace(config.settings, size_limit=room)
        self.path = path
        self.counters: dict[str, dict[str, int]] = {}
        self.begun = time.monotonic()
        self.error: BaseException | None = None
        self._in_force = threading.Event()
        self.session = Session(path, settings, observer=self._observe)
        self._thread = threading.Thread(target=self._record, name="memory-tracer-record", daemon=True)

    def start(self) -> None:
        """Begin, and wait until the processes of the scope are recorded. Raises what goes wrong at once."""
        self._thread.start()
        self._in_force.wait()
        self.check()

    def _observe(self, recorder: Recorder) -> None:
        self.counters = recorder.counters()
        self._in_force.set()

    def _record(self) -> None:
        try:
            self.session.record()
        except BaseException as error:  # noqa: BLE001 - raised again by check
            self.error = error
        finally:
            self.counters = self.session.recorder.counters()
            self._in_force.set()

    def check(self) -> None:
        """Raise what made the recording fail, if it did."""
        if self.error is not None:
            raise self.error

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.begun

    def end(self) -> None:
        """End it in order, and free what it holds."""
        if self._thread.ident is not None:
            if self._thread.is_alive():
                self.session.stop()
            self._thread.join()
        self.session.close()


class Service:
    """What ``memory-tracer record`` runs."""

    def __init__(self, path: Path) -> None:
        """Read the configuration at ``path``."""
        self._path = path
        self._config = read_config(path)
        self._store = Store(self._config.directory, self._config.budget)
        self._recording: Recording | None = None
        self._metrics: MetricsServer | None = None
        self._totals: dict[str, dict[str, int]] = {}
        self._captures = self._removed = self._failed_reloads = 0

    def run(self) -> None:
        """Record until SIGTERM or SIGINT. Raises an ``Error`` when the recording fails."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # all threads: only the wait below takes them
        privileges.drop()
        try:
            self._offer_metrics()
            self._begin()
            _notify("READY=1")
            self._log("started", directory=str(self._config.directory), pid=os.getpid())
            while not self._is_told_to_stop():
                self._check()
            _notify("STOPPING=1")
        finally:
            self._close()
        self._log("stopped")

    def _is_told_to_stop(self) -> bool:
        received = signal.sigtimedwait(_SIGNALS, _PAUSE)
        if received is None:
            return False
        if received.si_signo != signal.SIGHUP:
            return True
        self._reload()
        return False

    def _check(self) -> None:
        """Begin the next capture when this one is large or old enough."""
        recording, config = self._recording, self._config
        if recording is None:
            return
        recording.check()
        if recording.session.written_bytes >= config.rotate_size or recording.age >= config.rotate_age:
            self._begin()

    def _begin(self) -> None:
        """Begin a capture, then end the one before it."""
        last, config = self._recording, self._config
        if config.remove_oldest:
            removed = self._store.make_room(config.rotate_size, last.path if last is not None else None)
            self._removed += len(removed)
            for name in removed:
                self._log("removed", capture=name)
        room = self._store.room()
        recording = Recording(config, self._store.new_path(), room)
        try:
            recording.start()
        except BaseException:
            recording.end()
            raise
        self._recording = recording
        self._captures += 1
        self._log("capture", capture=recording.path.name, room_bytes=room)
        if not room:
            self._log("budget-used", budget_bytes=config.budget, used_bytes=self._store.used())
        if last is not None:
            self._end(last)

    def _end(self, recording: Recording) -> None:
        recording.end()
        for part, counters in recording.counters.items():
            totals = self._totals.setdefault(part, {})
            for name, value in counters.items():
                totals[name] = totals.get(name, 0) + value

    def _reload(self) -> None:
        """Read the configuration again; one that is wrong changes nothing."""
        try:
            config = read_config(self._path)
            store = Store(config.directory, config.budget)
        except Error as error:
            self._failed_reloads += 1
            self._log("reload-failed", error=str(error))
            return
        before, self._config = self._config, config
        self._store.close()
        self._store = store
        try:
            if before.listen != config.listen:
                self._offer_metrics()
            if self._recording is not None and config.same_recording(before):
                assert config.settings.scope is not None
                self._recording.session.change_scope(config.settings.scope)
            else:
                self._begin()
        except Error as error:
            self._failed_reloads += 1
            self._log("reload-failed", error=str(error))
            return
        self._log("reloaded")

    def _offer_metrics(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if self._config.listen is not None:
            self._metrics = MetricsServer(self._config.listen, self._samples)
            self._log("metrics", address=self._metrics.address)

    def _samples(self) -> Iterator[Sample]:
        recording = self._recording
        counters = recording.counters if recording is not None else {}
        healthy = recording is not None and recording.error is None
        yield Sample("up", "gauge", "1 while processes are recorded.", int(healthy))
        yield Sample("captures_total", "counter", "Captures begun.", self._captures)
        yield Sample("removed_captures_total", "counter", "Captures removed for room.", self._removed)
        yield Sample("failed_reloads_total", "counter", "Reloads that changed nothing.", self._failed_reloads)
        yield Sample("stored_bytes", "gauge", "Bytes in all captures.", self._store.used())
        yield Sample("room_bytes", "gauge", "Bytes of content that would fit now.", self._store.room())
        yield Sample(
            "capture_age_seconds", "gauge", "Age of this capture.", recording.age if recording else 0
        )
        for part, lossy in (("kernel", LOSS_COUNTERS), ("recorder", RECORDER_LOSSES)):
            known = counters.get(part, {})
            for name in sorted(known.keys() - _PEAKS):
                value = known[name] + self._totals.get(part, {}).get(name, 0)
                labels = (("counter", name), ("loss", "true" if name in lossy else "false"))
                yield Sample(f"{part}_total", "counter", f"Counters of the {part}.", value, labels)

    def _log(self, event: str, **fields: Any) -> None:
        """One JSON object a line, on standard error; the journal adds what else there is to say."""
        print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)

    def _close(self) -> None:
        if self._recording is not None:
            self._recording.end()
        if self._metrics is not None:
            self._metrics.close()
        self._store.close()


def _notify(state: str) -> None:
    """Tell systemd, if it has started us (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith(("/", "@")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as target:
            target.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)

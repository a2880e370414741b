"""The recording loop: take batches from the ring, write them, answer what the kernel deferred."""

from __future__ import annotations

import contextlib
import enum
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import OutputError
from ..model import EventKind, Missing, Status
from ..wire.layout import FLAG_FOLLOWS, RecordType
from ..wire.split import Batch, split
from .baseline import UserSpaceReader
from .epochs import Epochs
from .late import LateReads
from .loader import Program
from .newcomers import Newcomers
from .passes import Passes
from .ring import Ring

if TYPE_CHECKING:
    from ..capture.writer import CaptureWriter
    from .launch import LaunchedProcess

#: Most that is taken at once, so that memory stays bounded and progress visible.
BATCH_BYTES = 4 << 20
#: Pages are stored without being hashed first while one part in so many of the ring is full.
_HURRY_SHARE = 4
#: Of the recorder's thread, while calls may wait for it; see nice(1).
_WAITED_FOR_NICENESS = -20
#: How long to sleep at most when nothing arrives; the kernel wakes us earlier when a lot is pending.
_SHORTEST_SLEEP, _LONGEST_SLEEP = 0.001, 0.05
#: The same run of pages is read late at most this often (nanoseconds).
_LATE_INTERVAL_NS = 1_000_000_000
_LATE_MEMORY = 4096
#: How often the counters are written into the capture (nanoseconds).
_COUNTERS_INTERVAL_NS = 1_000_000_000

_WHO_FIELDS = ("pid", "start_time_ns")
_MISSING_FIELDS = ("reason", *_WHO_FIELDS, "cause", "address", "pages")

#: Reasons after which user space can still find out what the pages hold.
_ANSWERABLE = frozenset({Missing.NOT_PRESENT, Missing.DEFERRED, Missing.UNREADABLE, Missing.SWAPPED})


class EndReason(enum.StrEnum):
    """Why a recording ended."""

    TARGETS_ENDED = "targets-ended"
    COMMAND_ENDED = "command-ended"
    INTERRUPTED = "interrupted"
    DURATION = "duration"
    ERROR = "error"


class Observer(Protocol):
    """Told about progress; must be quick."""

    def __call__(self, recorder: Recorder) -> None:
        """Look at the recorder's counters."""


class Recorder:
    """Moves records from the kernel into a capture until the targets end or somebody says stop."""

    def __init__(
        self,
        program: Program,
        writer: CaptureWriter,
        *,
        command: LaunchedProcess | None = None,
        end_with_command: bool = False,
        duration: float | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Prepare; nothing is read yet. ``duration`` is in seconds."""
        self._program = program
        self._writer = writer
        self._ring = Ring(program.events.fd, program.settings.ring_bytes)
        self._user_space = UserSpaceReader(program.settings)
        self._late = LateReads()
        self._epochs = Epochs(program)
        self._passes = Passes(program, program.settings.pass_rate)
        self._newcomers = Newcomers(program)
        self._command = command
        self._end_with_command = end_with_command
        self._duration = duration
        self._observer = observer
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ring.watch(self._stop)
        self._late_runs: dict[tuple[int, int, int], int] = {}
        self._next_counters = 0
        self.bytes = self.records = self.pages = 0
        self.discarded = self.malformed = self.late_skipped = 0
        self.unsampled_threads = self.vanished_targets = self.scope_changes = 0

    def stop(self) -> None:
        """End the recording soon; may be called from a signal handler or another thread."""
        os.eventfd_write(self._stop, 1)

    def add_baseline(self, pids: Iterable[int]) -> None:
        """Record what is executable in ``pids``. Call after attach, so that nothing falls between."""
        for pid in pids:
            self._late.add(pid, self._user_space.baseline(pid))

    def run(self, ready: Callable[[], None] | None = None) -> EndReason:
        """Record until an end condition holds, take what is left in the ring, say which it was.

        ``ready`` is called when nothing is needed any more but what recording itself takes.
        The program stays attached when its targets have all ended: nothing more can come, and
        detaching takes half a second that the capture need not wait for.
        """
        reason, error = EndReason.ERROR, None
        niceness = os.getpriority(os.PRIO_PROCESS, 0)
        if self._program.settings.lossless:
            # A call that waits for us keeps its CPU. On a busy machine the scheduler brings us to
            # another one soon only if we weigh more than what runs there.
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, _WAITED_FOR_NICENESS)
        try:
            if ready is not None:
                ready()
            reason = self._loop()
            if reason is not EndReason.TARGETS_ENDED:
                self._program.detach()
            while self._drain() or self._answer():
                pass
            if self._command is not None and reason in (EndReason.TARGETS_ENDED, EndReason.COMMAND_ENDED):
                self._command.wait()  # its exit event comes before its status
        except BaseException as failure:  # whatever it was, the capture must not pass for complete
            error = str(failure) or type(failure).__name__
            raise
        finally:
            self._finish(reason, error)
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, niceness)
        return reason

    def _loop(self) -> EndReason:
        deadline = None if self._duration is None else time.monotonic() + self._duration
        sleep = _SHORTEST_SLEEP
        watching_command = self._command is not None
        if self._command is not None:
            self._ring.watch(self._command.pidfd)
        while True:
            self._program.attach_wanted()
            busy = self._drain()
            busy |= self._answer()
            self._tick()
            if not busy and self._program.settings.scope is None and not self._program.targets():
                return EndReason.TARGETS_ENDED
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return EndReason.DURATION
                sleep = min(sleep, left)
            pause = self._passes.pause
            at_work = busy or self._hash_some()
            ready = self._ring.wait(0 if at_work else sleep if pause is None else min(sleep, pause))
            sleep = _SHORTEST_SLEEP if busy else min(2 * sleep, _LONGEST_SLEEP)
            if self._stop in ready:
                return EndReason.INTERRUPTED
            if watching_command and self._command is not None and self._command.pidfd in ready:
                self._command.poll()
                self._ring.unwatch(self._command.pidfd)
                watching_command = False
                sleep = _SHORTEST_SLEEP
                if self._end_with_command:
                    return EndReason.COMMAND_ENDED

    def _hash_some(self) -> bool:
        """Hash what was stored in a hurry, if no call can wait for us: it may hold the CPU of the disk."""
        return not self._program.settings.lossless and self._writer.hash_some()

    def _drain(self) -> bool:
        """Take one batch, if there is one, and note what the kernel left to us."""
        hurry = self._ring.pending() >= self._program.settings.ring_bytes // _HURRY_SHARE
        batch = self._ring.take(BATCH_BYTES)
        if batch.consumed:
            self._write(batch, (batch,), hurry=hurry)
        return batch.consumed > 0

    def _write(self, batch: Batch, parts: tuple[Batch, ...], *, hurry: bool = False) -> None:
        """Write ``parts`` and give the room of ``batch``, in which they may lie, back to the kernel."""
        try:
            self._account(batch)
            for part in parts:
                if len(part):
                    self._writer.append(part, hurry=hurry)
            self._request(batch)
        finally:
            self._ring.release(batch)

    def _account(self, batch: Batch) -> None:
        self.bytes += batch.consumed
        self.records += len(batch)
        self.pages += int(np.count_nonzero(batch.types == RecordType.PAGE))
        repeats = np.flatnonzero(batch.types == RecordType.REPEAT)
        self.pages += int(batch.column(repeats, RecordType.REPEAT, "pages").sum())
        self.discarded += batch.discarded
        self.malformed += batch.malformed

    def _answer(self) -> bool:
        """Write some of what was read from user space; False when nothing is left to read."""
        records = self._late.take()
        if records:
            self._write_late(split(np.frombuffer(b"".join(records), dtype=np.uint8)))
        return bool(self._late)

    def _write_late(self, late: Batch) -> None:
        """Write what was read from user space behind everything that the kernel took before."""
        self.records += len(late)
        moment = late.timestamps().max()
        while True:
            batch = self._ring.take(BATCH_BYTES)
            younger = np.flatnonzero(batch.timestamps() > moment)
            if len(younger) or not batch.consumed:
                border = int(younger[0]) if len(younger) else 0
                self._write(batch, (batch.part(slice(border)), late, batch.part(slice(border, None))))
                return
            self._write(batch, (batch,))

    def _request(self, batch: Batch) -> None:
        """Have read what the records of ``batch`` leave to user space."""
        chosen = np.flatnonzero((batch.types == RecordType.MISSING) & ~batch.flagged(FLAG_FOLLOWS))
        columns = (batch.column(chosen, RecordType.MISSING, name).tolist() for name in _MISSING_FIELDS)
        for reason, pid, start, cause, address, pages in zip(*columns, strict=True):
            if reason in _ANSWERABLE and self._is_due(pid, address, pages):
                late = self._user_space.deferred(pid, start, cause, address, pages)
                self._late.add(pid, late)
        chosen = np.flatnonzero(batch.types == RecordType.EVENT)
        kinds = batch.column(chosen, RecordType.EVENT, "kind")
        status = batch.column(chosen, RecordType.EVENT, "status")
        incomplete = (kinds == EventKind.EXEC) & ((status & np.uint64(Status.MAPPINGS_INCOMPLETE)) != 0)
        columns = (batch.column(chosen[incomplete], RecordType.EVENT, name).tolist() for name in _WHO_FIELDS)
        for pid, start in zip(*columns, strict=True):
            self._late.add(pid, self._user_space.exec_mappings(pid, start))

    def _is_due(self, pid: int, address: int, pages: int) -> bool:
        """Whether this run was not read a moment ago: hot regions ask thousands of times a second."""
        now = time.monotonic_ns()
        key = (pid, address, pages)
        if now - self._late_runs.get(key, -_LATE_INTERVAL_NS) < _LATE_INTERVAL_NS:
            self.late_skipped += 1
            return False
        if len(self._late_runs) >= _LATE_MEMORY:
            self._late_runs.clear()
        self._late_runs[key] = now
        return True

    def counters(self) -> dict[str, dict[str, int]]:
        """Everything counted so far, by the kernel and here."""
        return {
            "kernel": self._program.counters(),
            "recorder": {
                "bytes": self.bytes,
                "records": self.records,
                "pages": self.pages,
                "discarded": self.discarded,
                "malformed_records": self.malformed,
                "limited_pages": self._writer.limited_pages,
                "late_pages": self._user_space.counts.read,
                "gone_pages": self._user_space.counts.gone,
                "late_skipped": self.late_skipped,
                "refused_readings": self._user_space.counts.refused,
                "unlisted_programs": self._user_space.counts.unlisted,
                "abandoned_readings": self._late.abandoned,
                "unsampled_threads": self.unsampled_threads,
                "vanished_targets": self.vanished_targets,
                "scope_changes": self.scope_changes,
                "epochs": self._epochs.started,
                "passes": self._passes.made,
                "peak_ring_bytes": self._ring.peak_bytes,
            },
        }

    def _tick(self) -> None:
        # First the ring: a look may wait for us with the lock that clearing accessed bits takes.
        if self._ring.pending() < self._program.settings.ring_bytes // 8:
            self._epochs.tick()
            self._passes.tick()
        for pid, start, _ in self._newcomers.take():
            self._late.add(pid, self._user_space.baseline(pid, start))
        now = time.monotonic_ns()
        if now >= self._next_counters:
            self._next_counters = now + _COUNTERS_INTERVAL_NS
            self._drop_vanished()
            self._writer.counters(self.counters())
            if self._observer is not None:
                self._observer(self)

    def _drop_vanished(self) -> None:
        """Stop tracing processes whose end the kernel program did not see, lest we wait for ever."""
        for pid in self._program.targets():
            if not Path(f"/proc/{pid}").exists() and pid in self._program.targets():
                self._program.remove_target(pid)
                self.vanished_targets += 1

    def _finish(self, reason: EndReason, error: str | None) -> None:
        """Close the capture in order, as far as its file still takes anything."""
        status = self._command.poll() if self._command is not None else None
        try:
            self._writer.counters(self.counters())
            self._writer.finish(reason=reason, wait_status=status, error=error)
        except OutputError:
            if error is None:
                raise

    def close(self) -> None:
        """Free the ring and the stop signal; ``stop`` must not be called afterwards."""
        self._late.close()
        self._ring.close()
        os.close(self._stop)

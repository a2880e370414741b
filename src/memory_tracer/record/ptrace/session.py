"""One recording with ptrace, from start to end; what ``record.session`` is for the kernel program."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ...errors import OutputError, PrivilegeError, TargetError, UnsupportedError
from .. import process
from ..launch import LaunchedProcess, User
from ..settings import Settings
from . import abi
from .engine import Ended, Engine
from .filter import build_filter, install_filter
from .sink import Sink

if TYPE_CHECKING:
    from ..recorder import EndReason, Observer


class TracedCommand(LaunchedProcess):
    """A command whose end the engine sees: nobody else may wait for a tracee."""

    _ended: threading.Event | None = None

    def traced(self) -> None:
        """From now on its status comes from the engine."""
        self._ended = threading.Event()

    def end(self, status: int) -> None:
        """It has ended."""
        self._status = status
        if self._ended is not None:
            self._ended.set()

    def untraced(self) -> None:
        """From now on the kernel tells us its status, as that of any child."""
        if self._status is None:
            self._ended = None

    def _reap(self, options: int) -> int | None:
        if self._ended is None:
            return super()._reap(options)
        if not options & os.WNOHANG:
            self._ended.wait()
        return self._status


class Bell:
    """A child that ends when it is rung, or after a time: the one thing that wakes waitpid(2) for us.

    It must be started by the thread that waits.
    """

    def __init__(self, duration: float | None) -> None:
        """Start the child."""
        heard, self._cord = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.closerange(0, 3)
                os.close(self._cord)
                select.select([heard], [], [], duration)
            finally:
                os._exit(0)
        os.close(heard)
        os.set_inheritable(self._cord, False)
        self._rung = False

    def ring(self) -> None:
        """Have the child end; safe in signal handlers and from other threads."""
        cord, self._cord = self._cord, -1
        if cord >= 0:
            self._rung = True
            os.close(cord)

    @property
    def rung(self) -> bool:
        """Whether it was rung, or else its time was over."""
        return self._rung


class PtraceSession:
    """The counterpart of ``Session``, with the same interface."""

    def __init__(
        self,
        output: Path,
        settings: Settings,
        *,
        command: Sequence[str] | None = None,
        pids: Sequence[int] = (),
        user: User | None = None,
        environment: Mapping[str, str] | None = None,
        force: bool = False,
        end_with_command: bool = False,
        duration: float | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Create the capture, and a command that waits. Raises a ``memory_tracer.Error``."""
        from ...capture.writer import CaptureWriter
        from ..metadata import ptrace_metadata

        machine = abi.this_machine()
        if machine is None or "orig_rax" not in machine.registers:
            raise UnsupportedError("the ptrace engine knows x86-64 only; use --engine ebpf")
        self.output = output
        self._pids = {pid: process.check_traceable(pid) for pid in pids}
        self._settings, self._duration, self._end_with_command = settings, duration, end_with_command
        self._bell: Bell | None = None
        self._stopped = False
        self._engine = Engine(settings)
        with contextlib.ExitStack() as stack:
            self.command: TracedCommand | None = None
            if command is not None:
                # Who is going to leave before the command ends must not leave a filter behind.
                prepare = None
                self._engine.filtered = duration is None and not end_with_command
                if self._engine.filtered:
                    program = build_filter(machine.abis, self._engine.cookie)
                    prepare = functools.partial(install_filter, program)
                self.command = TracedCommand(command, user=user, environment=environment, prepare=prepare)
                stack.callback(self.command.abandon)
            self._writer = CaptureWriter(
                output,
                ptrace_metadata(settings, command, list(self._pids)),
                force=force,
                size_limit=settings.size_limit,
                owner=(user.uid, user.gid) if user is not None else None,
            )
            stack.callback(self._writer.close)
            self._resources = stack.pop_all()

    def record(self) -> EndReason:
        """Trace the targets to the end. Call once, in the thread that is to be their tracer."""
        from ..recorder import EndReason

        sink = Sink(self._writer)
        self._engine.begin(sink)
        self._bell = Bell(self._duration)
        if self._stopped:
            self._bell.ring()
        reason, error = EndReason.ERROR, None
        try:
            ended = self._trace()
            if ended is not Ended.TARGETS:
                self._let_go()
            reason = {
                Ended.TARGETS: EndReason.TARGETS_ENDED,
                Ended.COMMAND: EndReason.COMMAND_ENDED,
                Ended.BELL: EndReason.INTERRUPTED if self._bell.rung else EndReason.DURATION,
            }[ended]
        except (TargetError, PrivilegeError):
            with contextlib.suppress(OSError):
                self._let_go()
            sink.close()
            self._writer.withdraw()
            raise
        except BaseException as failure:
            error = str(failure) or type(failure).__name__
            with contextlib.suppress(OSError):
                self._let_go()
            raise
        finally:
            self._finish(sink, reason, error)
            if error is not None:
                self.stay()  # nobody else will
        return reason

    def _trace(self) -> Ended:
        assert self._bell is not None
        if self.command is None:
            for pid, start in self._pids.items():
                self._engine.custody.attach(pid)
                if not process.is_same(pid, start):
                    raise TargetError(f"process {pid} ended before it could be traced")
            return self._engine.run(self._bell.pid)
        command, started = self.command, threading.Event()
        self._engine.custody.launched(command.pid)
        command.traced()
        self._engine.on_command_start = started.set
        self._engine.on_command_end = command.end
        self._engine.ends_with_command = self._end_with_command
        command.let_go()
        ended = self._engine.run(self._bell.pid)
        if not started.is_set() and ended is not Ended.BELL:
            command.check_executed()
        return ended

    def _let_go(self) -> None:
        """The recording is over, and targets go on."""
        if self._engine.filtered:
            self._engine.custody.release()  # the filter wants a tracer: see stay
        else:
            self._engine.custody.detach()
            if self.command is not None:
                self.command.untraced()

    def stay(self) -> bool:
        """Wait for targets that cannot be left; call it in the thread that recorded.

        A launched command has a filter that cannot be taken off. Without a tracer its calls about
        memory would fail. Returns whether there was anything to wait for.
        """
        waited = bool(self._engine.tasks)
        if waited:
            self._engine.ends_with_command = False
            self._engine.run(bell=0)
        return waited

    @property
    def must_stay(self) -> bool:
        """Whether targets are left that need us."""
        return bool(self._engine.tasks)

    def _finish(self, sink: Sink, reason: str, error: str | None) -> None:
        """Close the capture in order, as far as its file still takes anything."""
        if self._bell is not None:
            self._bell.ring()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._bell.pid, 0)
        if self._writer.closed:
            return
        status = self.command.poll() if self.command is not None else None
        try:
            sink.close()
            self._writer.finish(reason=reason, wait_status=status, error=error)
        except OutputError:
            if error is None:
                raise

    def stop(self) -> None:
        """End the recording soon; safe in signal handlers and from other threads."""
        self._stopped = True
        if self._bell is not None:
            self._bell.ring()

    def drop_privileges(self) -> None:
        """This engine keeps what it was started with, which is usually nothing."""

    def release_in_background(self) -> None:
        """Nothing takes time to release."""

    def close(self) -> None:
        """Free everything. A command that runs goes on running."""
        self._resources.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

"""One recording from start to end: program, targets, capture file, loop.

The command line runs it in the foreground, ``memory_tracer.Tracer`` in a thread.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..errors import TargetError, UsageError
from . import privileges, process
from .kernel import Kernel
from .launch import LaunchedProcess, User
from .loader import Program
from .scope import Scope
from .settings import Settings

if TYPE_CHECKING:
    from .recorder import EndReason, Observer


def _import_the_rest() -> None:
    """Import what only a recording that runs needs: NumPy takes as long as the kernel does to verify."""
    from ..capture import writer  # noqa: F401
    from . import metadata, recorder  # noqa: F401


class Session:
    """Holds everything a recording needs, and frees it. A context manager.

    Nothing runs before ``record``: a launched command waits in front of its first instruction.
    """

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
        """Load the program, create the capture, prepare the targets.

        Give a ``command`` to start or the ``pids`` of running processes. ``user`` is whom the
        command runs as and who shall own the capture. Raises a ``memory_tracer.Error``; nothing is
        left behind then.
        """
        if settings.scope is not None and (pids or command is not None):
            raise UsageError("give the PIDs of processes or a scope, not both")
        if settings.scope is not None:
            settings.scope.rules(0)  # what is not there, is said before a file is made
        self.output = output
        self._scope = settings.scope
        self._drops_privileges = False
        self._pids = {pid: process.check_traceable(pid) for pid in pids}
        with contextlib.ExitStack() as stack:
            if pids:  # the sampler needs two files for each of their threads
                limits = process.raise_file_limit()
                stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            self.command: LaunchedProcess | None = None
            if command is not None:  # forked now, while we are small and alone
                self.command = LaunchedProcess(command, user=user, environment=environment)
                stack.callback(self.command.abandon)
            self._program = Program(settings, Kernel(), meanwhile=_import_the_rest)
            stack.callback(self._program.close)
            self._program.attach()  # to nobody yet; what fails, fails before a file is made
            from ..capture.writer import CaptureWriter
            from .metadata import capture_metadata
            from .recorder import Recorder

            self._writer = CaptureWriter(
                output,
                capture_metadata(self._program, command, list(self._pids)),
                force=force,
                size_limit=settings.size_limit,
                owner=(user.uid, user.gid) if user is not None else None,
            )
            stack.callback(self._writer.close)
            self.recorder = Recorder(
                self._program,
                self._writer,
                command=self.command,
                end_with_command=end_with_command,
                duration=duration,
                observer=observer,
            )
            stack.callback(self.recorder.close)
            self._resources = stack.pop_all()

    def record(self) -> EndReason:
        """Name the targets, let the command go, and record to the end. Call once."""
        if self.command is not None:
            self._program.add_target(self.command.pid, waits_for_exec=True)
            self.recorder.unsampled_threads += self._program.sample(self.command.pid)
            try:
                self.command.release()
            except TargetError:
                self._writer.withdraw()
                raise
        elif self._scope is not None:
            try:
                self._program.set_scope(self._scope)
            except TargetError:
                self._writer.withdraw()
                raise
            self.recorder.unsampled_threads += self._program.sample_all_cpus()
        else:
            self._add_running_targets()
            self.recorder.add_baseline(self._pids)
        return self.recorder.run(self._give_up_the_rest if self._drops_privileges else None)

    def drop_privileges(self) -> None:
        """Have ``record`` keep only the capabilities it needs. For a process with one thread.

        What it gives up does not come back.
        """
        self._drops_privileges = True

    def _give_up_the_rest(self) -> None:
        self._writer.keep()
        privileges.drop()

    def change_scope(self, scope: Scope) -> None:
        """Record other processes from now on; may be called from another thread while ``record`` runs.

        Raises TargetError for what ``scope`` names and is not there; the old one then goes on.
        """
        if self._scope is None:
            raise UsageError("only a recording that was begun with a scope can be given another")
        self._program.set_scope(scope)
        self.recorder.scope_changes += 1

    def _add_running_targets(self) -> None:
        """Trace the PIDs, sure that each is still the process it was when it was checked."""
        for pid, start in self._pids.items():
            self._program.add_target(pid)
            if not process.is_same(pid, start):
                raise TargetError(f"process {pid} ended before it could be traced")
            self.recorder.unsampled_threads += self._program.sample(pid)

    @property
    def written_bytes(self) -> int:
        """How long the capture is by now."""
        return self._writer.bytes_written

    def stop(self) -> None:
        """End the recording soon; safe in signal handlers and from other threads."""
        self.recorder.stop()

    @property
    def must_stay(self) -> bool:
        """Whether targets are left that need us: none needs the kernel program."""
        return False

    def stay(self) -> bool:
        """Wait for targets that need us; there are none."""
        return False

    def release_in_background(self) -> None:
        """Let ``close`` return at once; call it right before, in a process that is about to exit.

        ``close`` disables the probes immediately, but giving up the last descriptor of each of the
        fifteen waits for a grace period of the kernel, a second in all. A child that does nothing
        else holds them until this process has ended, and then ends too.
        """
        until_we_end, ours = os.pipe()
        if os.fork() == 0:
            try:
                os.closerange(0, 3)  # whoever reads our output shall not wait for this child
                os.close(ours)
                os.read(until_we_end, 1)
            finally:
                os._exit(0)

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

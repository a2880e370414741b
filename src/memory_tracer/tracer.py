"""Recording from Python: ``Tracer``."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .errors import TargetError, UsageError
from .record.engines import open_session
from .record.launch import User, exit_status
from .record.settings import Settings

if TYPE_CHECKING:
    from .capture.reader import Capture
    from .model import Event, Page
    from .record.engines import AnySession
    from .record.scope import Scope

#: How long to wait for more of a growing capture before looking again (seconds).
_PAUSE = 0.02


class Tracer:
    """A recording in the background; make one with ``spawn`` or ``attach``, use it in ``with``.

    The recording runs in a thread of its own from ``__enter__`` on and always goes into a capture
    file: ``output``, or a temporary one that is removed at ``__exit__``. ``pages`` and ``events``
    follow that file, so they can be called any number of times, and each starts at the beginning.
    """

    def __init__(self, session: AnySession, directory: tempfile.TemporaryDirectory[str] | None) -> None:
        """Use ``spawn`` or ``attach``."""
        self._session = session
        self._directory = directory
        self._thread = threading.Thread(target=self._record, name="memory-tracer", daemon=True)
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self.path: Path = session.output

    @classmethod
    def spawn(
        cls,
        command: Sequence[str | os.PathLike[str]],
        *,
        output: str | os.PathLike[str] | None = None,
        force: bool = False,
        settings: Settings | None = None,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        end_with_command: bool = False,
        duration: float | None = None,
        engine: str = "auto",
    ) -> Tracer:
        """Start ``command`` (program and arguments) stopped before its first instruction.

        ``output`` is the capture file to keep, ``user`` whom the command runs as (a name or UID),
        ``duration`` is in seconds, ``engine`` one of ``ebpf``, ``ptrace`` and ``auto`` (eBPF where it
        is permitted). Raises ``PrivilegeError``, ``UnsupportedError``, ``LoadError``, ``OutputError`` or
        ``UsageError``.
        """
        arguments = [os.fspath(part) for part in command]
        owner = User.named(user) if user is not None else None
        path, directory = _output(output)
        session = open_session(
            engine,
            path,
            settings or Settings(),
            command=arguments,
            user=owner,
            environment=environment,
            force=force,
            end_with_command=end_with_command,
            duration=duration,
        )
        return cls(session, directory)

    @classmethod
    def attach(
        cls,
        *pids: int,
        scope: Scope | None = None,
        output: str | os.PathLike[str] | None = None,
        force: bool = False,
        settings: Settings | None = None,
        duration: float | None = None,
        engine: str = "auto",
    ) -> Tracer:
        """Record the running processes ``pids``, or all of a ``scope``, now and later.

        What is executable already comes first. A recording of a scope ends when somebody says ``stop``
        (leaving ``with`` does), or after ``duration``. Raises as ``spawn`` does, and ``TargetError`` for a
        PID that cannot be traced, or what a scope names and is not there.
        """
        settings = settings or Settings(all_calls=False, lossless=False)
        if scope is not None:
            settings = dataclasses.replace(settings, scope=scope)
        if not pids and settings.scope is None:
            raise UsageError("there is nothing to record; give PIDs or a scope")
        path, directory = _output(output)
        return cls(
            open_session(
                engine,
                path,
                settings,
                pids=pids,
                force=force,
                duration=duration,
            ),
            directory,
        )

    @property
    def pid(self) -> int | None:
        """PID of the command started; None after ``attach``."""
        command = self._session.command
        return command.pid if command is not None else None

    def __enter__(self) -> Self:
        """Attach, let the command go, and start recording."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the recording and close the capture. A target that still runs goes on."""
        self.stop()
        self._ended.wait()
        self._session.close()
        if self._directory is not None:
            self._directory.cleanup()
        if kind is None:
            self._raise_failure()

    def _record(self) -> None:
        try:
            self._session.record()
        except BaseException as error:  # noqa: BLE001 - raised again where the recording is used
            self._error = error
        finally:
            self._ended.set()
        self._session.stay()

    def _raise_failure(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def stop(self) -> None:
        """End the recording soon; the targets go on."""
        if not self._ended.is_set():
            self._session.stop()

    def change_scope(self, scope: Scope) -> None:
        """Record the processes of ``scope`` from now on, and no others.

        Raises ``TargetError`` for what it names and is not there; the old scope then goes on.
        """
        from .record.session import Session

        self._check_started()
        if self._ended.is_set():
            raise UsageError("the recording has ended")
        if not isinstance(self._session, Session):
            raise UsageError("the ptrace engine has no scopes")
        self._session.change_scope(scope)

    def pages(self) -> Iterator[Page]:
        """Yield pages as they arrive; ends when the recording has ended (when the targets have).

        Raises what made the recording fail, if it did.
        """
        from .capture.reader import Capture

        with Capture(self.path) as capture:
            last = -1
            for _ in self._growth(capture):
                for page in capture.pages(after=last):
                    last = page.sequence
                    yield page

    def events(self) -> Iterator[Event]:
        """Yield events as they arrive; ends as ``pages`` does."""
        from .capture.reader import Capture

        with Capture(self.path) as capture:
            last = -1
            for _ in self._growth(capture):
                for event in capture.events(after=last):
                    last = event.sequence
                    yield event

    def _growth(self, capture: Capture) -> Iterator[None]:
        """Yield each time ``capture`` may hold more, the last time after the recording has ended."""
        self._check_started()
        while True:
            ended = self._ended.wait(_PAUSE)
            if capture.refresh() or ended:
                yield
            if ended:
                self._raise_failure()
                return

    def wait(self) -> int:
        """Wait for the command and return its exit status (128 and the signal's number if killed).

        May be called after ``with``. Raises ``TargetError`` after ``attach``, where there is none.
        """
        if self._session.command is None:
            raise TargetError("only a command started by Tracer.spawn has an exit status")
        self._check_started()
        return exit_status(self._session.command.wait())

    def _check_started(self) -> None:
        if self._thread.ident is None:
            raise UsageError("the recording has not begun; use the Tracer in a `with` statement")


def _output(
    output: str | os.PathLike[str] | None,
) -> tuple[Path, tempfile.TemporaryDirectory[str] | None]:
    """The capture file, and the private directory to remove with it if nobody asked for the file."""
    if output is not None:
        return Path(output), None
    directory = tempfile.TemporaryDirectory(prefix="memory-tracer-")
    return Path(directory.name) / "live.mtrace", directory

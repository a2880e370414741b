"""Start a command so that it can be traced from its very first instruction.

A child of ours waits in front of a gate until the program is attached, then becomes the right user
and calls execve. Only that execve makes it a target, so nothing of this interpreter is recorded.
"""

from __future__ import annotations

import os
import pwd
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from ..errors import TargetError, UsageError

_FAILURE = struct.Struct("<i")


@dataclass(frozen=True, slots=True)
class User:
    """Whom a command runs as."""

    name: str
    uid: int
    gid: int
    home: str

    @classmethod
    def named(cls, name: str) -> User:
        """Look ``name`` (or a numeric UID) up; raises UsageError when there is no such user."""
        try:
            entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        except KeyError:
            raise UsageError(f"there is no user {name!r} on this system") from None
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)

    @classmethod
    def behind_sudo(cls) -> User | None:
        """Return the user who called sudo, if we run as root because of it (sudo(8): SUDO_UID)."""
        uid = os.environ.get("SUDO_UID", "")
        if os.geteuid() != 0 or not uid.isdigit() or uid == "0":
            return None
        try:
            return cls.named(uid)
        except UsageError:
            return None

    def environment(self) -> dict[str, str]:
        """What login would set."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


class LaunchedProcess:
    """A command that waits to be let go. Reap it with ``wait`` or ``poll``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        user: User | None = None,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        """Fork; the child waits. Raises UsageError for an empty command.

        ``prepare`` is done by the child, still as we are, before it becomes the command.
        """
        if not command or not command[0]:
            raise UsageError("there is no command to run; write it after `--`")
        self._command = list(command)
        self._status: int | None = None
        gate_read, self._gate = os.pipe()
        self._failure, failure_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            _become(
                self._command,
                user,
                dict(os.environ if environment is None else environment),
                gate_read,
                failure_write,
                prepare,
            )
        os.close(gate_read)
        os.close(failure_write)
        self.pidfd = os.pidfd_open(self.pid)

    def release(self) -> None:
        """Let the child execute the command; raises TargetError when it cannot be executed."""
        self.let_go()
        self.check_executed()

    def let_go(self) -> None:
        """Let the child go on, without waiting for what becomes of it."""
        # Whenever a signal comes: who has been let go is not waited for.
        gate, self._gate = self._gate, -1
        os.write(gate, b"\n")
        os.close(gate)

    def check_executed(self) -> None:
        """Wait until the child executes the command; raises TargetError when it cannot."""
        report = os.read(self._failure, _FAILURE.size)
        if len(report) == _FAILURE.size:
            self.wait()
            number = _FAILURE.unpack(report)[0]
            name = self._command[0]
            if number == 2 and "/" not in name:
                raise TargetError(f"the command {name!r} was not found in PATH")
            raise TargetError(f"{name!r} cannot be executed: {os.strerror(number)}")

    def poll(self) -> int | None:
        """Return the wait status if the process has ended, without waiting."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        """Wait for the process; returns its wait status (waitpid(2))."""
        status = self._reap(0)
        assert status is not None
        return status

    def _reap(self, options: int) -> int | None:
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # somebody else reaped it: its status is lost
                pid, status = self.pid, 0
            if pid:
                self._status = status
        return self._status

    def abandon(self) -> None:
        """End a child that was never released, and free what is held for it."""
        if self._gate >= 0:
            os.close(self._gate)  # it sees the end of the pipe and exits
            self._gate = -1
            self.wait()
        self.close()

    def close(self) -> None:
        """Free descriptors; the process is left alone."""
        for name in ("pidfd", "_failure"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)


def exit_status(wait_status: int) -> int:
    """What a shell would report: the exit code, or 128 and the signal's number."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _become(
    command: list[str],
    user: User | None,
    environment: dict[str, str],
    gate: int,
    failure: int,
    prepare: Callable[[], None] | None,
) -> NoReturn:
    """The child: wait for the gate, change user, execute. Never returns to the caller's code."""
    try:
        if os.read(gate, 1):
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these two
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            if prepare is not None:
                prepare()
            if user is not None:
                os.setgroups(os.getgrouplist(user.name, user.gid))
                os.setgid(user.gid)
                os.setuid(user.uid)
                environment.update(user.environment())
            os.execvpe(command[0], command, environment)
    except OSError as error:
        os.write(failure, _FAILURE.pack(error.errno or 0))
    finally:
        os._exit(127)

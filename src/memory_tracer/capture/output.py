"""Create the file a capture is written to, without ever touching a file of somebody else.

The recorder runs as root in directories of other users, so nothing is opened that was there
before, links are not followed, and replacing is a rename of a file made by us.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from ..errors import OutputError

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Output:
    """A file just created, which may have taken the place of another.

    Until ``keep`` the other one is still there under a name of ours, and ``withdraw`` puts it back.
    """

    def __init__(self, path: Path, descriptor: int, replaced: Path | None) -> None:
        self.path = path
        self.descriptor = descriptor
        self._replaced = replaced

    def keep(self) -> None:
        """Give up the file that was replaced."""
        if self._replaced is not None:
            self._replaced.unlink(missing_ok=True)
            self._replaced = None

    def withdraw(self) -> None:
        """Remove the file; what it replaced is back."""
        if self._replaced is not None:
            self._replaced.replace(self.path)
            self._replaced = None
        else:
            self.path.unlink(missing_ok=True)


def open_output(path: Path, *, replace: bool, owner: tuple[int, int] | None) -> Output:
    """Create ``path`` with mode 0600 for ``owner`` (uid, gid).

    With ``replace`` an existing regular file is replaced by the new one. Raises ``OutputError``
    when the file exists (without ``replace``), is no regular file, or cannot be created.
    """
    try:
        return _create_and_replace(path, owner) if replace else Output(path, _create(path, owner), None)
    except FileExistsError as error:
        raise OutputError(f"{path} exists; choose another name or replace it with --force") from error
    except OSError as error:
        raise OutputError(f"{path} cannot be created: {error.strerror}") from error


def create_output(path: Path, *, replace: bool, owner: tuple[int, int] | None) -> int:
    """Do the same for good, and return the file descriptor."""
    output = open_output(path, replace=replace, owner=owner)
    output.keep()
    return output.descriptor


def _create(path: Path, owner: tuple[int, int] | None) -> int:
    descriptor = os.open(path, _CREATE, 0o600)
    try:
        if owner is not None:
            os.fchown(descriptor, *owner)
    except OSError:
        os.close(descriptor)
        path.unlink()
        raise
    return descriptor


def _create_and_replace(path: Path, owner: tuple[int, int] | None) -> Output:
    exists = os.path.lexists(path)
    if exists and not stat.S_ISREG(path.lstat().st_mode):
        raise OutputError(f"{path} is not a regular file, so --force does not replace it")
    name = secrets.token_hex(8)
    fresh, replaced = path.with_name(f".{name}.mtrace-new"), path.with_name(f".{name}.mtrace-old")
    descriptor = _create(fresh, owner)
    try:
        if exists:
            os.link(path, replaced, follow_symlinks=False)
        fresh.replace(path)
    except OSError:
        os.close(descriptor)
        fresh.unlink()
        replaced.unlink(missing_ok=True)
        raise
    return Output(path, descriptor, replaced if exists else None)

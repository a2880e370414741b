"""Create the file a capture is written to, without ever touching a file of somebody else.

The recorder runs as root in directories of other users, so nothing is opened that was there
before, and replacing is a rename of a file made by us. Symbolic links are not followed, in no part of
the path: the directory is opened step by step, and all that is done later is done in it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from ..errors import OutputError

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Output:
    """A file just created, which may have taken the place of another.

    Until ``keep`` the other one is still there under a name of ours, and ``withdraw`` puts it back.
    """

    def __init__(self, directory: int, name: str, descriptor: int, replaced: str | None) -> None:
        """``directory`` is an open one, and taken over; it is where the names are."""
        self.descriptor = descriptor
        self._directory = directory
        self._name = name
        self._replaced = replaced

    def keep(self) -> None:
        """Give up the file that was replaced."""
        if self._replaced is not None:
            _remove(self._directory, self._replaced)
        self._close()

    def withdraw(self) -> None:
        """Remove the file; what it replaced is back."""
        if self._directory < 0:
            return
        if self._replaced is not None:
            _rename(self._directory, self._replaced, self._name)
        else:
            _remove(self._directory, self._name)
        self._close()

    def _close(self) -> None:
        self._replaced = None
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1


def open_directory(path: Path) -> int:
    """Open directory ``path`` without following symbolic links; a descriptor to create files in (``dir_fd``).

    Raises ``OutputError`` for a link, OSError for what else there is.
    """
    descriptor = os.open("/" if path.is_absolute() else ".", _STEP)
    for index, part in enumerate(path.parts):
        if part == path.anchor:
            continue
        try:
            following = os.open(part, _STEP, dir_fd=descriptor)
        except NotADirectoryError as error:
            mode = os.stat(part, dir_fd=descriptor, follow_symlinks=False).st_mode
            if not stat.S_ISLNK(mode):
                raise
            raise OutputError(
                f"{Path(*path.parts[: index + 1])} is a symbolic link, and nothing is written through one; "
                "name the directory itself"
            ) from error
        finally:
            os.close(descriptor)
        descriptor = following
    return descriptor


def open_output(path: Path, *, replace: bool, owner: tuple[int, int] | None) -> Output:
    """Create ``path`` with mode 0600 for ``owner`` (uid, gid).

    With ``replace`` an existing regular file is replaced by the new one. Raises ``OutputError``
    when the file exists (without ``replace``), is no regular file, or cannot be created.
    """
    try:
        if path.name in ("", ".."):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        directory = open_directory(path.parent)
        try:
            if replace:
                return _create_and_replace(path, directory, owner)
            return Output(directory, path.name, _create(directory, path.name, owner), None)
        except BaseException:
            os.close(directory)
            raise
    except FileExistsError as error:
        raise OutputError(f"{path} exists; choose another name or replace it with --force") from error
    except OSError as error:
        raise OutputError(f"{path} cannot be created: {error.strerror}") from error


def make_directory(path: Path) -> None:
    """Make directory ``path``, for us alone. Raises as ``open_directory`` does, and FileExistsError."""
    parent = open_directory(path.parent)
    try:
        os.mkdir(path.name or ".", 0o700, dir_fd=parent)
    finally:
        os.close(parent)


def create_output(path: Path, *, replace: bool, owner: tuple[int, int] | None) -> int:
    """Do the same for good, and return the file descriptor."""
    output = open_output(path, replace=replace, owner=owner)
    output.keep()
    return output.descriptor


def _create(directory: int, name: str, owner: tuple[int, int] | None) -> int:
    descriptor = os.open(name, _CREATE, 0o600, dir_fd=directory)
    try:
        if owner is not None:
            os.fchown(descriptor, *owner)
    except OSError:
        os.close(descriptor)
        _remove(directory, name)
        raise
    return descriptor


def _create_and_replace(path: Path, directory: int, owner: tuple[int, int] | None) -> Output:
    name = path.name
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        mode = None
    if mode is not None and not stat.S_ISREG(mode):
        raise OutputError(f"{path} is not a regular file, so --force does not replace it")
    token = secrets.token_hex(8)
    fresh, replaced = f".{token}.mtrace-new", f".{token}.mtrace-old"
    descriptor = _create(directory, fresh, owner)
    try:
        if mode is not None:
            os.link(name, replaced, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        _rename(directory, fresh, name)
    except OSError:
        os.close(descriptor)
        _remove(directory, fresh)
        _remove(directory, replaced)
        raise
    return Output(directory, name, descriptor, replaced if mode is not None else None)


def _rename(directory: int, old: str, new: str) -> None:
    os.replace(old, new, src_dir_fd=directory, dst_dir_fd=directory)


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)

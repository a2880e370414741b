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

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def create_output(path: Path, *, replace: bool, owner: tuple[int, int] | None) -> int:
    """Create ``path`` with mode 0600 for ``owner`` (uid, gid) and return its file descriptor.

    With ``replace`` an existing regular file is replaced by the new one. Raises ``OutputError``
    when the file exists (without ``replace``), is no regular file, or cannot be created.
    """
    try:
        return _create_and_replace(path, owner) if replace else _create(path, owner)
    except FileExistsError as error:
        raise OutputError(f"{path} exists; choose another name or replace it with --force") from error
    except OSError as error:
        raise OutputError(f"{path} cannot be created: {error.strerror}") from error


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


def _create_and_replace(path: Path, owner: tuple[int, int] | None) -> int:
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise OutputError(f"{path} is not a regular file, so --force does not replace it")
    fresh = path.with_name(f".{secrets.token_hex(8)}.mtrace-new")
    descriptor = _create(fresh, owner)
    try:
        fresh.replace(path)
    except OSError:
        os.close(descriptor)
        fresh.unlink()
        raise
    return descriptor

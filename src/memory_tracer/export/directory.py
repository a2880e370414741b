"""The directory an export is written to."""

from __future__ import annotations

import re
from pathlib import Path

from ..capture.output import make_directory
from ..errors import OutputError


def create_directory(directory: Path, ours: re.Pattern[str], *, force: bool) -> None:
    """Create ``directory``, or with ``force`` empty it when everything in it is an export of ours.

    ``ours`` are the names of such files. Raises ``OutputError``.
    """
    try:
        make_directory(directory)
        return
    except FileExistsError as error:
        if not force or directory.is_symlink() or not directory.is_dir():
            raise OutputError(
                f"{directory} exists; choose another with -o or replace it with --force"
            ) from error
    except OSError as error:
        raise OutputError(f"{directory} cannot be created: {error.strerror}") from error
    _remove_export(directory, ours)


def _remove_export(directory: Path, ours: re.Pattern[str]) -> None:
    files = list(directory.iterdir())
    foreign = [path for path in files if not ours.fullmatch(path.name) or path.is_symlink() or path.is_dir()]
    if foreign:
        raise OutputError(
            f"{directory} holds something that is no export ({foreign[0].name}), "
            "so --force does not replace it"
        )
    for path in files:
        path.unlink()

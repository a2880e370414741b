"""The directory of a service's captures: names, and how much may be in it."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

from ..capture.output import make_directory, open_directory
from ..errors import OutputError

_SUFFIX = ".mtrace"
#: Of the budget, what is left to events and indexes when there is no room for content any more.
_METADATA_SHARE = 16


class Store:
    """Holds the directory open: what its path means may change, what is removed here does not."""

    def __init__(self, directory: Path, budget: int) -> None:
        """Open ``directory``, or create it for us alone. Raises OutputError when others may use it."""
        self.directory = directory
        self._budget = budget
        try:
            with contextlib.suppress(FileExistsError):
                make_directory(directory)
            self._descriptor = open_directory(directory)
        except OSError as error:
            raise OutputError(f"{directory} cannot be used: {error.strerror}") from error
        found = os.fstat(self._descriptor)
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
            self.close()
            raise OutputError(f"{directory} can be used by others; give it to us alone (mode 0700)")

    def new_path(self) -> Path:
        """The name of the next capture, by the time."""
        stem = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        taken = {name for name, _ in self._captures()}
        number = 1
        while (name := f"{stem}-{number:03}{_SUFFIX}") in taken:
            number += 1
        return self.directory / name

    def used(self) -> int:
        """Bytes in all captures."""
        return sum(size for _, size in self._captures())

    def room(self) -> int:
        """Bytes of content that a new capture may take; what is left of the budget for that."""
        return max(0, self._budget - self._budget // _METADATA_SHARE - self.used())

    def make_room(self, wanted: int, current: Path | None) -> list[str]:
        """Remove the oldest captures, but not ``current``, until so much is left; returns their names."""
        removed = []
        for name, _ in self._captures():
            if self.room() >= wanted:
                break
            if current is None or name != current.name:
                os.unlink(name, dir_fd=self._descriptor)
                removed.append(name)
        return removed

    def _captures(self) -> list[tuple[str, int]]:
        """Name and size of each capture, by age: that is the order of their names."""
        directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._descriptor)
        try:
            found = []
            for name in sorted(os.listdir(directory)):
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if name.endswith(_SUFFIX) and stat.S_ISREG(status.st_mode):
                        found.append((name, status.st_size))
            return found
        finally:
            os.close(directory)

    def close(self) -> None:
        """Let go of the directory. May be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

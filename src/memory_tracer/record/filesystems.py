"""Which file systems can be read without asking a process that may never answer."""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path

#: One line of /proc/PID/mountinfo (proc(5)): the device, and the type after a separator.
_LINE = re.compile(r"\d+ \d+ (\d+):(\d+) .*? - (\S+) ")


class FileSystems:
    """The file systems that a process has mounted, and those that only the kernel mounts."""

    def __init__(self, process: Path) -> None:
        """``process`` is its directory under /proc."""
        self._process = process

    def can_be_read(self, device: int) -> bool:
        """Whether no process has to answer for file system ``device`` (major << 20 | minor).

        Everybody may mount a FUSE in a user namespace and serve it, or leave a reader waiting in a
        state that not even SIGKILL ends. Other file systems with a server take an administrator.
        """
        return device in self._readable

    @cached_property
    def _readable(self) -> set[int]:
        found = set()
        for mounts in (self._process / "mountinfo", Path("/proc/self/mountinfo")):
            try:
                text = mounts.read_text(errors="replace")
            except OSError:
                continue  # it ended: nothing of it can be read anyway
            for major, minor, kind in _LINE.findall(text):
                if not kind.startswith("fuse"):
                    found.add(int(major) << 20 | int(minor))
        # Memfds, System V segments and shared anonymous memory are in a tmpfs that is mounted nowhere.
        descriptor = os.memfd_create("memory-tracer")
        device = os.fstat(descriptor).st_dev
        os.close(descriptor)
        found.add(os.major(device) << 20 | os.minor(device))
        return found

"""Which BPF objects a process holds, and whether they are still in the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from pathlib import Path

from .recording import await_that

Identity = tuple[str, int]

_KINDS = ("prog", "map", "link")


def ids_held_by(pid: int) -> set[Identity]:
    """Return kind and id of every BPF program, map and link behind a descriptor of process ``pid``."""
    held = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            for kind, number in re.findall(r"^(prog|map|link)_id:\s*(\d+)$", info.read_text(), re.MULTILINE):
                held.add((kind, int(number)))
    return held


def await_unloaded(identities: set[Identity]) -> None:
    """Wait until none of them exists; the kernel frees them some grace periods after the last use."""
    library = ctypes.CDLL("libbpf.so.1")
    functions = {kind: getattr(library, f"bpf_{kind}_get_fd_by_id") for kind in _KINDS}

    def exists(identity: Identity) -> bool:
        kind, number = identity
        result: int = functions[kind](ctypes.c_uint32(number))
        if result >= 0:
            os.close(result)
        assert result >= 0 or result == -errno.ENOENT, os.strerror(-result)
        return result >= 0

    await_that(lambda: not any(map(exists, identities)), f"{identities} are unloaded")

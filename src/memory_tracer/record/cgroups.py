"""Control groups (version 2), by path and by the containers they belong to."""

from __future__ import annotations

import ctypes
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import TargetError, UnsupportedError

_CGROUP2_MAGIC = 0x63677270  # include/uapi/linux/magic.h

#: The mount point and the type of a file system, in a line of /proc/PID/mountinfo (proc(5)).
_MOUNT = re.compile(r"^\d+ \d+ \d+:\d+ \S+ (\S+) .* - cgroup2 ", re.MULTILINE)
_ESCAPE = re.compile(r"\\(\d{3})")

#: Groups that engines make for their own helpers, beside the container's.
_HELPER = re.compile(r"(?:libpod-conmon|crio-conmon)-")
#: The name that an engine gives a container's group: an id of 64 digits, or a name of its own.
_ID = re.compile(r"(?:^|[-:/])([0-9a-f]{64})(?:\.scope)?$")
_NAMED = re.compile(
    r"^(?:lxc\.payload\.|lxc\.monitor\.|machine-|systemd-nspawn@|system\.slice:cri-containerd:)?"
    r"(.+?)(?:\.scope|\.service)?$"
)
#: Kubernetes: a pod's group holds those of its containers.
_POD = re.compile(r"(?:^|-)pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?:\.slice)?$")
_SHORTEST_ID = 4

#: Where engines keep the names of their containers.
_DOCKER = Path("/var/lib/docker/containers")
_PODMAN = (
    Path("/var/lib/containers/storage/overlay-containers/containers.json"),
    Path("/var/lib/containers/storage/vfs-containers/containers.json"),
)


def hierarchy() -> Path:
    """Where the groups are mounted; raises UnsupportedError when they are not."""
    found = _MOUNT.search(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    if found is None:
        raise UnsupportedError(
            "control groups of version 2 are not mounted; "
            "mount them with `mount -t cgroup2 cgroup2 /sys/fs/cgroup`"
        )
    return Path(_ESCAPE.sub(lambda escape: chr(int(escape[1], 8)), found[1]))


def cgroup_id(path: str | os.PathLike[str]) -> int:
    """The kernel's number of the group at ``path``, in the file system or as /proc/PID/cgroup has it.

    Raises TargetError when there is none.
    """
    wanted = Path(path)
    for directory in (wanted, hierarchy() / str(path).lstrip("/")):
        if directory.is_dir() and _is_cgroup(directory):
            return directory.stat().st_ino
    raise TargetError(f"{str(path)!r} is no control group (version 2); `systemd-cgls` lists them")


def _is_cgroup(directory: Path) -> bool:
    """Ask statfs(2) for the type of file system, its first word."""
    answer = (ctypes.c_long * 32)()
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.statfs(os.fsencode(directory), ctypes.byref(answer)) == 0 and answer[0] == _CGROUP2_MAGIC


def container_ids(name: str) -> list[int]:
    """The numbers of the groups of the container, or Kubernetes pod, with that id or name.

    An id may be shortened. Raises TargetError when none, or more than one container, matches.
    """
    root = hierarchy()
    wanted = _id_by_name(name) or name
    found: dict[str, list[int]] = {}
    for directory in _groups(root):
        label = container_label(directory.relative_to(root), wanted)
        if label is not None:
            found.setdefault(label, []).append(directory.stat().st_ino)
    exact = found.get(wanted)
    if exact is not None:
        return exact
    if not found:
        raise TargetError(
            f"no control group belongs to a container {name!r}; it is not running, "
            "or its engine uses groups of version 1"
        )
    if len(found) > 1:
        raise TargetError(f"{name!r} stands for {len(found)} containers: {', '.join(sorted(found))[:200]}")
    return next(iter(found.values()))


def _groups(root: Path) -> Iterator[Path]:
    for directory, below, _ in os.walk(root):
        for name in below:
            yield Path(directory, name)


def container_label(path: Path, wanted: str) -> str | None:
    """By what name the group is the one ``wanted``, if it is."""
    if _HELPER.match(path.name):
        return None
    pod = _POD.search(path.name)
    if pod is not None:
        uid = pod[1].replace("_", "-")
        return uid if uid == wanted else None
    identifier = _ID.search(path.name)
    if identifier is not None:
        shortened = len(wanted) >= _SHORTEST_ID and identifier[1].startswith(wanted)
        return identifier[1] if shortened else None
    named = _NAMED.match(path.name)
    return wanted if named is not None and _unescaped(named[1]) == wanted else None


def _unescaped(name: str) -> str:
    """Undo what systemd does to characters that unit names do not have (systemd.unit(5))."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda escape: chr(int(escape[1], 16)), name)


def _id_by_name(name: str) -> str | None:
    """The id of the container that Docker or Podman knows by that name."""
    for file in sorted(_DOCKER.glob("*/config.v2.json")) if _DOCKER.is_dir() else ():
        if _text(_json(file), "Name").lstrip("/") == name:
            return file.parent.name
    for listing in _PODMAN:
        known = _json(listing)
        for container in known if isinstance(known, list) else ():
            names = container.get("names") if isinstance(container, dict) else None
            if isinstance(names, list) and name in names:
                return _text(container, "id") or None
    return None


def _text(value: object, key: str) -> str:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _json(path: Path) -> object:
    try:
        value: object = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # removed meanwhile, or nothing of this engine's
    return value

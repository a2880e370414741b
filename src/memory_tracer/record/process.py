"""What /proc says about a process that is to be traced."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from ..errors import PrivilegeError, TargetError, UnsupportedError, UsageError

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_PF_KTHREAD = 0x00200000  # include/linux/sched.h
_ENDED = "ZX"  # states of a thread in /proc/PID/stat
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC


def _stat_fields(pid: int) -> tuple[str, list[str]]:
    """The name and the fields after it of /proc/PID/stat (proc(5)); a name may hold anything."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")
    head, _, tail = text.rpartition(")")
    return head.partition("(")[2], tail.split()


def start_time_ns(pid: int) -> int:
    """When the process started, in nanoseconds since boot, to a clock tick (10 ms); OSError if gone."""
    ticks = int(_stat_fields(pid)[1][19])
    return ticks * (1_000_000_000 // _CLOCK_TICKS)


def parent_pid(pid: int) -> int:
    """PID of the parent; OSError if gone."""
    return int(_stat_fields(pid)[1][1])


def comm(pid: int) -> bytes:
    """The name of the process's first thread; OSError if gone."""
    return _stat_fields(pid)[0].encode(errors="surrogateescape")


def living_thread(pid: int) -> int:
    """A thread of process ``pid`` that has not ended: the first one, unless the others outlive it.

    When its first thread has ended, a process looks like a zombie without memory under /proc/PID.
    Raises OSError when all have ended.
    """
    if _stat_fields(pid)[1][0] not in _ENDED:
        return pid
    for name in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            if _stat_fields(int(name))[1][0] not in _ENDED:
                return int(name)
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def check_pid_namespace() -> None:
    """Raise UnsupportedError in a container's PID namespace, where our PIDs are not the kernel's.

    Its number in the initial namespace is PROC_PID_INIT_INO (include/linux/proc_ns.h).
    """
    if Path("/proc/self/ns/pid").stat().st_ino != _INITIAL_PID_NAMESPACE:
        raise UnsupportedError(
            "memory-tracer runs in a PID namespace of its own; run it on the host, or in a container "
            "that shares the host's PIDs (docker run --pid=host)"
        )


def check_traceable(pid: int) -> None:
    """Raise one clear sentence unless ``pid`` is a living user process."""
    if pid <= 0:
        raise UsageError(f"{pid} is not the PID of a process; PIDs start at 1")
    try:
        name, fields = _stat_fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise TargetError(f"there is no process {pid}; `ps` lists the running ones") from None
    except (PermissionError, OverflowError, OSError) as error:
        raise PrivilegeError(f"process {pid} cannot be looked at ({error}); run with sudo") from error
    if int(fields[6]) & _PF_KTHREAD:
        raise TargetError(f"process {pid} ({name}) is a kernel thread: it has no user memory to trace")
    if not _is_leader(pid):
        raise TargetError(f"{pid} is a thread, not a process; attach to its process {_leader(pid)}")
    try:
        living_thread(pid)
    except OSError:
        raise TargetError(f"process {pid} has ended already and only waits for its parent") from None


def _leader(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return pid


def _is_leader(pid: int) -> bool:
    return _leader(pid) == pid

"""What /proc says about a process that is to be traced."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from pathlib import Path

from ..errors import PrivilegeError, TargetError, UsageError

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PF_KTHREAD = 0x00200000  # include/linux/sched.h
_ENDED = "ZX"  # states of a thread in /proc/PID/stat


def _stat_fields(pid: int) -> tuple[str, list[str]]:
    """The name and the fields after it of /proc/PID/stat (proc(5)); a name may hold anything."""
    text = Path(f"/proc/{pid}/stat").read_text(errors="surrogateescape")
    head, _, tail = text.rpartition(")")
    return head.partition("(")[2], tail.split()


def raise_file_limit() -> tuple[int, int]:
    """Allow us as many open files as the system does; returns what the limits were (getrlimit(2))."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    for wanted in ((most, most), (before[1], before[1])):  # the first needs CAP_SYS_RESOURCE
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, wanted)
            break
    return before


def has_ended(error: OSError) -> bool:
    """Whether ``error``, met under /proc/PID or in a system call on a PID, says that it is no more."""
    return isinstance(error, FileNotFoundError | ProcessLookupError)


def uid(pid: int) -> int:
    """The effective user id; OSError if gone."""
    return Path(f"/proc/{pid}").stat().st_uid


def start_time_ns(pid: int) -> int:
    """When the process started, in nanoseconds since boot, to a clock tick (10 ms); OSError if gone."""
    return _start_time_ns(_stat_fields(pid)[1])


def _start_time_ns(fields: list[str]) -> int:
    return int(fields[19]) * _TICK_NS


def is_same(pid: int, start_ns: int) -> bool:
    """Whether ``pid`` is still the process that started then, as exactly as /proc tells (10 ms)."""
    try:
        return start_time_ns(pid) // _TICK_NS == start_ns // _TICK_NS
    except OSError:
        return False


def parent_pid(pid: int) -> int:
    """PID of the parent; OSError if gone."""
    return int(_stat_fields(pid)[1][1])


def comm(pid: int) -> bytes:
    """The name of the process's first thread; OSError if gone."""
    return _stat_fields(pid)[0].encode(errors="surrogateescape")


def namespace_id(tid: int) -> int:
    """The ID of a thread as it sees itself; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{tid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except OSError:
        pass
    return 0


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


def check_traceable(pid: int) -> int:
    """Raise one clear sentence unless ``pid`` is a living user process; returns when it started.

    In nanoseconds since boot, to a clock tick.
    """
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
        thread = living_thread(pid)
    except OSError:
        raise TargetError(f"process {pid} has ended already and only waits for its parent") from None
    try:
        os.close(os.open(f"/proc/{thread}/mem", os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError as error:
        raise PrivilegeError(
            f"the memory of process {pid} cannot be looked at; run with sudo, or with CAP_SYS_PTRACE",
            detail=str(error),
        ) from error
    except OSError:
        raise TargetError(f"process {pid} ended before it could be traced") from None
    return _start_time_ns(fields)


def _leader(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    return pid


def _is_leader(pid: int) -> bool:
    return _leader(pid) == pid

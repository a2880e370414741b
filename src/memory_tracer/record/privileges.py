"""Giving up what a recording does not need once it has begun: all capabilities but a few.

Loading and attaching takes root, or nearly. What is left is to read what the kernel program leaves to us, of
processes of all users. The rights to do so are dangerous enough; those to load modules, mount, change owners
or write to everybody's files are gone, for good, before the first byte of a target is decoded.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
from collections.abc import Iterator


class Capability(enum.IntEnum):
    """The capabilities that a recording keeps (include/uapi/linux/capability.h), and why."""

    #: /proc/PID/clear_refs is for its owner to write; only held while that is opened.
    DAC_OVERRIDE = 1
    #: The files of other users' processes under /proc are theirs to read.
    DAC_READ_SEARCH = 2
    #: Memory of other processes: process_vm_readv(2), /proc/PID/mem.
    SYS_PTRACE = 19
    #: Attaching a tracepoint when a target asks for it, and opening samplers.
    PERFMON = 38
    #: Reading and changing the maps, where unprivileged users may not.
    BPF = 39
    #: Files that other processes have mapped, by /proc/PID/map_files.
    CHECKPOINT_RESTORE = 40


#: What is in force all the time.
EFFECTIVE = frozenset(
    {
        Capability.DAC_READ_SEARCH,
        Capability.SYS_PTRACE,
        Capability.PERFMON,
        Capability.BPF,
        Capability.CHECKPOINT_RESTORE,
    }
)
#: What can be put in force by ``raised``.
PERMITTED = EFFECTIVE | {Capability.DAC_OVERRIDE}

_libc = ctypes.CDLL(None, use_errno=True)
_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_PR_SET_NO_NEW_PRIVS = 38


class _Header(ctypes.Structure):
    """``struct __user_cap_header_struct``."""

    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    """Two ``struct __user_cap_data_struct``, each of 32 capabilities."""

    _fields_ = [
        ("effective_low", ctypes.c_uint32),
        ("permitted_low", ctypes.c_uint32),
        ("inheritable_low", ctypes.c_uint32),
        ("effective_high", ctypes.c_uint32),
        ("permitted_high", ctypes.c_uint32),
        ("inheritable_high", ctypes.c_uint32),
    ]


def _mask(capabilities: frozenset[Capability]) -> int:
    return sum(1 << capability for capability in capabilities)


def _get() -> tuple[int, int]:
    """What is effective and permitted for the calling thread, as bit masks (capget(2))."""
    sets = _Sets()
    _check(_libc.capget(ctypes.byref(_Header(_VERSION, 0)), ctypes.byref(sets)))
    return (
        sets.effective_high << 32 | sets.effective_low,
        sets.permitted_high << 32 | sets.permitted_low,
    )


def _set(effective: int, permitted: int) -> None:
    """Have just these, and nothing to inherit, in the calling thread and those that it starts (capset(2))."""
    low = (1 << 32) - 1
    sets = _Sets(effective & low, permitted & low, 0, effective >> 32, permitted >> 32, 0)
    _check(_libc.capset(ctypes.byref(_Header(_VERSION, 0)), ctypes.byref(sets)))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def drop() -> None:
    """Keep what the calling thread has of the capabilities above, and never gain another.

    It is for the only thread of a process: others would keep what they have.
    """
    permitted = _get()[1] & _mask(PERMITTED)
    _set(permitted & _mask(EFFECTIVE), permitted)
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


@contextlib.contextmanager
def raised(capability: Capability) -> Iterator[None]:
    """Put a capability in force for the calling thread, if it is permitted and was not in force."""
    effective, permitted = _get()
    wanted = effective | permitted & 1 << capability
    if wanted == effective:
        yield
        return
    _set(wanted, permitted)
    try:
        yield
    finally:
        _set(effective, permitted)

"""The seccomp filter of a launched target: it stops for us at the calls that matter, and at no others.

Classic BPF over ``struct seccomp_data`` (include/uapi/linux/seccomp.h): number at 0, architecture at
4, arguments from 16 on, 8 bytes each, of which the lower half says enough.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence

from .abi import X32_BIT, Abi, Call

_LOAD, _EQUAL, _SET, _AND, _RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
_GREATER, _AT_LEAST = 0x25, 0x35
_INSTRUCTION = struct.Struct("=HBBI")
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000

_EXEC, _SHARED, _FIXED = 4, 0x01, 0x10
_SHM_EXEC, _IPC_SHMAT = 0o100000, 21
_MADV_DONTNEED, _MADV_REMOVE = 4, 9

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

#: A call and the conditions of which one must hold: (argument, bits of which one is set).
_TRACED: Sequence[tuple[Call, Sequence[tuple[int, int]]]] = (
    (Call.MMAP, ((2, _EXEC), (3, _SHARED | _FIXED))),
    (Call.OLD_MMAP, ()),
    (Call.MPROTECT, ((2, _EXEC),)),
    (Call.PKEY_MPROTECT, ((2, _EXEC),)),
    (Call.MUNMAP, ()),
    (Call.MREMAP, ()),
    (Call.SHMAT, ()),
    (Call.IPC, ()),
    (Call.PERSONALITY, ()),
    (Call.REMAP_FILE_PAGES, ()),
    (Call.PWRITE, ()),  # to /proc/PID/mem
    (Call.EXECVE, ()),
    (Call.EXECVEAT, ()),
)

#: The same while a process has memory that is watched.
_CHANGES = (Call.MPROTECT, Call.PKEY_MPROTECT, Call.MADVISE)
_INDIRECT = (
    *(Call.IOCTL, Call.READV, Call.PREADV, Call.PREADV2),
    *(Call.RECVMSG, Call.RECVMMSG, Call.PROCESS_VM_READV),
)
_FILE_WRITES = (Call.WRITE, Call.PWRITE, Call.WRITEV, Call.FTRUNCATE, Call.FALLOCATE)
_HALF = 0xFFFFFFFF

_Jump = tuple[int, int, int, int]


def build_filter(abis: Sequence[Abi], cookie: int) -> bytes:
    """The filter's instructions. Calls whose sixth argument's halves are both ``cookie`` are ours."""
    instructions = _allow_ours(cookie)
    for abi in abis:
        body = list(_of(abi))
        # Conditional jumps reach 255 instructions; a table is shorter.
        instructions += [(_LOAD, 0, 0, 4), (_EQUAL, 0, len(body), abi.audit), *body]
    instructions.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)


def _of(abi: Abi) -> Iterator[_Jump]:
    yield (_LOAD, 0, 0, 0)
    yield (_AND, 0, 0, 0xFFFFFFFF ^ X32_BIT)
    for call, conditions in _TRACED:
        number = abi.numbers.get(call)
        if number is None:
            continue
        tests = [
            instruction
            for left, (argument, bits) in zip(range(len(conditions), 0, -1), conditions, strict=True)
            # What matches jumps over the tests that are left and the return that allows.
            for instruction in ((_LOAD, 0, 0, 16 + 8 * argument), (_SET, 2 * (left - 1) + 1, 0, bits))
        ]
        body = [*tests, (_RETURN, 0, 0, _ALLOW)] if tests else []
        body.append((_RETURN, 0, 0, _TRACE))
        yield (_EQUAL, 0, len(body), number)
        yield from body
    yield (_RETURN, 0, 0, _ALLOW)


def build_watching_filter(
    abi: Abi, cookie: int, windows: Sequence[tuple[int, int]], *, with_writes: bool
) -> bytes:
    """The instructions of a filter that stops at what else matters while memory is watched.

    Calls that change mappings, or write to memory by ways of their own; with ``with_writes`` those that
    write to files; those with an argument that lies in one of ``windows``; and all of other ABIs.
    """
    calls = (*_CHANGES, *_INDIRECT, *(_FILE_WRITES if with_writes else ()))
    instructions: list[_Jump] = [
        *_allow_ours(cookie),
        *((_LOAD, 0, 0, 4), (_EQUAL, 1, 0, abi.audit), (_RETURN, 0, 0, _TRACE)),
        *((_LOAD, 0, 0, 0), (_AND, 0, 0, 0xFFFFFFFF ^ X32_BIT)),
    ]
    for number in (abi.numbers[call] for call in calls if call in abi.numbers):
        instructions += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _TRACE)]
    for low, high in _halves(windows):
        for argument in range(6):
            at = 16 + 8 * argument
            instructions += [
                *((_LOAD, 0, 0, at + 4), (_EQUAL, 0, 4, low >> 32)),
                *((_LOAD, 0, 0, at), (_AT_LEAST, 0, 2, low & _HALF), (_GREATER, 1, 0, high & _HALF)),
                (_RETURN, 0, 0, _TRACE),
            ]
    instructions.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in instructions)


def _halves(windows: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """First and last address of each window, cut where the upper half of addresses changes."""
    for start, end in windows:
        for low in range(start >> 32 << 32, end, 1 << 32):
            yield max(start, low), min(end, low + (1 << 32)) - 1


def _allow_ours(cookie: int) -> list[_Jump]:
    return [
        *((_LOAD, 0, 0, 16 + 5 * 8), (_EQUAL, 0, 3, cookie)),
        *((_LOAD, 0, 0, 16 + 4 * 8), (_EQUAL, 0, 1, cookie)),
        (_RETURN, 0, 0, _ALLOW),
    ]


def install_filter(program: bytes) -> None:
    """Filter our own calls from now on, and those of all descendants. Raises OSError.

    Who may not do so otherwise gives up gaining privileges by execve for it (prctl(2)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(
        struct.pack("=H6xQ", len(program) // _INSTRUCTION.size, ctypes.addressof(buffer)), 16
    )
    for privileged in (True, False):
        if not privileged:
            libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if not libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0):
            return
        if ctypes.get_errno() != errno.EACCES:
            break
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

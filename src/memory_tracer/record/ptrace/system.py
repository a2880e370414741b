"""The system calls of a tracer, through ctypes: ptrace(2), waitpid(2), process_vm_readv(2).

Knows what the calls take and return, and nothing of what they are made for. Failing calls raise
OSError; that a tracee is gone is ``ProcessLookupError``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from ...model import PAGE_SIZE

PTRACE_CONT = 7
PTRACE_SINGLESTEP = 9
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
#: Of x86-64, and the same for its 32-bit programs; others have only the register sets.
_PTRACE_GETREGS, _PTRACE_SETREGS = 12, 13
_PTRACE_GETEVENTMSG = 0x4201
_PTRACE_GETSIGINFO = 0x4202
_PTRACE_SETSIGINFO = 0x4203
_PTRACE_GETREGSET = 0x4204
_PTRACE_SETREGSET = 0x4205
_PTRACE_SEIZE = 0x4206
_PTRACE_INTERRUPT = 0x4207
_PTRACE_LISTEN = 0x4208
_PTRACE_GETSIGMASK = 0x420A
_PTRACE_SETSIGMASK = 0x420B
_PTRACE_GET_SYSCALL_INFO = 0x420E

OPTION_SYSGOOD = 1 << 0
OPTION_FORK = 1 << 1
OPTION_VFORK = 1 << 2
OPTION_CLONE = 1 << 3
OPTION_EXEC = 1 << 4
OPTION_EXIT = 1 << 6
OPTION_SECCOMP = 1 << 7
OPTION_EXITKILL = 1 << 20

EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC = 1, 2, 3, 4
EVENT_EXIT, EVENT_SECCOMP, EVENT_STOP = 6, 7, 128

#: What PTRACE_GET_SYSCALL_INFO says the stop is.
CALL_ENTRY, CALL_EXIT, CALL_SECCOMP = 1, 2, 3

_NT_PRSTATUS = 1
_WALL = 0x40000000
_WNOTHREAD = 0x20000000
_SIGINFO_BYTES = 128
_SIGSET_BYTES = 8
_REGISTERS_BYTES = 512

_SIGINFO_HEAD = struct.Struct("=iii4xQ")  # signo, errno, code, and for a fault its address
_CALL_HEAD = struct.Struct("=B3xIQQ")
_CALL_ENTRY = struct.Struct("=7Q")
_CALL_EXIT = struct.Struct("=qB")

_HAS_GETREGS = os.uname().machine == "x86_64"
_GETREGS_BYTES = 27 * 8

_libc = ctypes.CDLL(None, use_errno=True)
# None of the requests blocks, so none lets go of the interpreter: taking it back from a busy thread can
# take longer than a hundred of them.
_ptrace = ctypes.PyDLL(None, use_errno=True).ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_waitpid = _libc.waitpid
_waitpid.restype = ctypes.c_int
_waitpid.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
#: The same, for the moment between a stop and the next.
_glance = ctypes.PyDLL(None, use_errno=True).waitpid
_glance.restype = ctypes.c_int
_glance.argtypes = _waitpid.argtypes
#: How often to look before going to sleep, for waking up takes longer than most targets take to stop again.
_GLANCES = 30 if len(os.sched_getaffinity(0)) > 1 else 0
_readv = _libc.process_vm_readv
_readv.restype = ctypes.c_ssize_t
_readv.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)
_writev = _libc.process_vm_writev
_writev.restype, _writev.argtypes = _readv.restype, _readv.argtypes


class Fault(NamedTuple):
    """A signal's siginfo: its number, its code, and the address if it is a fault."""

    signal: int
    code: int
    address: int


class CallStop(NamedTuple):
    """A stop at a system call. ``result`` is that of an exit, number and arguments those of the others."""

    op: int
    arch: int
    ip: int
    sp: int
    number: int
    arguments: tuple[int, ...]
    result: int


def _request(request: int, tid: int, address: int, data: int) -> int:
    result: int = _ptrace(request, tid, address, data)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace request {request:#x} for {tid}: {os.strerror(number)}")
    return result


class _Buffer:
    """Memory that a call fills or reads, with its address."""

    def __init__(self, length: int) -> None:
        self._array = (ctypes.c_char * length)()
        self.raw = memoryview(self._array).cast("B")
        self.address = ctypes.addressof(self._array)

    def head(self, length: int) -> bytes:
        """Its first bytes."""
        return bytes(self.raw[:length])


class Tracer:
    """The calls, with the buffers they use. Only one thread may use it: the one that seizes."""

    def __init__(self) -> None:
        """Make the buffers."""
        self._info = _Buffer(_SIGINFO_BYTES)
        self._call = _Buffer(128)
        self._registers = _Buffer(_REGISTERS_BYTES)
        self._vector = _Buffer(16)
        self._number = _Buffer(8)
        self._status = ctypes.c_int()
        self._status_address = ctypes.addressof(self._status)
        self._page = _Buffer(PAGE_SIZE)
        self._local, self._remote = _Buffer(16), _Buffer(16)

    def seize(self, tid: int, options: int) -> None:
        """Become the tracer of a thread, without stopping it."""
        _request(_PTRACE_SEIZE, tid, 0, options)

    def resume(self, request: int, tid: int, signal: int = 0) -> None:
        """Let a stopped thread go on: PTRACE_CONT, _SYSCALL, _SINGLESTEP or _DETACH."""
        _request(request, tid, 0, signal)

    def interrupt(self, tid: int) -> None:
        """Stop a thread soon."""
        _request(_PTRACE_INTERRUPT, tid, 0, 0)

    def listen(self, tid: int) -> None:
        """Leave a thread stopped by job control as it is, and hear when that ends."""
        _request(_PTRACE_LISTEN, tid, 0, 0)

    def wait(self, tid: int = -1, options: int = 0) -> tuple[int, int]:
        """The next thread that has something to say, and its status; (0, 0) if none with WNOHANG.

        Of our children only those that this thread started: others may have children of their own.
        """
        options |= _WALL | _WNOTHREAD
        for _ in range(_GLANCES):
            if pid := _glance(tid, self._status_address, options | os.WNOHANG):
                if pid > 0:
                    return pid, self._status.value
                break
        while (pid := _waitpid(tid, self._status_address, options)) < 0:
            number = ctypes.get_errno()
            if number == errno.EINTR and tid > 0:
                continue  # who waits for one thread has something to finish with it
            raise OSError(number, os.strerror(number))
        return pid, self._status.value if pid else 0

    def event_message(self, tid: int) -> int:
        """What an event is about: the new thread's ID, the exit status, the former ID."""
        _request(_PTRACE_GETEVENTMSG, tid, 0, self._number.address)
        return int.from_bytes(self._number.raw, "little")

    def signal(self, tid: int) -> Fault:
        """The signal that a thread has stopped for."""
        _request(_PTRACE_GETSIGINFO, tid, 0, self._info.address)
        number, _, code, address = _SIGINFO_HEAD.unpack_from(self._info.raw)
        return Fault(number, code, address)

    def signal_bytes(self, tid: int) -> bytes:
        """The same, whole."""
        _request(_PTRACE_GETSIGINFO, tid, 0, self._info.address)
        return self._info.head(_SIGINFO_BYTES)

    def set_signal(self, tid: int, info: bytes) -> None:
        """Change what the signal that a thread stopped for says."""
        buffer = ctypes.create_string_buffer(info, len(info))
        _request(_PTRACE_SETSIGINFO, tid, 0, ctypes.addressof(buffer))

    def signal_mask(self, tid: int) -> int:
        """The signals that a thread blocks."""
        _request(_PTRACE_GETSIGMASK, tid, _SIGSET_BYTES, self._number.address)
        return int.from_bytes(self._number.raw, "little")

    def set_signal_mask(self, tid: int, mask: int) -> None:
        """Block these instead."""
        self._number.raw[:] = mask.to_bytes(8, "little")
        _request(_PTRACE_SETSIGMASK, tid, _SIGSET_BYTES, self._number.address)

    def registers(self, tid: int) -> bytes:
        """All general registers of a stopped thread."""
        if _HAS_GETREGS:
            _request(_PTRACE_GETREGS, tid, 0, self._registers.address)
            return self._registers.head(_GETREGS_BYTES)
        struct.pack_into("=QQ", self._vector.raw, 0, self._registers.address, _REGISTERS_BYTES)
        _request(_PTRACE_GETREGSET, tid, _NT_PRSTATUS, self._vector.address)
        length: int = struct.unpack_from("=Q", self._vector.raw, 8)[0]
        return self._registers.head(length)

    def set_registers(self, tid: int, registers: bytes) -> None:
        """Change them."""
        self._registers.raw[: len(registers)] = registers
        if _HAS_GETREGS:
            _request(_PTRACE_SETREGS, tid, 0, self._registers.address)
            return
        struct.pack_into("=QQ", self._vector.raw, 0, self._registers.address, len(registers))
        _request(_PTRACE_SETREGSET, tid, _NT_PRSTATUS, self._vector.address)

    def call(self, tid: int) -> CallStop:
        """What a thread that is stopped at a system call does there."""
        length = _request(_PTRACE_GET_SYSCALL_INFO, tid, len(self._call.raw), self._call.address)
        raw = self._call.raw
        op, arch, ip, sp = _CALL_HEAD.unpack_from(raw)
        if op == CALL_EXIT:
            result, _ = _CALL_EXIT.unpack_from(raw, _CALL_HEAD.size)
            return CallStop(op, arch, ip, sp, -1, (), result)
        if op in (CALL_ENTRY, CALL_SECCOMP) and length > _CALL_HEAD.size:
            number, *arguments = _CALL_ENTRY.unpack_from(raw, _CALL_HEAD.size)
            return CallStop(op, arch, ip, sp, number, tuple(arguments), 0)
        return CallStop(op, arch, ip, sp, -1, (), 0)

    def read_page(self, pid: int, address: int) -> bytes | None:
        """One page of a process; None if it cannot be read."""
        if self._read(pid, address, self._page, PAGE_SIZE) == PAGE_SIZE:
            return self._page.head(PAGE_SIZE)
        # Memory that can be executed, but not read, refuses; the file does not.
        try:
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                content = os.pread(memory.fileno(), PAGE_SIZE, address)
        except OSError:
            return None
        return content if len(content) == PAGE_SIZE else None

    def read(self, pid: int, address: int, length: int) -> bytes:
        """As much of ``length`` bytes of a process as can be read."""
        buffer = _Buffer(max(length, 1))
        return buffer.head(max(self._read(pid, address, buffer, length), 0))

    def write(self, pid: int, address: int, content: bytes) -> bool:
        """Write to a process; whether all of it was written."""
        buffer = ctypes.create_string_buffer(content, len(content))
        struct.pack_into("=QQ", self._local.raw, 0, ctypes.addressof(buffer), len(content))
        struct.pack_into("=QQ", self._remote.raw, 0, address, len(content))
        count: int = _writev(pid, self._local.address, 1, self._remote.address, 1, 0)
        return count == len(content)

    def _read(self, pid: int, address: int, buffer: _Buffer, length: int) -> int:
        struct.pack_into("=QQ", self._local.raw, 0, buffer.address, length)
        struct.pack_into("=QQ", self._remote.raw, 0, address & 0xFFFFFFFFFFFFFFFF, length)
        count: int = _readv(pid, self._local.address, 1, self._remote.address, 1, 0)
        return count


def is_gone(error: OSError) -> bool:
    """Whether ``error`` says that the thread has ended, or was killed while it was stopped."""
    return error.errno in (errno.ESRCH, errno.ECHILD)

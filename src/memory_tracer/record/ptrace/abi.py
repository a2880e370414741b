"""What differs between machines: registers, and the numbers of the system calls that matter.

Sources: arch/x86/entry/syscalls/syscall_{64,32}.tbl, include/uapi/asm-generic/unistd.h,
arch/x86/include/asm/user_64.h, arch/arm64/include/uapi/asm/ptrace.h.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...wire.registers import EM_AARCH64, EM_X86_64, REGISTERS

#: Architectures as seccomp and ptrace name them (include/uapi/linux/audit.h).
AUDIT_ARCH_X86_64 = 0xC000003E
AUDIT_ARCH_I386 = 0x40000003
AUDIT_ARCH_AARCH64 = 0xC00000B7

#: Set in the numbers of the x32 ABI, which are else those of x86-64.
X32_BIT = 0x40000000


class Call(enum.IntEnum):
    """System calls that can make memory executable, move it, or take it away; numbers, as these hash fast."""

    MMAP = enum.auto()
    #: mmap of i386 with its arguments in memory.
    OLD_MMAP = enum.auto()
    MPROTECT = enum.auto()
    PKEY_MPROTECT = enum.auto()
    MUNMAP = enum.auto()
    MREMAP = enum.auto()
    SHMAT = enum.auto()
    SHMDT = enum.auto()
    #: The System V calls of i386 in one.
    IPC = enum.auto()
    MADVISE = enum.auto()
    BRK = enum.auto()
    PERSONALITY = enum.auto()
    REMAP_FILE_PAGES = enum.auto()
    EXECVE = enum.auto()
    EXECVEAT = enum.auto()
    EXIT_GROUP = enum.auto()
    READ = enum.auto()
    PREAD = enum.auto()
    RECVFROM = enum.auto()
    WRITE = enum.auto()
    PWRITE = enum.auto()
    WRITEV = enum.auto()
    FTRUNCATE = enum.auto()
    FALLOCATE = enum.auto()
    #: Calls that write to memory that their arguments do not point to.
    IOCTL = enum.auto()
    READV = enum.auto()
    PREADV = enum.auto()
    PREADV2 = enum.auto()
    RECVMSG = enum.auto()
    RECVMMSG = enum.auto()
    PROCESS_VM_READV = enum.auto()
    #: Made by us only.
    SECCOMP = enum.auto()


@dataclass(frozen=True, slots=True)
class Abi:
    """One table of system calls. ``offset_unit`` is what the file offset of its mmap counts."""

    audit: int
    numbers: Mapping[Call, int]
    offset_unit: int = 1


X86_64 = Abi(
    AUDIT_ARCH_X86_64,
    {
        Call.READ: 0,
        Call.WRITE: 1,
        Call.MMAP: 9,
        Call.MPROTECT: 10,
        Call.MUNMAP: 11,
        Call.BRK: 12,
        Call.PREAD: 17,
        Call.PWRITE: 18,
        Call.WRITEV: 20,
        Call.MREMAP: 25,
        Call.MADVISE: 28,
        Call.SHMAT: 30,
        Call.RECVFROM: 45,
        Call.EXECVE: 59,
        Call.SHMDT: 67,
        Call.FTRUNCATE: 77,
        Call.PERSONALITY: 135,
        Call.REMAP_FILE_PAGES: 216,
        Call.EXIT_GROUP: 231,
        Call.FALLOCATE: 285,
        Call.EXECVEAT: 322,
        Call.PKEY_MPROTECT: 329,
        Call.IOCTL: 16,
        Call.READV: 19,
        Call.PREADV: 295,
        Call.PREADV2: 327,
        Call.RECVMSG: 47,
        Call.RECVMMSG: 299,
        Call.PROCESS_VM_READV: 310,
        Call.SECCOMP: 317,
    },
)
I386 = Abi(
    AUDIT_ARCH_I386,
    {
        Call.READ: 3,
        Call.WRITE: 4,
        Call.EXECVE: 11,
        Call.BRK: 45,
        Call.OLD_MMAP: 90,
        Call.MUNMAP: 91,
        Call.FTRUNCATE: 93,
        Call.IPC: 117,
        Call.MPROTECT: 125,
        Call.PERSONALITY: 136,
        Call.WRITEV: 146,
        Call.MREMAP: 163,
        Call.PREAD: 180,
        Call.PWRITE: 181,
        Call.MMAP: 192,
        Call.MADVISE: 219,
        Call.EXIT_GROUP: 252,
        Call.REMAP_FILE_PAGES: 257,
        Call.FALLOCATE: 324,
        Call.EXECVEAT: 358,
        Call.RECVFROM: 371,
        Call.PKEY_MPROTECT: 380,
        Call.SHMAT: 397,
        Call.SHMDT: 398,
    },
    offset_unit=4096,
)
AARCH64 = Abi(
    AUDIT_ARCH_AARCH64,
    {
        Call.FTRUNCATE: 46,
        Call.FALLOCATE: 47,
        Call.READ: 63,
        Call.WRITE: 64,
        Call.WRITEV: 66,
        Call.PREAD: 67,
        Call.PWRITE: 68,
        Call.PERSONALITY: 92,
        Call.EXIT_GROUP: 94,
        Call.SHMAT: 196,
        Call.SHMDT: 197,
        Call.RECVFROM: 207,
        Call.BRK: 214,
        Call.MUNMAP: 215,
        Call.MREMAP: 216,
        Call.EXECVE: 221,
        Call.MMAP: 222,
        Call.MPROTECT: 226,
        Call.MADVISE: 233,
        Call.REMAP_FILE_PAGES: 234,
        Call.EXECVEAT: 281,
        Call.PKEY_MPROTECT: 288,
    },
)


@dataclass(frozen=True)
class Machine:
    """How a processor's registers lie in what PTRACE_GETREGSET(NT_PRSTATUS) returns."""

    abis: Sequence[Abi]
    #: Its number in ELF files, by which the table of its registers is found.
    elf: int
    pointer: str
    stack: str
    result: str
    #: The register that holds a call's number; ``-1`` in it keeps the kernel from restarting a call.
    number: str
    arguments: Sequence[str]
    #: The instruction that makes a system call.
    call: bytes

    @property
    def registers(self) -> Sequence[str]:
        """The names of its registers, in order."""
        return REGISTERS[self.elf]

    @cached_property
    def offsets(self) -> Mapping[str, int]:
        """Where each register stands; each has 64 bits."""
        return {name: 8 * number for number, name in enumerate(self.registers)}


MACHINES = {
    "x86_64": Machine(
        abis=(X86_64, I386),
        elf=EM_X86_64,
        pointer="rip",
        stack="rsp",
        result="rax",
        number="orig_rax",
        arguments=("rdi", "rsi", "rdx", "r10", "r8", "r9"),
        call=b"\x0f\x05",
    ),
    # The number of a call in flight is in a register set of its own (NT_ARM_SYSTEM_CALL), x8 else.
    "aarch64": Machine(
        abis=(AARCH64,),
        elf=EM_AARCH64,
        pointer="pc",
        stack="sp",
        result="x0",
        number="x8",
        arguments=("x0", "x1", "x2", "x3", "x4", "x5"),
        call=b"\x01\x00\x00\xd4",
    ),
}


def this_machine() -> Machine | None:
    """The machine we run on, if it is one that we know."""
    return MACHINES.get(os.uname().machine)

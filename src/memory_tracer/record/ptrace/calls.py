"""What a system call asks for, whatever its ABI."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...model import PAGE_SIZE, Protection
from .abi import I386, X32_BIT, X86_64, Abi, Call
from .system import CallStop

MAP_SHARED = 0x01
MAP_PRIVATE = 0x02
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_GROWSDOWN = 0x100
MAP_HUGETLB = 0x40000
SHM_EXEC = 0o100000
SHM_RDONLY = 0o10000
READ_IMPLIES_EXEC = 0x0400000
#: The argument of ``personality`` that only asks (include/uapi/linux/personality.h).
PERSONALITY_QUERY = 0xFFFFFFFF

_IPC_SHMAT, _IPC_SHMDT = 21, 22
_OLD_MMAP = struct.Struct("<6I")
_PROTECTIONS = 7
_MOST_READ = 0x7FFFF000  # linux/fs.h: MAX_RW_COUNT

#: Calls whose first two arguments are a range of addresses.
_RANGES = frozenset(
    {
        *(Call.MMAP, Call.MPROTECT, Call.PKEY_MPROTECT, Call.MUNMAP, Call.MREMAP, Call.MADVISE),
        Call.REMAP_FILE_PAGES,
    }
)

#: Reads so many bytes at an address of the caller.
Read = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Request:
    """A call about memory. ``changed`` are registers to make it with, where they are not the caller's."""

    call: Call
    abi: Abi
    number: int
    arguments: tuple[int, ...]
    ip: int
    sp: int
    address: int = 0
    length: int = 0
    protection: Protection = Protection.NONE
    flags: int = 0
    #: Where the address of what was attached is stored, when it is not the result.
    result_at: int = 0
    #: Number of the call to make instead, and its arguments.
    instead: tuple[int, tuple[int, ...]] | None = None

    @property
    def end(self) -> int:
        """First address after the range, which counts whole pages."""
        return self.address + -(-self.length // PAGE_SIZE) * PAGE_SIZE

    @property
    def compat(self) -> bool:
        """Whether it is a call of the 32-bit ABI."""
        return self.abi is I386

    def with_protection(self) -> Request:
        """The same call, asking for what the personality adds to it."""
        number, arguments = self.instead or (self.number, self.arguments)
        third = arguments[2] | int(self.protection)
        return replace(self, instead=(number, (*arguments[:2], third, *arguments[3:])))

    def without_exec(self) -> Request:
        """The same call, not asking for execute."""
        number, arguments = self.instead or (self.number, self.arguments)
        if self.call is Call.SHMAT:
            third = arguments[2] & ~SHM_EXEC
        elif self.call is Call.PERSONALITY:
            return replace(self, instead=(number, (arguments[0] & ~READ_IMPLIES_EXEC, *arguments[1:])))
        else:
            third = arguments[2] & ~int(Protection.EXEC)
        return replace(self, instead=(number, (*arguments[:2], third, *arguments[3:])))


class Decoder:
    """Knows the calls of the ABIs of one machine."""

    def __init__(self, abis: tuple[Abi, ...]) -> None:
        """Turn the tables round."""
        self._tables = {
            abi.audit: (abi, {number: call for call, number in abi.numbers.items()}) for abi in abis
        }

    def decode(self, stop: CallStop, read: Read) -> Request | None:
        """What the call at its entry asks for; None for a call that has nothing to do with memory."""
        abi, calls = self._tables.get(stop.arch, (X86_64, {}))
        number = stop.number & ~X32_BIT if abi is X86_64 else stop.number
        call = calls.get(number)
        if call is None:
            return None
        request = Request(call, abi, stop.number, stop.arguments, stop.ip, stop.sp)
        return _complete(request, read)


def _complete(request: Request, read: Read) -> Request | None:
    arguments = request.arguments
    if request.call is Call.OLD_MMAP:
        return _of_old_mmap(request, read)
    if request.call is Call.IPC:
        return _of_ipc(request)
    if request.call is Call.SHMAT:
        return _of_shmat(request, arguments[1], arguments[2])
    if request.call in _RANGES:
        with_flags = request.call in (Call.MMAP, Call.MREMAP)
        protects = request.call in (Call.MMAP, Call.MPROTECT, Call.PKEY_MPROTECT)
        return replace(
            request,
            address=arguments[0],
            length=arguments[1],
            flags=arguments[3] if with_flags else 0,
            protection=Protection(arguments[2] & _PROTECTIONS) if protects else Protection.NONE,
        )
    if request.call in (Call.READ, Call.PREAD, Call.RECVFROM):
        return replace(request, address=arguments[1], length=min(arguments[2], _MOST_READ))
    return request


def _of_old_mmap(request: Request, read: Read) -> Request | None:
    """Mmap of i386 with its arguments in memory; made with those of the newer call instead."""
    raw = read(request.arguments[0], _OLD_MMAP.size)
    if len(raw) < _OLD_MMAP.size:
        return None
    *head, offset = _OLD_MMAP.unpack(raw)
    if offset % PAGE_SIZE:
        return None  # the call will fail
    arguments = (*head, offset // PAGE_SIZE)
    instead = (I386.numbers[Call.MMAP], arguments)
    return _complete(replace(request, call=Call.MMAP, arguments=arguments, instead=instead), read)


def _of_ipc(request: Request) -> Request | None:
    """A System V call of i386: arguments are the call, then its own, with the pointer last."""
    kind, first, second, third, pointer = request.arguments[:5]
    if kind & 0xFFFF == _IPC_SHMDT:
        return replace(request, call=Call.SHMDT, address=pointer)
    if kind & 0xFFFF == _IPC_SHMAT:
        _ = first  # the segment
        return _of_shmat(replace(request, call=Call.SHMAT, result_at=third), pointer, second)
    return None


def _of_shmat(request: Request, address: int, flags: int) -> Request:
    protection = Protection.READ
    protection |= Protection.NONE if flags & SHM_RDONLY else Protection.WRITE
    protection |= Protection.EXEC if flags & SHM_EXEC else Protection.NONE
    return replace(request, address=address, protection=protection, flags=flags)

"""The tables of the ptrace engine: system call numbers, registers, and the filter made of them."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_tracer.model import Protection
from memory_tracer.record.ptrace.abi import AARCH64, I386, MACHINES, X32_BIT, X86_64, Abi, Call, Machine
from memory_tracer.record.ptrace.calls import MAP_FIXED, MAP_SHARED, SHM_EXEC, Decoder
from memory_tracer.record.ptrace.filter import build_filter, build_watching_filter
from memory_tracer.record.ptrace.system import CALL_ENTRY, CallStop
from memory_tracer.wire.layout import REGISTER_SLOTS

HEADERS = {
    X86_64.audit: "x86_64-linux-gnu/asm/unistd_64.h",
    I386.audit: "x86_64-linux-gnu/asm/unistd_32.h",
    AARCH64.audit: "asm-generic/unistd.h",
}
#: Where the kernel's name is not ours.
NAMES = {
    Call.PREAD: "pread64",
    Call.PWRITE: "pwrite64",
    (I386.audit, Call.MMAP): "mmap2",
    (I386.audit, Call.OLD_MMAP): "mmap",
}
ABIS = [pytest.param(X86_64, id="x86-64"), pytest.param(I386, id="i386"), pytest.param(AARCH64, id="aarch64")]

ALLOW, TRACE = 0x7FFF0000, 0x7FF00000
COOKIE = 0x12345678
READ, WRITE, EXEC = (int(bit) for bit in (Protection.READ, Protection.WRITE, Protection.EXEC))


@pytest.mark.parametrize("abi", ABIS)
def test_numbers_are_those_of_the_kernels_headers(abi: Abi) -> None:
    header = Path("/usr/include") / HEADERS[abi.audit]
    if not header.exists():
        pytest.skip(f"{header} is not installed here")
    text = header.read_text()
    for call, number in abi.numbers.items():
        name = NAMES.get((abi.audit, call)) or NAMES.get(call) or call.name.lower()
        found = re.search(rf"^#define __NR(?:3264)?_{name}\s+(\d+)$", text, re.MULTILINE)
        assert found is not None, name
        assert int(found[1]) == number, name


@pytest.mark.parametrize("machine", list(MACHINES.values()), ids=list(MACHINES))
def test_registers_that_are_named_exist(machine: Machine) -> None:
    named = {machine.pointer, machine.stack, machine.result, machine.number, *machine.arguments}
    assert named <= set(machine.registers)
    assert len(set(machine.registers)) == len(machine.registers)
    assert len(machine.registers) <= REGISTER_SLOTS


def test_registers_have_the_size_of_the_kernels_structures() -> None:
    assert len(MACHINES["x86_64"].registers) == 27  # struct user_regs_struct
    assert len(MACHINES["aarch64"].registers) == 34  # struct user_pt_regs


def run_filter(program: bytes, number: int, audit: int, arguments: tuple[int, ...]) -> int:
    """Execute the classic BPF program as the kernel does; it only jumps forward."""
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    instructions = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, yes, no, k = instructions[at]
        at += 1
        if code == 0x20:
            accumulator = int.from_bytes(data[k : k + 4], "little")
        elif code == 0x54:
            accumulator &= k
        elif code == 0x15:
            at += yes if accumulator == k else no
        elif code == 0x25:
            at += yes if accumulator > k else no
        elif code == 0x35:
            at += yes if accumulator >= k else no
        elif code == 0x45:
            at += yes if accumulator & k else no
        elif code == 0x06:
            return int(k)
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


def cases() -> Iterator[tuple[Abi, int, tuple[int, ...], int]]:
    for abi in (X86_64, I386):
        number = abi.numbers
        yield abi, number[Call.MMAP], (0, 4096, READ | WRITE, 0x22), ALLOW
        yield abi, number[Call.MMAP], (0, 4096, READ | EXEC, 0x22), TRACE
        yield abi, number[Call.MMAP], (0, 4096, READ | WRITE, MAP_SHARED), TRACE
        yield abi, number[Call.MMAP], (0, 4096, READ, MAP_FIXED | 2), TRACE
        yield abi, number[Call.MPROTECT], (0, 4096, READ | WRITE), ALLOW
        yield abi, number[Call.MPROTECT], (0, 4096, EXEC), TRACE
        yield abi, number[Call.PKEY_MPROTECT], (0, 4096, READ | EXEC, 1), TRACE
        yield abi, number[Call.MUNMAP], (0, 4096), TRACE
        yield abi, number[Call.MREMAP], (0, 4096, 8192, 1), TRACE
        yield abi, number[Call.SHMAT], (1, 0, SHM_EXEC), TRACE
        yield abi, number[Call.PERSONALITY], (0x0400000,), TRACE
        yield abi, number[Call.READ], (0, 4096, 5), ALLOW
        yield abi, number[Call.EXECVE], (4096, 4096, 4096), TRACE
        yield abi, number[Call.MPROTECT], (0, 4096, EXEC, 0, COOKIE, COOKIE), ALLOW
        yield abi, number[Call.MPROTECT], (0, 4096, EXEC, 0, COOKIE, 0), TRACE
        yield abi, 100000, (), ALLOW
    yield X86_64, X86_64.numbers[Call.MPROTECT] | X32_BIT, (0, 4096, EXEC), TRACE
    yield I386, I386.numbers[Call.OLD_MMAP], (4096,), TRACE
    yield I386, I386.numbers[Call.IPC], (21, 0, SHM_EXEC), TRACE


@pytest.mark.parametrize(("abi", "number", "arguments", "verdict"), list(cases()))
def test_filter_stops_at_the_calls_that_matter_and_at_no_others(
    abi: Abi, number: int, arguments: tuple[int, ...], verdict: int
) -> None:
    program = build_filter((X86_64, I386), COOKIE)
    assert run_filter(program, number, abi.audit, arguments) == verdict


def test_filter_lets_calls_of_unknown_abis_pass() -> None:
    program = build_filter((X86_64, I386), COOKIE)
    assert run_filter(program, X86_64.numbers[Call.MPROTECT], 0xDEAD, (0, 0, EXEC)) == ALLOW


LOW, HIGH = 0x7F12_FFF0_0000, 0x7F13_0010_0000


@pytest.mark.parametrize("place", range(6))
@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        (LOW - 1, ALLOW),
        (LOW, TRACE),
        (0x7F12_FFFF_FFFF, TRACE),
        (0x7F13_0000_0000, TRACE),
        (HIGH - 1, TRACE),
        (HIGH, ALLOW),
        (LOW & 0xFFFFFFFF, ALLOW),
        (LOW + (1 << 32), ALLOW),
    ],
)
def test_second_filter_stops_at_calls_that_point_to_what_is_watched(
    place: int, address: int, verdict: int
) -> None:
    program = build_watching_filter(X86_64, COOKIE, [(0x1000, 0x2000), (LOW, HIGH)], with_writes=False)
    arguments = (*(0,) * place, address)
    assert run_filter(program, X86_64.numbers[Call.READ], X86_64.audit, arguments) == verdict
    assert run_filter(program, 100000, X86_64.audit, arguments) == verdict


def test_second_filter_stops_at_what_changes_memory_and_at_other_abis() -> None:
    def verdict(number: int, *arguments: int, with_writes: bool = False, audit: int = X86_64.audit) -> int:
        program = build_watching_filter(X86_64, COOKIE, [(LOW, HIGH)], with_writes=with_writes)
        return run_filter(program, number, audit, arguments)

    numbers = X86_64.numbers
    assert verdict(numbers[Call.MPROTECT], 0, 4096, READ) == TRACE
    assert verdict(numbers[Call.MPROTECT], LOW, 4096, READ, 0, COOKIE, COOKIE) == ALLOW
    assert verdict(numbers[Call.MADVISE], 0, 4096, 4) == TRACE
    assert verdict(numbers[Call.READV], 0, 4096, 1) == TRACE
    assert verdict(numbers[Call.READV] | X32_BIT, 0, 4096, 1) == TRACE
    assert verdict(numbers[Call.WRITE], 1, 4096, 1) == ALLOW
    assert verdict(numbers[Call.WRITE], 1, 4096, 1, with_writes=True) == TRACE
    assert verdict(I386.numbers[Call.READ], 0, 4096, 1, audit=I386.audit) == TRACE


def nothing(_address: int, _length: int) -> bytes:
    return b""


def stop(abi: Abi, call: Call, *arguments: int) -> CallStop:
    return CallStop(
        CALL_ENTRY,
        abi.audit,
        0x1000,
        0x2000,
        abi.numbers[call],
        (*arguments, *(0,) * (6 - len(arguments))),
        0,
    )


def test_old_mmap_is_made_with_the_arguments_that_lie_in_memory() -> None:
    memory = struct.pack("<6I", 0x10000, 4096, 7, 0x22, 0xFFFFFFFF, 8192)
    request = Decoder((X86_64, I386)).decode(stop(I386, Call.OLD_MMAP, 64), lambda _, size: memory[:size])
    assert request is not None
    assert request.call is Call.MMAP
    assert (request.address, request.length, request.protection, request.flags) == (0x10000, 4096, 7, 0x22)
    changed = request.without_exec().instead
    assert changed == (I386.numbers[Call.MMAP], (0x10000, 4096, 3, 0x22, 0xFFFFFFFF, 2))


def test_shmat_by_way_of_ipc_is_shmat() -> None:
    request = Decoder((X86_64, I386)).decode(stop(I386, Call.IPC, 21, 7, SHM_EXEC, 0x3000, 0x5000), nothing)
    assert request is not None
    assert request.call is Call.SHMAT
    assert (request.address, request.result_at) == (0x5000, 0x3000)
    assert request.protection == Protection(7)
    changed = request.without_exec().instead
    assert changed is not None
    assert changed[1][2] == 0


def test_call_of_the_x32_abi_is_the_same_call() -> None:
    plain = stop(X86_64, Call.MPROTECT, 0x1000, 100, 7)
    request = Decoder((X86_64,)).decode(plain._replace(number=plain.number | X32_BIT), nothing)
    assert request is not None
    assert request.call is Call.MPROTECT
    assert request.end == 0x2000


def test_call_that_has_nothing_to_do_with_memory_is_none() -> None:
    other = stop(X86_64, Call.READ)._replace(number=39)
    assert Decoder((X86_64, I386)).decode(other, nothing) is None

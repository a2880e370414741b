"""The readers of what code generators write about their code, and the comparison with pages."""

from __future__ import annotations

import struct

import pytest

from benchmarks.generators import dumps
from benchmarks.generators.compare import Share, share
from benchmarks.generators.dumps import Code, DumpError
from memory_tracer.model import PAGE_SIZE


def jitdump_record(kind: int, body: bytes) -> bytes:
    return struct.pack("<IIQ", kind, 16 + len(body), 1) + body


def code_load(address: int, code: bytes, name: bytes = b"function\0") -> bytes:
    return jitdump_record(0, struct.pack("<IIQQQQ", 7, 7, address, address, len(code), 0) + name + code)


JITDUMP_HEADER = struct.pack("<IIIIIIQQ", 0x4A695444, 1, 40, 62, 0, 7, 1, 0)


def test_jitdump_gives_the_code_of_load_records_and_skips_others() -> None:
    debug_info = jitdump_record(2, b"\0" * 24)
    data = JITDUMP_HEADER + code_load(0x1000, b"\x90\xc3") + debug_info + code_load(0x2000, b"\xcc")
    assert dumps.jitdump(data) == [Code(0x1000, b"\x90\xc3"), Code(0x2000, b"\xcc")]


def test_jitdump_cut_off_keeps_the_whole_records() -> None:
    data = JITDUMP_HEADER + code_load(0x1000, b"\x90\xc3") + code_load(0x2000, b"\xcc")
    assert dumps.jitdump(data[:-1]) == [Code(0x1000, b"\x90\xc3")]


@pytest.mark.parametrize("data", [b"", b"\0" * 40, JITDUMP_HEADER + b"\0" * 16])
def test_what_is_no_jitdump_is_an_error(data: bytes) -> None:
    with pytest.raises(DumpError):
        dumps.jitdump(data)


def test_machine_code_of_hotspot_is_joined_over_lines_and_headings() -> None:
    log = b"""\
[MachCode]
[Verified Entry Point]
  0x00007fbbb4938080: 85f6 0f84 | 1100 \n  # {method} {0x00007f0000000000} 'step' '(JI)J' in 'Loop'
  0x00007fbbb4938086: c3\n[/MachCode]
"""
    assert dumps.machcode(log) == [Code(0x7FBBB4938080, bytes.fromhex("85f60f841100c3"))]


def test_code_dump_of_pypy_adds_the_offset() -> None:
    log = (
        b"[27] {jit-backend-dump\nBACKEND x86_64\nCODE_DUMP @7fb0b646f000 +16  48C3\n[27] jit-backend-dump}\n"
    )
    assert dumps.code_dump(log) == [Code(0x7FB0B646F010, b"\x48\xc3")]


def test_out_asm_of_qemu_has_instructions_and_constants() -> None:
    log = b"""\
OUT: [size=24]
  -- guest addr 0x0000000000001000 + tb prologue
0x7f0789c00117:  49 bc 78 0b 82 02 40 00  movabsq  $0x4002820b78, %r12
0x7f0789c0011f:  00 00
0x7f0789c00121:  90                       nop      \n  data: [size=8]
0x7f0789c00128:  .quad  0x0000558e8b177260
"""
    first = bytes.fromhex("49bc780b8202400000 00 90")
    assert dumps.out_asm(log) == [
        Code(0x7F0789C00117, first),
        Code(0x7F0789C00128, bytes.fromhex("6072178b8e550000")),
    ]


def test_plain_lines_are_address_and_bytes() -> None:
    assert dumps.plain(b"1000 90c3\n2000 cc\n") == [Code(0x1000, b"\x90\xc3"), Code(0x2000, b"\xcc")]


def test_snapshot_of_a_page_seen_before_gives_its_changes() -> None:
    first = bytes(PAGE_SIZE)
    second = first[:100] + b"\1\0\2" + first[103:300] + b"\3" + first[301:]
    lines = "".join(f"1000 {page.hex()}\n" for page in (first, second, second))
    found = dumps.snapshots(lines.encode())
    assert found == [Code(0x1000, first), Code(0x1064, b"\1\0\2"), Code(0x112C, b"\3")]


def test_versions_are_told_once() -> None:
    code = Code(0x1000, b"\x90")
    assert dumps.versions([code, Code(0x1000, b"\xc3"), code, Code(0x1001, b"")]) == [
        code,
        Code(0x1000, b"\xc3"),
    ]


def test_last_state_has_the_patch_and_what_is_around_it() -> None:
    codes = [Code(0x1000, b"aaaaaa"), Code(0x2000, b"zz"), Code(0x1002, b"bb")]
    assert dumps.last_state(codes) == [
        Code(0x1000, b"aa"),
        Code(0x1002, b"bb"),
        Code(0x1004, b"aa"),
        Code(0x2000, b"zz"),
    ]


def test_code_is_cut_at_pages() -> None:
    assert list(dumps.pages_of(Code(0x1FFE, b"abcd"))) == [Code(0x1FFE, b"ab"), Code(0x2000, b"cd")]


def test_share_looks_in_every_generation_and_never_joins_two() -> None:
    generations = {1: (b"ab" + bytes(PAGE_SIZE - 2), b"cd" + bytes(PAGE_SIZE - 2))}
    found = share([Code(0x1000, b"cd"), Code(0x1000, b"ad"), Code(0x2000, b"xyz")], generations)
    assert found == Share(total=7, exact=2, alike=3, unseen=3)

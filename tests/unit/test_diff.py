"""``memory-tracer diff``: two generations of a region, aligned."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_tracer.analyze.wordsize import word_bits
from memory_tracer.capture.reader import Capture
from memory_tracer.diff.align import align
from memory_tracer.diff.compare import hex_rows
from memory_tracer.model import EventKind, Missing, Status
from memory_tracer.show.disassembly import Instruction
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, PID, START_NS, RecordStream, page_bytes, write_capture
from .scenario import CommandLine

LOW = 0x80_0000


def code(text: str) -> bytes:
    return bytes.fromhex(text).ljust(PAGE_BYTES, b"\0")


#: push rbp; mov rbp, rsp; mov eax, 42; pop rbp; ret. Then 43, with a nop before the pop.
OLD = code("55 4889e5 b82a000000 5d c3")
NEW = code("55 4889e5 b82b000000 90 5d c3")


def flips(path: Path, *contents: bytes, address: int = BASE, status: int = 0) -> Path:
    """Write a capture in which a page at ``address`` has ``contents`` one after the other."""
    stream = RecordStream()
    for content in contents:
        cause = stream.event(address=address, status=status)
        stream.page(cause, content, address)
    return write_capture(path, stream)


def lines(cli: CommandLine, *arguments: object) -> list[str]:
    ran = cli("diff", *arguments)
    assert (ran.status, ran.err) == (0, "")
    return [" ".join(line.split()) for line in ran.out.splitlines()]


def test_instructions_are_aligned_and_their_changed_bytes_underlined(
    cli: CommandLine, tmp_path: Path
) -> None:
    pytest.importorskip("capstone")
    out = cli("diff", flips(tmp_path / "x.mtrace", OLD, NEW), hex(BASE)).out.splitlines()
    assert out[:9] == [
        "--- generation 1, after mprotect at 1.000001000 s, 1 page known",
        "+++ generation 2, after mprotect at 1.000002000 s, 1 page known",
        "  0x7f0000000000  55                            push rbp",
        "  0x7f0000000001  48 89 e5                      mov rbp, rsp",
        "- 0x7f0000000004  b8 2a 00 00 00                mov eax, 0x2a",
        "+ 0x7f0000000004  b8 2b 00 00 00                mov eax, 0x2b",
        "                     ^^",
        "+ 0x7f0000000009  90                            nop",
        "~ 0x7f000000000a  5d                            pop rbp  (was at 0x7f0000000009)",
    ]


def test_any_two_generations_can_be_compared(cli: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("capstone")
    capture = flips(tmp_path / "x.mtrace", code("b801 000000c3"), OLD, code("b802 000000c3"))
    out = lines(cli, capture, hex(BASE), "--from", "1", "--to", "3")
    assert [line for line in out if line[0] in "+-"][2:] == [
        "- 0x7f0000000000 b8 01 00 00 00 mov eax, 1",
        "+ 0x7f0000000000 b8 02 00 00 00 mov eax, 2",
    ]


def test_lines_far_from_changes_are_left_out(cli: CommandLine, tmp_path: Path) -> None:
    old = bytes(range(256)) * (PAGE_BYTES // 256)
    new = b"x" + old[1:2048] + b"y" + old[2049:]
    out = cli("diff", flips(tmp_path / "x.mtrace", old, new), hex(BASE), "--hex").out.splitlines()
    assert [line[0] for line in out[2:]] == list("-+ " + "   " + "." + "   " + "-+ " + "   ")
    assert out[2].endswith("|................|")
    assert out[4].strip() == "^^"


def test_page_that_one_generation_lacks_is_named_with_the_reason(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    cause = stream.event(pages=2)
    stream.page(cause, page_bytes(3))
    stream.missing(cause, Missing.SWAPPED, BASE + PAGE_BYTES)
    ran = cli("diff", write_capture(tmp_path / "x.mtrace", stream), hex(BASE), "--hex")
    assert f"? {BASE + PAGE_BYTES:#x}  4 KiB only in the old one, because it was swapped out" in ran.out


def test_differences_are_objects_on_request(cli: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("capstone")
    found = cli("diff", flips(tmp_path / "x.mtrace", OLD, NEW), hex(BASE), "--json").objects()
    assert {value["type"] for value in found} == {"difference"}
    assert [value["change"] for value in found[:4]] == ["changed", "added", "moved", "moved"]
    assert found[0]["changed_bytes"] == [1]
    assert found[0]["new"] == {
        "address": "0x7f0000000004",
        "size": 5,
        "bytes": "b82b000000",
        "text": "mov eax, 0x2b",
    }


def test_one_generation_cannot_be_compared(cli: CommandLine, tmp_path: Path) -> None:
    ran = cli("diff", flips(tmp_path / "x.mtrace", OLD), hex(BASE), "--hex")
    assert (ran.status, ran.out) == (2, "")
    assert "one generation" in ran.err


@pytest.mark.parametrize(
    ("status", "address", "bits"),
    [(Status.COMPAT, LOW, 32), (Status.NONE, LOW, None), (Status.COMPAT, BASE, None)],
    ids=["32-bit calls", "64-bit calls", "high address"],
)
def test_word_size_is_that_of_the_calls(
    tmp_path: Path, status: Status, address: int, bits: int | None
) -> None:
    with Capture(flips(tmp_path / "x.mtrace", OLD, NEW, address=address, status=status)) as capture:
        assert word_bits(capture, PID, START_NS, address) == bits


def test_execve_may_change_the_word_size(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(address=LOW)
    stream.event(EventKind.EXEC)
    stream.event(address=LOW, status=Status.COMPAT)
    with Capture(write_capture(tmp_path / "x.mtrace", stream)) as capture:
        assert word_bits(capture, PID, START_NS, LOW) == 32


def test_code_of_32_bits_is_decoded_as_such(cli: CommandLine, tmp_path: Path) -> None:
    pytest.importorskip("capstone")
    capture = flips(tmp_path / "x.mtrace", code("40 c3"), code("48 c3"), address=LOW, status=Status.COMPAT)
    out = lines(cli, capture, hex(LOW))
    assert out[2:4] == ["- 0x000000800000 40 inc eax", "+ 0x000000800000 48 dec eax"]
    assert "dec eax" in cli("show", capture, hex(LOW), "--disasm").out
    assert "dec eax" not in cli("show", capture, hex(LOW), "--disasm", "--bits", "64").out


def listing(content: bytes) -> list[Instruction]:
    """Cut ``content`` into lines of irregular length."""
    found, position = [], 0
    while position < len(content):
        raw = content[position : position + 1 + content[position] % 4]
        found.append(Instruction(BASE + position, len(raw), raw, raw.hex()))
        position += len(raw)
    return found


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_both_versions_can_be_read_from_the_alignment(old: bytes, new: bytes) -> None:
    changes = list(align(listing(old), listing(new)))
    assert b"".join(change.old.raw for change in changes if change.old) == old
    assert b"".join(change.new.raw for change in changes if change.new) == new
    assert not [change for change in changes if change.stayed and change.changed_bytes]


@given(st.binary(min_size=1, max_size=100), st.integers(0, 40))
def test_hex_rows_hold_every_byte_once(content: bytes, offset: int) -> None:
    rows = list(hex_rows(content, BASE + offset))
    assert b"".join(row.raw for row in rows) == content
    assert all(row.address % 16 == 0 for row in rows[1:])

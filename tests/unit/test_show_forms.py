"""The forms bytes are shown in: hex dump, instructions, raw."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_tracer.analyze.images import Gap, Held, Image, Range
from memory_tracer.analyze.runs import Run, runs
from memory_tracer.errors import NotCapturedError, UsageError
from memory_tracer.model import Missing
from memory_tracer.show.disassembly import Disassembler
from memory_tracer.show.hexdump import hexdump
from memory_tracer.show.raw import MAX_FILLED, write_raw
from memory_tracer.wire.layout import PAGE_BYTES

ADDRESS = 0x7F00AA550000
#: Pages of the address space that the property test below plays in.
WORLD = 12


def test_hex_dump_shows_address_bytes_and_text() -> None:
    assert list(hexdump(b"\x7fELF" + bytes(range(0x40, 0x4F)), ADDRESS)) == [
        "0x7f00aa550000  7f 45 4c 46 40 41 42 43  44 45 46 47 48 49 4a 4b  |.ELF@ABCDEFGHIJK|",
        "0x7f00aa550010  4c 4d 4e                                          |LMN|",
    ]


def test_hex_dump_folds_lines_that_repeat_but_shows_the_last() -> None:
    lines = list(hexdump(bytes(PAGE_BYTES), ADDRESS))
    assert [line.split()[0] for line in lines] == [hex(ADDRESS), "*", hex(ADDRESS + PAGE_BYTES - 16)]


@given(st.binary(max_size=200))
def test_hex_dump_prints_no_byte_as_it_is_unless_it_is_printable(content: bytes) -> None:
    assert all(line.isascii() and line.isprintable() for line in hexdump(content, ADDRESS))


def instructions(machine: str, content: bytes, bits: int | None = None) -> list[str]:
    pytest.importorskip("capstone")
    return [" ".join(line.split()) for line in Disassembler(machine, bits).lines(content, 0x1000)]


def test_instructions_have_their_address_and_bytes() -> None:
    assert instructions("x86_64", bytes.fromhex("55 4889e5 c3")) == [
        "0x000000001000 55 push rbp",
        "0x000000001001 48 89 e5 mov rbp, rsp",
        "0x000000001004 c3 ret",
    ]


def test_word_size_changes_what_bytes_mean() -> None:
    assert instructions("x86_64", b"\x48\x40", 32) == [
        "0x000000001000 48 dec eax",
        "0x000000001001 40 inc eax",
    ]


def test_arm_code_is_decoded_as_such() -> None:
    ret = bytes.fromhex("c0035fd6")
    assert instructions("aarch64", ret) == ["0x000000001000 c0 03 5f d6 ret"]


def test_bytes_that_are_no_instruction_are_shown_as_bytes() -> None:
    lines = instructions("x86_64", bytes.fromhex("06 c3"))
    assert lines == ["0x000000001000 06 .byte 0x06", "0x000000001001 c3 ret"]


def test_zeros_are_counted_and_not_decoded() -> None:
    code = bytes.fromhex("b800000000 c3") + bytes(100) + b"\xc3"
    assert instructions("x86_64", code) == [
        "0x000000001000 b8 00 00 00 00 mov eax, 0",
        "0x000000001005 c3 ret",
        "0x000000001006 100 zero bytes",
        "0x00000000106a c3 ret",
    ]


def test_instruction_that_ends_in_zeros_is_not_cut_by_the_count() -> None:
    code = bytes.fromhex("b801000000") + bytes(20)
    assert instructions("x86_64", code) == [
        "0x000000001000 b8 01 00 00 00 mov eax, 1",
        "0x000000001005 20 zero bytes",
    ]


def test_arm_instruction_that_begins_with_zeros_is_not_counted() -> None:
    code = bytes(32) + bytes.fromhex("000080d2")  # mov x0, #0
    assert instructions("aarch64", code) == [
        "0x000000001000 32 zero bytes",
        "0x000000001020 00 00 80 d2 mov x0, #0",
    ]


def test_rest_shorter_than_an_instruction_is_shown() -> None:
    assert instructions("aarch64", b"\x01\x02")[-1] == "0x000000001000 01 02 .byte 0x1, 0x2"


@given(st.binary(max_size=300), st.sampled_from(["x86_64", "i686", "aarch64"]))
def test_every_byte_is_shown_once(content: bytes, machine: str) -> None:
    position = 0x1000
    for line in instructions(machine, content):
        address, rest = line.split(maxsplit=1)
        assert int(address, 16) == position
        if rest.endswith("zero bytes"):
            position += int(rest.split()[0])
        else:
            shown = itertools.takewhile(re.compile("[0-9a-f]{2}").fullmatch, rest.split())
            raw = bytes.fromhex("".join(shown))
            start = position - 0x1000
            assert content[start : start + len(raw)] == raw
            position += len(raw)
    assert position == 0x1000 + len(content)


def test_machine_without_a_disassembler_is_a_usage_error() -> None:
    pytest.importorskip("capstone")
    with pytest.raises(UsageError, match="riscv64"):
        Disassembler("riscv64")


def raw(*parts: Run) -> tuple[bytes, Sequence[Run]]:
    stream = io.BytesIO()
    holes = write_raw(parts, stream)
    return stream.getvalue(), holes


def test_raw_fills_holes_with_zeros_and_names_them() -> None:
    hole = Run(0x2000, 4096, None, Missing.SWAPPED)
    content, holes = raw(Run(0x1000, 2, b"ab", None), hole, Run(0x3000, 2, b"cd", None))
    assert (content, holes) == (b"ab" + bytes(4096) + b"cd", [hole])


def test_raw_ends_with_the_last_byte_known() -> None:
    assert raw(Run(0x1000, 2, b"ab", None), Run(0x1002, 1 << 46, None, None)) == (b"ab", [])


def test_raw_of_nothing_is_an_error() -> None:
    with pytest.raises(NotCapturedError):
        raw(Run(0x1000, 4096, None, Missing.GONE))


def test_raw_does_not_fill_more_than_its_limit() -> None:
    parts = (Run(0, MAX_FILLED + 1, None, None), Run(MAX_FILLED + 1, 1, b"a", None))
    with pytest.raises(NotCapturedError, match="smaller range"):
        raw(*parts)


def ranges() -> st.SearchStrategy[Range]:
    edges = st.tuples(st.integers(0, WORLD), st.integers(0, WORLD)).filter(lambda edge: edge[0] < edge[1])
    return edges.map(lambda edge: (edge[0] * PAGE_BYTES, edge[1] * PAGE_BYTES))


@given(
    pages=st.dictionaries(st.integers(0, WORLD - 1), st.sampled_from([b"a", b"b", None])),
    gaps=st.lists(st.tuples(ranges(), st.sampled_from([None, Missing.GONE, Missing.SWAPPED]))),
    bounds=ranges(),
)
def test_runs_say_of_each_page_what_was_said_last(
    pages: dict[int, bytes | None], gaps: list[tuple[Range, Missing | None]], bounds: Range
) -> None:
    image = Image()
    expected: dict[int, tuple[bytes | None, Missing | None]] = {}
    for sequence, (addresses, missing) in enumerate(gaps):
        image.gaps[addresses] = Gap(sequence, missing)
        for address in range(*addresses, PAGE_BYTES):
            expected[address] = (None, missing)
    for number, letter in pages.items():
        content, missing = (letter * PAGE_BYTES, None) if letter else (None, Missing.LIMIT)
        image.pages[number * PAGE_BYTES] = Held(content, None, missing)
        expected[number * PAGE_BYTES] = (content, missing)

    found = list(runs(image, *bounds))
    said = {}
    for run in found:
        for offset in range(0, run.size, PAGE_BYTES):
            content = None if run.content is None else run.content[offset : offset + PAGE_BYTES]
            said[run.address + offset] = (content, run.missing)
    assert said == {address: expected.get(address, (None, None)) for address in range(*bounds, PAGE_BYTES)}
    for one, following in itertools.pairwise(found):
        assert one.end == following.address
        assert (one.content is None, one.missing) != (following.content is None, following.missing)

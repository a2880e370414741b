"""Images in memory as ELF files: from captures that lack pages, change, or lie."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import memory_tracer as mt
from memory_tracer.export.elf import export_elf
from memory_tracer.export.elf_format import (
    EM_386,
    EM_X86_64,
    ET_DYN,
    ET_EXEC,
    PF_R,
    PF_W,
    PF_X,
    PT_LOAD,
    FileHeader,
    Layout,
    ProgramHeader,
)
from memory_tracer.model import EventKind, Missing, Status
from memory_tracer.wire.layout import PAGE_BYTES
from tests.foreign import foreign

from .builders import BASE, PID, RecordStream, page_bytes, write_capture
from .scenario import CODE, CommandLine

LOW = 0x40_0000
#: mov edi, 42; mov eax, 60 (exit); syscall. And for 32 bits: mov ebx, 42; mov eax, 1; int 0x80.
EXITS = {64: "bf2a000000 b83c000000 0f05", 32: "bb2a000000 b801000000 cd80"}
EXIT_STATUS = 42


def load(flags: int, page: int, pages: int = 1, memory: int = 0) -> ProgramHeader:
    """Return a segment of whole pages at the same offset as address, from LOW."""
    size = pages * PAGE_BYTES
    return ProgramHeader(
        PT_LOAD, flags, page * PAGE_BYTES, LOW + page * PAGE_BYTES, size, size + memory, PAGE_BYTES
    )


def header_page(*programs: ProgramHeader, bits: int = 64, kind: int = ET_EXEC) -> bytes:
    """Return the first page of a program that starts at its second page."""
    layout = Layout(bits)
    machine = EM_X86_64 if bits == 64 else EM_386
    header = FileHeader(bits, kind, machine, LOW + PAGE_BYTES, layout.header_size, len(programs), 12345, 7, 6)
    content = layout.pack_header(header) + b"".join(map(layout.pack_program, programs))
    return content.ljust(PAGE_BYTES, b"\0")


def code_page(bits: int = 64) -> bytes:
    return bytes.fromhex(EXITS[bits]).ljust(PAGE_BYTES, b"\0")


PLAIN = (load(PF_R, 0), load(PF_R | PF_X, 1))


def mapped(stream: RecordStream, page: int, *contents: bytes, protection: int = 5, **fields: Any) -> int:
    """Append an mprotect of pages of the program, counted from its start."""
    address = LOW + page * PAGE_BYTES
    cause = stream.event(address=address, pages=len(contents), protection=protection, **fields)
    for number, content in enumerate(contents):
        stream.page(cause, content, address + number * PAGE_BYTES)
    return cause


def export(cli: CommandLine, capture: Path, *arguments: object) -> list[dict[str, Any]]:
    """Export images and return the entries of the index, each with the path of its file."""
    out = capture.with_suffix(".elf")
    ran = cli("export", capture, "--format", "elf", "-o", out, "--force", *arguments)
    assert (ran.status, ran.out) == (0, ""), ran.err
    files: list[dict[str, Any]] = json.loads((out / "index.json").read_text())["files"]
    return [entry | {"path": out / entry["file"]} for entry in files]


def run(path: Path) -> int:
    path.chmod(0o700)
    return subprocess.run([path], check=False, timeout=60).returncode


@pytest.mark.parametrize("bits", [64, 32])
def test_complete_image_runs_again(cli: CommandLine, tmp_path: Path, bits: int) -> None:
    stream = RecordStream()
    mapped(stream, 0, header_page(*PLAIN, bits=bits), protection=1)
    mapped(stream, 1, code_page(bits))
    (entry,) = export(cli, write_capture(tmp_path / "x.mtrace", stream))
    assert entry["file"] == f"0001-pid{PID}-{LOW:x}-image.elf"
    assert (entry["bits"], entry["complete"], entry["missing"]) == (bits, True, [])
    assert entry["path"].stat().st_mode & 0o777 == 0o600
    shown = foreign("objdump", "-d", entry["path"])
    assert f"elf{bits}" in shown
    assert "$0x2a,%e" in shown
    if bits == 64:  # not every kernel runs the others
        assert run(entry["path"]) == EXIT_STATUS


def test_position_independent_image_keeps_its_own_addresses(cli: CommandLine, tmp_path: Path) -> None:
    programs = [program._replace(address=program.address - LOW) for program in PLAIN]
    stream = RecordStream()
    cause = stream.event(pages=2)
    stream.page(cause, header_page(*programs, kind=ET_DYN))
    stream.page(cause, code_page(), BASE + PAGE_BYTES)
    (entry,) = export(cli, write_capture(tmp_path / "x.mtrace", stream))
    assert (entry["type"], entry["segments"][1]["address"]) == ("dyn", hex(BASE + PAGE_BYTES))
    assert f"{PAGE_BYTES:x}:\tbf 2a" in foreign("objdump", "-d", entry["path"])


def test_missing_parts_are_named_and_untouched_ones_are_zeros(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream, 0, header_page(*PLAIN, load(PF_R | PF_W, 2, pages=4, memory=100)), protection=1)
    cause = mapped(stream, 1, code_page())
    stream.missing(cause, Missing.ABSENT, LOW + 2 * PAGE_BYTES)
    stream.missing(cause, Missing.SWAPPED, LOW + 3 * PAGE_BYTES, pages=2)
    (entry,) = export(cli, write_capture(tmp_path / "x.mtrace", stream))
    assert entry["complete"] is False
    assert entry["missing"] == [
        {"address": hex(LOW + 3 * PAGE_BYTES), "size": 2 * PAGE_BYTES, "missing": "swapped"},
        {"address": hex(LOW + 5 * PAGE_BYTES), "size": PAGE_BYTES, "missing": None},
    ]
    assert ".bss" in foreign("readelf", "-SW", entry["path"])


def test_code_is_as_last_executable_and_data_as_first_seen(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    encrypted, wiped = page_bytes(8), bytes(PAGE_BYTES)
    programs = (*PLAIN, load(PF_R | PF_W, 2))
    mapped(stream, 0, header_page(*programs), encrypted, page_bytes(5), protection=3)
    mapped(stream, 1, code_page())
    mapped(stream, 2, page_bytes(6), protection=3)
    mapped(stream, 1, wiped, protection=3)
    capture = write_capture(tmp_path / "x.mtrace", stream)
    (entry,) = export(cli, capture)
    content = entry["path"].read_bytes()
    assert content[PAGE_BYTES : 3 * PAGE_BYTES] == code_page() + page_bytes(5)
    assert run(entry["path"]) == EXIT_STATUS
    # At a given time, all is as it was then.
    (entry,) = export(cli, capture, "--at", "1.000003")
    assert entry["path"].read_bytes()[PAGE_BYTES : 3 * PAGE_BYTES] == code_page() + page_bytes(6)
    (entry,) = export(cli, capture, "--at", "1.000001")
    assert entry["path"].read_bytes()[PAGE_BYTES : 3 * PAGE_BYTES] == encrypted + page_bytes(5)


def test_each_program_that_was_at_an_address_is_an_image(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream, 0, header_page(*PLAIN), code_page())
    stream.event(EventKind.EXEC)
    other = code_page().replace(b"\x2a", b"\x07", 1)
    mapped(stream, 0, header_page(*PLAIN), other)
    first, second = export(cli, write_capture(tmp_path / "x.mtrace", stream))
    assert (run(first["path"]), run(second["path"])) == (EXIT_STATUS, 7)


def test_what_was_mapped_before_is_no_part_of_an_image(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream, 1, page_bytes(9))
    stream.event(EventKind.MMAP, LOW, pages=2)
    mapped(stream, 0, header_page(*PLAIN), protection=1)
    image, code = export(cli, write_capture(tmp_path / "x.mtrace", stream))
    assert code["kind"] == "code"
    assert image["missing"] == [{"address": hex(LOW + PAGE_BYTES), "size": PAGE_BYTES, "missing": None}]


def test_code_from_before_an_image_is_a_file_of_its_own(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream, 1, page_bytes(9))
    stream.event(EventKind.EXEC)
    mapped(stream, 0, header_page(*PLAIN), protection=1)
    mapped(stream, 1, code_page())
    image, code = export(cli, write_capture(tmp_path / "x.mtrace", stream))
    assert (image["kind"], code["kind"]) == ("image", "code")
    assert page_bytes(9) in code["path"].read_bytes()


def test_code_that_was_mapped_anew_is_in_a_file_for_each_time(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    for seed in (1, 2, 3):
        stream.event(EventKind.MMAP, BASE, protection=3, result=BASE)
        stream.flip(seed)
        stream.event(EventKind.MUNMAP)
    entries = export(cli, write_capture(tmp_path / "x.mtrace", stream))
    assert [entry["path"].read_bytes()[PAGE_BYTES : 2 * PAGE_BYTES] for entry in entries] == [
        page_bytes(1),
        page_bytes(2),
        page_bytes(3),
    ]


@pytest.mark.parametrize(("status", "bits"), [(Status.NONE, 64), (Status.COMPAT, 32)])
def test_code_without_a_header_is_a_file_of_its_own(
    cli: CommandLine, tmp_path: Path, status: Status, bits: int
) -> None:
    stream = RecordStream()
    mapped(stream, 1, code_page(bits), status=status)
    (entry,) = export(cli, write_capture(tmp_path / "x.mtrace", stream))
    assert (entry["kind"], entry["complete"], entry["bits"]) == ("code", False, bits)
    shown = foreign("objdump", "-d", entry["path"])
    assert f"elf{bits}" in shown
    assert f"{LOW + PAGE_BYTES:x}:\t{EXITS[bits][:2]} 2a" in shown


def test_code_of_an_image_is_in_no_other_file(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream, 0, header_page(*PLAIN), code_page())
    stream.page(stream.event(), CODE)
    entries = export(cli, write_capture(tmp_path / "x.mtrace", stream))
    assert [(entry["kind"], entry["address"]) for entry in entries] == [
        ("image", hex(LOW)),
        ("code", hex(BASE)),
    ]


@pytest.mark.parametrize(
    "program",
    [
        load(PF_R, 0)._replace(memory_size=1 << 63),
        load(PF_R, 0)._replace(file_size=1 << 40, memory_size=1 << 40),
        load(PF_R, 0)._replace(address=(1 << 64) - PAGE_BYTES),
        load(PF_R, 0)._replace(file_size=2 * PAGE_BYTES),
        load(PF_R, 0)._replace(offset=1 << 62, address=0),
    ],
)
def test_header_that_lies_makes_no_huge_file(
    cli: CommandLine, tmp_path: Path, program: ProgramHeader
) -> None:
    stream = RecordStream()
    mapped(stream, 0, header_page(program, load(PF_R | PF_X, 1)), code_page())
    for entry in export(cli, write_capture(tmp_path / "x.mtrace", stream)):
        assert entry["path"].stat().st_size < 16 * PAGE_BYTES
        assert not (entry["kind"] == "image" and entry["complete"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    damage=st.lists(st.tuples(st.integers(4, 250), st.binary(min_size=1, max_size=9)), max_size=5),
    protections=st.tuples(st.integers(0, 7), st.integers(0, 7)),
)
def test_no_header_breaks_the_export(
    tmp_path_factory: pytest.TempPathFactory,
    damage: list[tuple[int, bytes]],
    protections: tuple[int, int],
) -> None:
    directory = tmp_path_factory.mktemp("fuzz")
    page = bytearray(header_page(*PLAIN, load(PF_R | PF_W, 2)))
    for offset, content in damage:
        page[offset : offset + len(content)] = content
    stream = RecordStream()
    mapped(stream, 0, bytes(page), protection=protections[0])
    mapped(stream, 1, code_page(), page_bytes(2), protection=protections[1])
    with mt.open_capture(write_capture(directory / "x.mtrace", stream)) as capture:
        for written in export_elf(capture, {}, directory / "out", None, force=False):
            path = directory / "out" / written.entry["file"]
            # A file of holes costs nothing on the disk.
            assert path.stat().st_blocks * 512 < 1 << 20


def test_damaged_pages_are_said(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream, 0, header_page(*PLAIN), page_bytes(1))
    path = write_capture(tmp_path / "x.mtrace", stream)
    path.write_bytes(path.read_bytes().replace(page_bytes(1), page_bytes(2)))
    ran = cli("export", path, "--format", "elf", "-o", tmp_path / "out")
    (entry,) = json.loads((tmp_path / "out" / "index.json").read_text())["files"]
    assert (ran.status, entry["damaged"], entry["complete"]) == (0, 1, False)
    assert "1 damaged page became zeros" in ran.err


def test_only_an_export_of_ours_is_replaced(cli: CommandLine, tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream, 0, header_page(*PLAIN), code_page())
    capture = write_capture(tmp_path / "x.mtrace", stream)
    export(cli, capture)
    out = capture.with_suffix(".elf")
    assert cli("export", capture, "--format", "elf", "-o", out).status == 1
    (out / "notes.txt").touch()
    assert cli("export", capture, "--format", "elf", "-o", out, "--force").status == 1

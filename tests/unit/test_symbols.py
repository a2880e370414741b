"""Names of generated functions, from perf maps and jitdumps, which targets write."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

import memory_tracer as mt
from memory_tracer.show.symbols import Function, SymbolFiles

from .builders import BASE, PID, RecordStream, write_capture
from .scenario import CommandLine

#: call BASE+0x20; ret, then zeros; at +0x20 mov eax, 42; ret.
CALLS = (b"\xe8\x1b\x00\x00\x00\xc3".ljust(0x20, b"\0") + b"\xb8\x2a\x00\x00\x00\xc3").ljust(4096, b"\0")


def jitdump(*functions: Function, pid: int = PID) -> bytes:
    """Return a jitdump with one record for each function, after a record of another kind."""
    content = struct.pack("<IIIIIIQQ", 0x4A695444, 1, 40, 62, 0, pid, 0, 0) + struct.pack("<IIQ", 4, 16, 0)
    for start, size, name in functions:
        body = struct.pack("<IIQQQQ", pid, pid, start, start, size, 0) + name.encode() + b"\0" + bytes(size)
        content += struct.pack("<IIQ", 0, 16 + len(body), 0) + body
    return content


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    stream = RecordStream()
    stream.page(stream.event(), CALLS)
    return write_capture(tmp_path / "calls.mtrace", stream)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["map", "jitdump"])
def test_instructions_have_the_names_of_functions(
    cli: CommandLine, calls: Path, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("capstone")
    functions = Function(BASE, 6, "outer"), Function(BASE + 0x20, 6, "in\x1b[31mner")
    text = "".join(f"{start:x} {size:x} {name}\n" for start, size, name in functions)
    content = text.encode() if kind == "map" else jitdump(*functions)
    ran = cli("show", calls, hex(BASE), "--disasm", "--symbols", written(tmp_path / "names", content))
    lines = ran.out.splitlines()
    assert ran.status == 0
    assert "outer:" in lines
    assert lines[lines.index("in\\x1b[31mner:") + 1].endswith("mov eax, 0x2a")
    assert lines[lines.index("outer:") + 1].endswith(f"call {BASE + 0x20:#x}  ; in\\x1b[31mner")


def test_report_names_the_functions_of_a_region(cli: CommandLine, calls: Path, tmp_path: Path) -> None:
    names = written(tmp_path / f"perf-{PID}.map", f"{BASE:x} 6 <b>outer\n{BASE - 1:x} 1 before\n".encode())
    assert "1 named function: <b>outer" in cli("report", calls, "--symbols", names).out
    (told,) = cli("report", calls, "--symbols", names, "--json").objects()
    assert told["regions"][0]["functions"] == ["<b>outer"]


def test_a_file_is_about_the_process_its_name_says(cli: CommandLine, calls: Path, tmp_path: Path) -> None:
    other = written(tmp_path / f"perf-{PID + 1}.map", f"{BASE:x} 6 outer\n".encode())
    dump = written(tmp_path / "other.dump", jitdump(Function(BASE, 6, "outer"), pid=PID + 1))
    for names in other, dump:
        (told,) = cli("report", calls, "--symbols", names, "--json").objects()
        assert told["regions"][0]["functions"] == []


def test_the_last_name_of_an_address_counts_and_nonsense_is_passed_over(tmp_path: Path) -> None:
    lines = [
        b"no line",
        b"10 0 empty",
        b"20 10 old",
        b"20 8 new name",
        b"ffffffffffffffff 2 beyond",
        b"30 1 \xff",
    ]
    symbols = SymbolFiles([written(tmp_path / "names", b"\n".join(lines))]).of(1)
    assert symbols.within(0, 1 << 64) == [Function(0x20, 8, "new name"), Function(0x30, 1, "\udcff")]
    assert (symbols.around(0x27), symbols.around(0x28)) == (Function(0x20, 8, "new name"), None)


def test_a_jitdump_may_be_cut_off_anywhere(tmp_path: Path) -> None:
    whole = jitdump(Function(0x1000, 32, "first"), Function(0x2000, 16, "second"))
    found = set()
    for end in range(40, len(whole) + 1):
        symbols = SymbolFiles([written(tmp_path / "names", whole[:end])]).of(PID)
        found.add(tuple(function.name for function in symbols.within(0, 1 << 64)))
    assert found == {(), ("first",), ("first", "second")}


def test_what_is_no_symbol_file_is_refused(tmp_path: Path, calls: Path, cli: CommandLine) -> None:
    names = written(tmp_path / "names", b"10 10 name\n")
    (tmp_path / "link").symlink_to(names)
    os.mkfifo(tmp_path / "fifo")
    large = written(tmp_path / "large", b"")
    os.truncate(large, (256 << 20) + 1)
    nothing = written(tmp_path / "text", b"hello\n")
    for path, why in (
        (tmp_path / "link", "links are not followed"),
        (tmp_path / "fifo", "not a regular file"),
        (tmp_path / "missing", "No such file"),
        (large, "larger than"),
        (nothing, "neither a perf map nor a jitdump"),
    ):
        with pytest.raises(mt.UsageError, match=why):
            SymbolFiles([path])
    assert cli("show", calls, hex(BASE), "--symbols", names).status == 2

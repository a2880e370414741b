"""The report and the certificate: what they tell, and what they put first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_tracer.analyze.processes import describe_wait_status, process_tree
from memory_tracer.analyze.recognize import recognize
from memory_tracer.analyze.runtimes import asked_by, name_of
from memory_tracer.capture.reader import Capture
from memory_tracer.capture.writer import CaptureWriter
from memory_tracer.model import EventKind, Process, Region, Status
from memory_tracer.report.story import tell
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, METADATA, RecordStream, page_bytes, write_capture
from .scenario import CODE, DEVICE, INODE, NOISE, PACKED, CommandLine, whole_scenario


def process(pid: int, parent: int | None, start: int) -> Process:
    return Process(pid, start, parent, "name", None, (), 0, start, None, None)


def shape(processes: Sequence[Process]) -> list[tuple[int, int]]:
    return [(depth, member.pid) for depth, member in process_tree(processes)]


def test_tree_puts_children_below_their_parent_by_start_time() -> None:
    members = [process(3, 1, 30), process(1, None, 10), process(4, 2, 40), process(2, 1, 20)]
    assert shape(members) == [(0, 1), (1, 2), (2, 4), (1, 3)]


def test_child_belongs_to_the_latest_process_of_a_pid_that_was_reused() -> None:
    members = [process(1, None, 10), process(1, None, 30), process(2, 1, 20), process(3, 1, 40)]
    assert shape(members) == [(0, 1), (1, 2), (0, 1), (1, 3)]


@given(st.lists(st.builds(process, st.integers(1, 4), st.integers(1, 4), st.integers(0, 4)), max_size=12))
def test_tree_has_every_process_once_whatever_parents_are_claimed(processes: list[Process]) -> None:
    assert sorted(map(id, processes)) == sorted(id(member) for _, member in process_tree(processes))


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exit 0"),
        (3 << 8, "exit 3"),
        (9, "killed by SIGKILL"),
        (11 | 0x80, "killed by SIGSEGV, core dumped"),
        (0x50, "killed by signal 80"),
    ],
)
def test_wait_status_is_put_in_words(status: int, text: str) -> None:
    assert describe_wait_status(status) == text


@given(st.integers(-(2**63), 2**63))
def test_wait_status_of_any_number_has_words(status: int) -> None:
    assert describe_wait_status(status).startswith(("exit ", "killed by "))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF\x02\x01".ljust(PAGE_BYTES, b"\1"), "ELF header"),
        (b"MZ".ljust(PAGE_BYTES, b"\1"), "PE header"),
        (bytes(PAGE_BYTES), "all zero"),
        (CODE, "function prologue, mostly zero"),
        (bytes.fromhex("9090e8000000005b").ljust(PAGE_BYTES, b"\0"), "shellcode prologue, mostly zero"),
        (bytes.fromhex("4831d26a3b58").ljust(PAGE_BYTES, b"\1"), "shellcode prologue, entropy 0.0"),
        (bytes.fromhex("48b80102030405060708ffe0").ljust(PAGE_BYTES, b"\0"), "jump stub, mostly zero"),
        (bytes.fromhex("b801000000c3").ljust(PAGE_BYTES, b"\0"), "mostly zero"),
        (NOISE, "encrypted or compressed (entropy 8.0)"),
        (page_bytes(0x0102030405060708), "entropy 3.0"),
    ],
    ids=["elf", "pe", "zero", "function", "call", "execve", "jump", "sparse", "noise", "regular"],
)
def test_content_is_recognized(content: bytes, words: str) -> None:
    assert recognize(content) == words


def test_report_of_a_complete_capture_says_so_and_what_ran(cli: CommandLine, tmp_path: Path) -> None:
    ran = cli("report", write_capture(tmp_path / "whole.mtrace", whole_scenario()))
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert lines[0] == "./sample"
    assert "2023-11-14 22:13:20 UTC" in lines[1]
    assert "ebpf, tracepoint, 6.12, x86_64" in lines[1]
    assert "  COMPLETE: nothing was lost" in lines
    assert "1 process" in lines
    assert any(line.endswith("[exit 3]") for line in lines)
    assert "1 region of code made at run time" in lines
    assert "    1 page in 2 generations; 2 events; called from 0x401234" in lines


def test_protection_a_region_ended_with_is_told_when_it_no_longer_executes(
    cli: CommandLine, tmp_path: Path
) -> None:
    stream = RecordStream()
    stream.flip(1)
    stream.event(protection=3, previous_protection=5)
    ran = cli("report", write_capture(tmp_path / "x.mtrace", stream))
    assert "1 page in 1 generation; 2 events; in the end rw-" in ran.out


def test_report_fits_one_screen(cli: CommandLine, hostile: Path) -> None:
    *lines, suggestion = cli("report", hostile).out.splitlines()
    assert suggestion.startswith("Next: ")
    assert len(lines) <= 24
    assert max(map(len, lines[lines.index("2 processes") :])) <= 80


def test_losses_come_before_processes_and_regions(cli: CommandLine, hostile: Path) -> None:
    out = cli("report", hostile).out
    assert (
        out.index("INCOMPLETE")
        < out.index("swapped: 2 pages (it was swapped out)")
        < out.index("2 processes")
    )
    assert out.index("2 processes") < out.index("3 regions of code")


def test_programs_and_libraries_are_summed_up_unless_all_is_asked_for(
    cli: CommandLine, hostile: Path
) -> None:
    assert "and 1 mapping of programs and libraries" in cli("report", hostile).out
    everything = cli("report", hostile, "--all").out
    assert "0x400000-0x404000 16 KiB" in everything
    assert "--all" not in everything


def test_command_that_the_report_suggests_works(cli: CommandLine, hostile: Path) -> None:
    pytest.importorskip("capstone")
    suggestion = cli("report", hostile).out.splitlines()[-1].removeprefix("Next: ")
    program, *arguments = shlex.split(suggestion)
    ran = cli(*arguments)
    assert (program, ran.status) == ("memory-tracer", 0)
    assert "mov eax, 0x2a" in ran.out


def test_report_as_json_tells_the_same(cli: CommandLine, hostile: Path) -> None:
    (report,) = cli("report", hostile, "--json").objects()
    assert report["complete"] is False
    assert "swapped" in [loss["reason"] for loss in report["losses"]]
    assert [region["region"]["start"] for region in report["regions"]] == [hex(BASE), hex(PACKED), hex(BASE)]
    assert report["regions"][1]["looks_like"] == "encrypted or compressed (entropy 8.0)"
    assert report["regions"][1]["first_bytes"] == NOISE[:8].hex(" ")
    assert report["plain_mappings"] == 1


def test_regions_with_bytes_stand_before_those_of_linked_files(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(EventKind.MPROTECT, PACKED, inode=INODE, device=DEVICE)
    stream.event(EventKind.MMAP, 0x1000, inode=INODE, device=DEVICE, result=0x1000)
    stream.event(EventKind.EXEC_MAPPING, 0x2000)
    stream.flip(1)
    with Capture(write_capture(tmp_path / "x.mtrace", stream)) as capture:
        story = tell(capture)
    assert [history.region.start for history in story.striking] == [BASE, PACKED]
    assert [history.region.start for history in story.plain] == [0x1000, 0x2000]


LIBC, NODE, ADDON = 0x10_0000, 0x20_0000, 0x30_0000
FILES = {
    LIBC: (71, b"/usr/lib/libc.so.6"),
    NODE: (72, b"/usr/bin/node"),
    ADDON: (73, b"/home/user/addon.node"),
}


def mapped_files() -> RecordStream:
    """A process with a C library, Node.js and a module that this loaded."""
    stream = RecordStream(comm=b"node")
    for address, (inode, path) in FILES.items():
        stream.event(EventKind.EXEC_MAPPING, address, inode=inode, device=DEVICE)
        stream.path(DEVICE, inode, path)
    return stream


def ask(stream: RecordStream, address: int, *frames: int, content: bytes = CODE, **fields: int) -> None:
    """Make a page executable, called from ``frames``, innermost first."""
    cause = stream.event(EventKind.MPROTECT, address, caller_ip=frames[0] + 8, **fields)
    stream.stack(cause, *(frame + 8 for frame in frames))
    stream.page(cause, content, address)


def test_code_of_a_runtime_is_one_line_and_other_code_is_not(cli: CommandLine, tmp_path: Path) -> None:
    stream = mapped_files()
    for number in range(20):
        ask(stream, BASE + 2 * number * PAGE_BYTES, LIBC, NODE, protection=7)
    ask(stream, PACKED, LIBC, ADDON, NODE)
    path = write_capture(tmp_path / "x.mtrace", stream)
    out = cli("report", path).out
    lines = out.splitlines()
    assert "21 regions of code made at run time" in lines
    assert f"  V8 in pid {stream.pid}: 20 regions, 20 pages, 20 events, rwx" in lines
    assert "    asked for by /usr/bin/node" in lines
    assert f"  {PACKED:#x}-{PACKED + PAGE_BYTES:#x} 4 KiB" in out
    assert f"{BASE:#x}" not in out
    assert f"{hex(BASE)}-" in cli("report", path, "--all").out
    (report,) = cli("report", path, "--json").objects()
    assert [region["runtime"] for region in report["regions"]] == [None] + 20 * ["V8"]
    assert report["regions"][0]["asked_by"] == "/home/user/addon.node"
    (group,) = report["generated"]
    assert (group["runtime"], group["path"], group["regions"]) == ("V8", "/usr/bin/node", 20)


def test_code_that_no_runtime_makes_is_not_hidden_behind_one(tmp_path: Path) -> None:
    stream = mapped_files()
    ask(stream, BASE, LIBC, NODE)
    ask(stream, PACKED, LIBC, NODE, content=b"\x7fELF\x02\x01".ljust(PAGE_BYTES, b"\1"))
    ask(stream, PACKED + 4 * PAGE_BYTES, LIBC, NODE)
    ask(stream, PACKED + 8 * PAGE_BYTES, PACKED + 4 * PAGE_BYTES, NODE)
    with Capture(write_capture(tmp_path / "x.mtrace", stream)) as capture:
        story = tell(capture)
    assert [history.region.start for history in story.generated[0].histories] == [BASE]
    assert [(sight.history.region.start, sight.findings) for sight in story.sights[:3]] == [
        (PACKED, ("ELF image",)),
        (PACKED + 4 * PAGE_BYTES, ("makes system calls",)),
        (PACKED + 8 * PAGE_BYTES, ()),
    ]


def test_part_of_a_runtimes_region_that_was_only_looked_at_is_the_runtimes(tmp_path: Path) -> None:
    stream = mapped_files()
    cause = stream.event(EventKind.MMAP, BASE, pages=4, protection=7, result=BASE, caller_ip=LIBC)
    stream.stack(cause, LIBC, NODE)
    for address in (BASE + PAGE_BYTES, PACKED):
        look = stream.event(EventKind.LOOK, address, protection=7, caller_ip=LIBC)
        stream.page(look, CODE, address)
    with Capture(write_capture(tmp_path / "x.mtrace", stream)) as capture:
        story = tell(capture)
    (group,) = story.generated
    assert {history.region.start for history in group.histories} == {BASE, BASE + PAGE_BYTES}
    assert [history.region.start for history in story.striking] == [PACKED]


def test_code_of_a_compiler_that_announces_a_jitdump_is_grouped(tmp_path: Path) -> None:
    stream = mapped_files()
    cause = stream.event(EventKind.MMAP, 0x40_0000, inode=74, device=DEVICE, result=0x40_0000, caller_ip=LIBC)
    stream.path(DEVICE, 74, b"/root/.debug/jit/jit-4242.dump")
    stream.stack(cause, LIBC, ADDON)
    ask(stream, BASE, LIBC, ADDON)
    with Capture(write_capture(tmp_path / "x.mtrace", stream)) as capture:
        story = tell(capture)
    (group,) = story.generated
    assert (group.runtime, group.path) == ("JIT compiler", "/home/user/addon.node")
    assert not story.striking


def test_what_stands_out_comes_first_and_is_named(cli: CommandLine, tmp_path: Path) -> None:
    stream = mapped_files()
    ask(stream, BASE, LIBC, ADDON)
    ask(stream, PACKED, LIBC, ADDON, content=b"\x7fELF\x02\x01".ljust(PAGE_BYTES, b"\1"))
    ask(stream, PACKED + 4 * PAGE_BYTES, BASE)
    cause = stream.event(
        EventKind.EXEC_MAPPING, PACKED + 8 * PAGE_BYTES, inode=75, device=1, status=Status.UNLINKED
    )
    stream.path(1, 75, b"/memfd:x")
    stream.page(cause, b"\x7fELF\x02\x01".ljust(PAGE_BYTES, b"\2"), PACKED + 8 * PAGE_BYTES)
    path = write_capture(tmp_path / "x.mtrace", stream)
    (report,) = cli("report", path, "--json").objects()
    assert [(region["region"]["start"], region["findings"]) for region in report["regions"]] == [
        (hex(PACKED + 8 * PAGE_BYTES), ["program without a file", "ELF image"]),
        (hex(BASE), ["makes system calls"]),
        (hex(PACKED), ["ELF image"]),
        (hex(PACKED + 4 * PAGE_BYTES), []),
    ]
    assert "    program without a file, ELF image\n" in cli("report", path).out


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/node", "V8"),
        ("/usr/lib/jvm/java-17/lib/server/libjvm.so", "HotSpot"),
        ("/usr/lib/x86_64-linux-gnu/libluajit-5.1.so.2.1.0", "LuaJIT"),
        ("/usr/lib/libruby-3.1.so.3.1.7", "YJIT"),
        ("/usr/bin/php8.2", "PHP"),
        ("/usr/lib/libpypy3.9-c.so", "PyPy"),
        ("/usr/share/dotnet/shared/libcoreclr.so", ".NET"),
        ("/usr/bin/mono-sgen", "Mono"),
        ("/usr/lib/erlang/erts-13/bin/beam.smp", "BEAM"),
        ("/tmp/nodes", None),
        ("/tmp/node/sample", None),
        (None, None),
    ],
)
def test_runtime_is_known_by_the_name_of_its_file(path: str | None, name: str | None) -> None:
    assert name_of(path) == name


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (("libc.so.6", "node"), "node"),
        (("ld-linux-x86-64.so.2", "libc-2.31.so", "ld-musl-x86_64.so.1", "sample"), "sample"),
        (("sample", "node"), "sample"),
        (("libc.so.6", None, "node"), None),
        (("libc.so.6",), None),
    ],
)
def test_who_asked_is_the_innermost_beside_the_c_library(
    names: Sequence[str | None], asked: str | None
) -> None:
    frames = [name and Region(0, PAGE_BYTES, path=f"/usr/lib/{name}", inode=1) for name in names]
    found = asked_by(frame or None for frame in frames)
    assert (found and found.path) == (asked and f"/usr/lib/{asked}")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"clock": 7, "command": {"a": 1}, "host": [], "engine": 3, "targets": "x", "created_ns": "now"},
        {"clock": {"monotonic_ns": 10**400, "realtime_ns": -(10**400)}, "created_ns": -(10**400)},
        dict(METADATA) | {"command": ["\x1b[2J"] * 1000, "engine": "\x07"},
    ],
    ids=["empty", "types", "numbers", "escapes"],
)
@pytest.mark.parametrize("verb", ["report", "events", "verify"])
def test_metadata_can_hold_anything(
    cli: CommandLine, tmp_path: Path, metadata: dict[str, Any], verb: str
) -> None:
    path = tmp_path / "x.mtrace"
    with CaptureWriter(path, metadata) as writer:
        writer.append(whole_scenario().take())
        writer.counters({"kernel": {}, "recorder": {}})
        writer.finish(reason="targets-ended", wait_status=0)
    ran = cli(verb, path)
    assert (ran.status, ran.err) == (0, "")
    assert all(line.isprintable() for line in ran.out.splitlines())


def test_process_that_had_not_ended_is_told_from_one_whose_recording_broke_off(
    cli: CommandLine, tmp_path: Path
) -> None:
    path = tmp_path / "x.mtrace"
    stream = RecordStream()
    ask(stream, BASE, BASE)

    with CaptureWriter(path, METADATA) as writer:
        writer.append(stream.take())
        assert "[running]" in cli("report", path).out
        path.with_suffix(".copy").write_bytes(path.read_bytes())
        writer.counters({"kernel": {}, "recorder": {}})
        writer.finish(reason="duration", wait_status=None)

    assert "[running at the end]" in cli("report", path).out
    assert "[running when the recording broke off]" in cli("report", path.with_suffix(".copy")).out


def test_verify_exits_with_0_only_when_nothing_is_missing(
    cli: CommandLine, hostile: Path, tmp_path: Path
) -> None:
    ran = cli("verify", write_capture(tmp_path / "whole.mtrace", whole_scenario()))
    assert ran.status == 0
    assert "whole.mtrace: COMPLETE" in ran.out
    ran = cli("verify", hostile)
    assert ran.status == 1
    assert "hostile.mtrace: INCOMPLETE" in ran.out
    assert "swapped: 2 pages (it was swapped out)" in ran.out


def test_verify_finds_a_byte_that_was_changed(cli: CommandLine, tmp_path: Path) -> None:
    path = write_capture(tmp_path / "whole.mtrace", whole_scenario())
    content = bytearray(path.read_bytes())
    content[content.index(CODE[:16])] ^= 1
    path.write_bytes(content)
    ran = cli("verify", path)
    assert ran.status == 1
    assert "damaged: stored pages that do not match their SHA-256: 1" in ran.out


def test_certificate_as_json_holds_the_reasons(cli: CommandLine, hostile: Path) -> None:
    ran = cli("verify", hostile, "--json")
    (certificate,) = ran.objects()
    assert (ran.status, certificate["complete"]) == (1, False)
    swapped = {"reason": "swapped", "count": 2, "unit": "pages", "explanation": "it was swapped out"}
    assert swapped in certificate["losses"]

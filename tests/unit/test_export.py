"""Exports: raw region files with their index, and JSON lines."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from memory_tracer.export.raw import MAX_HOLE
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, PID, RecordStream, page_bytes, write_capture
from .scenario import CHILD_PID, CODE, HOSTILE_COMM, NOISE, PACKED, PROGRAM, CommandLine, whole_scenario

A, B, C = page_bytes(1), page_bytes(2), page_bytes(3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def export(cli: CommandLine, capture: Path, out: Path, *arguments: object) -> list[dict[str, Any]]:
    """Export raw and return the entries of the index."""
    ran = cli("export", capture, "--format", "raw", "-o", out, *arguments)
    assert (ran.status, ran.out) == (0, "")
    files: list[dict[str, Any]] = json.loads((out / "index.json").read_text())["files"]
    return files


def test_each_generation_of_each_region_is_a_file(cli: CommandLine, hostile: Path, out: Path) -> None:
    files = export(cli, hostile, out)
    assert {entry["file"]: (out / entry["file"]).read_bytes() for entry in files} == {
        f"0002-pid{PID}-{BASE:x}-g1.bin": A,
        f"0002-pid{PID}-{BASE:x}-g2.bin": CODE,
        f"0003-pid{PID}-{PACKED + PAGE_BYTES:x}-g1.bin": NOISE,
        f"0004-pid{CHILD_PID}-{BASE:x}-g1.bin": page_bytes(7),
    }


def test_index_says_where_each_file_was_and_has_its_digest(
    cli: CommandLine, hostile: Path, out: Path
) -> None:
    entry = export(cli, hostile, out)[3]
    assert entry["comm"].encode(errors="surrogateescape") == HOSTILE_COMM
    assert (entry["pid"], entry["address"], entry["size"]) == (CHILD_PID, hex(BASE), PAGE_BYTES)
    assert entry["sha256"] == hashlib.sha256((out / entry["file"]).read_bytes()).hexdigest()
    assert entry["holes"] == []


def test_generation_holds_every_page_known_by_then(cli: CommandLine, tmp_path: Path, out: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    cause = stream.event(pages=2)
    stream.page(cause, C, BASE + PAGE_BYTES)
    stream.flip(1, 2)
    files = export(cli, write_capture(tmp_path / "x.mtrace", stream), out)
    assert [(out / entry["file"]).read_bytes() for entry in files] == [A + B, A + C]


def test_hole_reads_as_zeros_and_is_in_the_index(cli: CommandLine, tmp_path: Path, out: Path) -> None:
    stream = RecordStream()
    cause = stream.event(pages=3)
    stream.page(cause, A)
    stream.page(cause, B, BASE + 2 * PAGE_BYTES)
    (entry,) = export(cli, write_capture(tmp_path / "x.mtrace", stream), out)
    assert (out / entry["file"]).read_bytes() == A + bytes(PAGE_BYTES) + B
    assert entry["holes"] == [{"address": hex(BASE + PAGE_BYTES), "size": PAGE_BYTES, "missing": None}]
    assert entry["sha256"] == hashlib.sha256(A + B).hexdigest()


def test_pages_far_apart_are_files_of_their_own(cli: CommandLine, tmp_path: Path, out: Path) -> None:
    stream = RecordStream()
    distance = MAX_HOLE + 2 * PAGE_BYTES
    cause = stream.event(length=1 << 46)
    stream.page(cause, A)
    stream.page(cause, B, BASE + distance)
    files = export(cli, write_capture(tmp_path / "x.mtrace", stream), out)
    assert [(entry["address"], entry["size"]) for entry in files] == [
        (hex(BASE), PAGE_BYTES),
        (hex(BASE + distance), PAGE_BYTES),
    ]


def test_filters_choose_the_regions(cli: CommandLine, hostile: Path, out: Path) -> None:
    files = export(cli, hostile, out, "--pid", CHILD_PID)
    assert {entry["pid"] for entry in files} == {CHILD_PID}


def test_only_the_owner_may_look(cli: CommandLine, hostile: Path, out: Path) -> None:
    export(cli, hostile, out)
    assert out.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}


def test_directory_is_named_after_the_capture(
    cli: CommandLine, hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("export", hostile, "--format", "raw").status == 0
    assert (tmp_path / "hostile-raw" / "index.json").is_file()


def test_earlier_export_is_replaced_only_by_force(cli: CommandLine, hostile: Path, out: Path) -> None:
    first = export(cli, hostile, out)
    ran = cli("export", hostile, "--format", "raw", "-o", out)
    assert ran.status == 1
    assert "--force" in ran.err
    replaced = export(cli, hostile, out, "--force", "--pid", CHILD_PID)
    assert [entry["sha256"] for entry in replaced] == [first[3]["sha256"]]
    assert len(list(out.iterdir())) == 2


def test_force_removes_nothing_that_is_not_an_export(cli: CommandLine, hostile: Path, out: Path) -> None:
    export(cli, hostile, out)
    precious = out / "precious.txt"
    precious.write_text("mine")
    before = sorted(out.iterdir())
    ran = cli("export", hostile, "--format", "raw", "-o", out, "--force")
    assert ran.status == 1
    assert "precious.txt" in ran.err
    assert sorted(out.iterdir()) == before


@pytest.mark.parametrize("form", ["raw", "jsonl"])
def test_link_is_not_followed(cli: CommandLine, hostile: Path, tmp_path: Path, out: Path, form: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.symlink_to(elsewhere)
    ran = cli("export", hostile, "--format", form, "-o", out, "--force")
    assert ran.status == 1
    assert list(elsewhere.iterdir()) == []


def test_json_lines_are_the_capture_its_processes_and_its_records_in_order(
    cli: CommandLine, hostile: Path
) -> None:
    ran = cli("export", hostile, "--format", "jsonl")
    assert ran.out.isascii()
    first, *rest = ran.objects()
    assert first["type"] == "capture"
    assert first["metadata"]["command"] == ["./sample"]
    assert [value["pid"] for value in rest if value["type"] == "process"] == [PID, CHILD_PID]
    records = [value for value in rest if value["type"] != "process"]
    assert [value["sequence"] for value in records] == sorted(value["sequence"] for value in records)
    contents = [base64.b64decode(value["content"]) for value in records if value["type"] == "page"]
    assert contents == [A, CODE, NOISE, page_bytes(7)]
    (missing,) = [value for value in records if value["type"] == "missing"]
    assert (missing["length"], missing["missing"]) == (2 * PAGE_BYTES, "swapped")


def test_json_lines_have_the_documented_keys(cli: CommandLine, hostile: Path) -> None:
    documentation = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    for value in cli("export", hostile, "--format", "jsonl", "--no-content").objects():
        (line,) = re.findall(rf"^\| `{value['type']}` \| (.*?)[;|]", documentation, re.MULTILINE)
        assert list(value) == re.findall(r"`(\w+)`", line)


def test_json_lines_go_to_a_file_that_is_not_overwritten(cli: CommandLine, hostile: Path, out: Path) -> None:
    arguments = ("export", hostile, "--format", "jsonl", "-o", out)
    assert cli(*arguments).status == 0
    content = out.read_bytes()
    assert cli(*arguments).status == 1
    assert out.read_bytes() == content
    assert cli(*arguments, "--force", "--pid", CHILD_PID).status == 0
    assert len(out.read_bytes()) < len(content)


def test_region_without_bytes_has_no_file(cli: CommandLine, hostile: Path, out: Path) -> None:
    assert export(cli, hostile, out, "--address", hex(PROGRAM)) == []


def test_option_for_the_other_format_is_refused(cli: CommandLine, hostile: Path) -> None:
    assert cli("export", hostile, "--format", "raw", "--no-content").status == 2


def test_export_of_a_complete_capture_says_only_what_it_wrote(
    cli: CommandLine, tmp_path: Path, out: Path
) -> None:
    capture = write_capture(tmp_path / "whole.mtrace", whole_scenario())
    ran = cli("export", capture, "--format", "raw", "-o", out)
    assert ran.err == f"memory-tracer: wrote 2 files, 8 KiB, to {out}\n"

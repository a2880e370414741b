"""``memory-tracer scan``: each content once, borders of pages, forms of output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from memory_tracer.capture.reader import Capture
from memory_tracer.model import EventKind, Missing
from memory_tracer.scan import stretches
from memory_tracer.scan.stretches import Stretch, Walk
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, PID, RecordStream, page_bytes, write_capture
from .scenario import CHILD_PID, HOSTILE_COMM, CommandLine

pytest.importorskip("yara_x")

RULES = """
rule word : first second { meta: description = "the word" strings: $w = "needle" condition: $w }
rule two { strings: $a = "left" $b = "right" condition: all of them }
rule start { condition: uint32(0) == 0x44434241 }
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yar"
    path.write_text(RULES)
    return path


def page(*parts: tuple[int, bytes], seed: int = 0) -> bytes:
    """Return a page of its own with ``parts`` at their offsets."""
    content = bytearray(page_bytes(seed))
    for offset, part in parts:
        content[offset : offset + len(part)] = part
    return bytes(content)


WITH_WORD = page((100, b"needle"))
BEFORE = page((PAGE_BYTES - 3, b"nee"), seed=1)
BEHIND = page((0, b"dle"), seed=2)


def flip(stream: RecordStream, address: int, *contents: bytes) -> int:
    cause = stream.event(address=address, pages=len(contents))
    for number, content in enumerate(contents):
        stream.page(cause, content, address + number * PAGE_BYTES)
    return cause


def scan(cli: CommandLine, capture: Path, rules: Path, *arguments: object) -> list[dict[str, Any]]:
    ran = cli("scan", capture, "--rules", rules, "--json", *arguments)
    assert ran.status == 0, ran.err
    return ran.objects()


def found(matches: Sequence[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(match["rule"], int(match["address"], 16), match["length"]) for match in matches]


def test_match_says_what_where_and_when(cli: CommandLine, tmp_path: Path, rules: Path) -> None:
    stream = RecordStream()
    stream.flip(7)
    flip(stream, BASE, WITH_WORD)
    (match,) = scan(cli, write_capture(tmp_path / "x.mtrace", stream), rules)
    assert (match["rule"], match["pattern"], match["tags"]) == ("word", "$w", ["first", "second"])
    assert (match["address"], match["length"], bytes.fromhex(match["bytes"])) == (
        hex(BASE + 100),
        6,
        b"needle",
    )
    assert (match["pid"], match["generation"], match["places"]) == (PID, 2, 1)
    assert match["metadata"] == {"description": "the word"}


def test_content_is_scanned_once_wherever_it_is(cli: CommandLine, tmp_path: Path, rules: Path) -> None:
    stream = RecordStream()
    for address in (BASE, BASE + 8 * PAGE_BYTES, BASE):
        flip(stream, address, WITH_WORD)
    other = RecordStream(pid=CHILD_PID, start_ns=88_000_000_000)
    other.cpu, other.now_ns = 1, stream.now_ns
    flip(other, BASE, WITH_WORD)
    (match,) = scan(cli, write_capture(tmp_path / "x.mtrace", stream, other), rules)
    assert (match["pid"], match["address"], match["places"]) == (PID, hex(BASE + 100), 3)


def test_match_may_cross_pages_of_one_event(cli: CommandLine, tmp_path: Path, rules: Path) -> None:
    stream = RecordStream()
    flip(stream, BASE, BEFORE, BEHIND)
    matches = scan(cli, write_capture(tmp_path / "x.mtrace", stream), rules)
    assert found(matches) == [("word", BASE + PAGE_BYTES - 3, 6)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["lower first", "higher first"])
def test_match_may_cross_pages_of_different_events(
    cli: CommandLine, tmp_path: Path, rules: Path, order: tuple[int, int]
) -> None:
    stream = RecordStream()
    for number in order:
        flip(stream, BASE + number * PAGE_BYTES, (BEFORE, BEHIND)[number])
    matches = scan(cli, write_capture(tmp_path / "x.mtrace", stream), rules)
    assert found(matches) == [("word", BASE + PAGE_BYTES - 3, 6)]
    assert matches[0]["timestamp_ns"] == stream.now_ns


def test_known_contents_that_become_neighbours_are_joined(
    cli: CommandLine, tmp_path: Path, rules: Path
) -> None:
    stream = RecordStream()
    flip(stream, BASE, BEFORE)
    flip(stream, BASE + 16 * PAGE_BYTES, BEHIND)
    flip(stream, BASE + PAGE_BYTES, BEHIND)
    matches = scan(cli, write_capture(tmp_path / "x.mtrace", stream), rules)
    assert found(matches) == [("word", BASE + PAGE_BYTES - 3, 6)]


@pytest.mark.parametrize("gone", ["overwritten", "unmapped", "missing", "mapped anew", "execve"])
def test_pages_that_did_not_exist_together_are_not_joined(
    cli: CommandLine, tmp_path: Path, rules: Path, gone: str
) -> None:
    stream = RecordStream()
    flip(stream, BASE, BEFORE)
    if gone == "overwritten":
        stream.flip(9)
    elif gone == "unmapped":
        stream.event(EventKind.MUNMAP)
    elif gone == "missing":
        stream.missing(stream.event(), Missing.SWAPPED)
    elif gone == "mapped anew":
        stream.event(EventKind.MMAP)
    else:
        stream.event(EventKind.EXEC)
    flip(stream, BASE + PAGE_BYTES, BEHIND)
    ran = cli("scan", write_capture(tmp_path / "x.mtrace", stream), "--rules", rules)
    assert (ran.status, ran.out) == (0, "")


def test_pages_of_two_processes_are_not_joined(cli: CommandLine, tmp_path: Path, rules: Path) -> None:
    stream, other = RecordStream(), RecordStream(pid=CHILD_PID, start_ns=88_000_000_000)
    flip(stream, BASE, BEFORE)
    other.cpu, other.now_ns = 1, stream.now_ns
    flip(other, BASE + PAGE_BYTES, BEHIND)
    assert scan(cli, write_capture(tmp_path / "x.mtrace", stream, other), rules) == []


def test_condition_sees_the_pages_that_one_event_brought(
    cli: CommandLine, tmp_path: Path, rules: Path
) -> None:
    stream = RecordStream()
    left, right = page((0, b"left"), seed=1), page((0, b"right"), seed=2)
    flip(stream, BASE, left, page_bytes(3), right)
    matches = scan(cli, write_capture(tmp_path / "x.mtrace", stream), rules)
    assert [name for name, _, _ in found(matches)] == ["two", "two"]


def test_rule_without_pattern_is_about_all_that_was_scanned_together(
    cli: CommandLine, tmp_path: Path, rules: Path
) -> None:
    stream = RecordStream()
    flip(stream, BASE + PAGE_BYTES, page((0, b"ABCD"), seed=1), page_bytes(2))
    (match,) = scan(cli, write_capture(tmp_path / "x.mtrace", stream), rules)
    assert (match["rule"], match["pattern"], match["length"]) == ("start", None, 2 * PAGE_BYTES)
    assert match["address"] == hex(BASE + PAGE_BYTES)


def test_long_stretches_are_scanned_in_pieces_and_lose_no_border(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stretches, "STRETCH_PAGES", 2)
    stream = RecordStream()
    flip(stream, BASE, *map(page_bytes, range(1, 6)))
    with Capture(write_capture(tmp_path / "x.mtrace", stream)) as capture:
        pieces = list(Walk(capture.relations).stretches(capture.row_numbers()))
    assert pieces == [Stretch((0, 1, 2), 2, 4), Stretch((2, 3, 4), 2, 4), Stretch((4,), 1, 4)]


def test_filters_choose_what_is_scanned(cli: CommandLine, tmp_path: Path, rules: Path) -> None:
    stream = RecordStream()
    flip(stream, BASE, WITH_WORD)
    flip(stream, BASE + 8 * PAGE_BYTES, page((8, b"needle"), seed=4))
    capture = write_capture(tmp_path / "x.mtrace", stream)
    assert len(scan(cli, capture, rules)) == 2
    assert found(scan(cli, capture, rules, "--address", hex(BASE))) == [("word", BASE + 100, 6)]
    assert len(scan(cli, capture, rules, "--limit", 1)) == 1


def test_table_prints_nothing_hostile(cli: CommandLine, tmp_path: Path, rules: Path) -> None:
    stream = RecordStream(comm=HOSTILE_COMM)
    flip(stream, BASE, WITH_WORD)
    ran = cli("scan", write_capture(tmp_path / "x.mtrace", stream), "--rules", rules)
    heading, row = ran.out.splitlines()
    assert heading.split()[:6] == ["TIME", "PID", "COMM", "ADDRESS", "SIZE", "RULE"]
    assert row.isprintable()
    assert row.split()[3:13] == [hex(BASE + 100), "6", "word", "$w", *["6e", "65", "65", "64", "6c", "65"]]


def test_mistake_in_a_rule_is_shown_with_line_and_column(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yar"
    path.write_text(
        "rule fine { condition: true }\nrule wrong {\n  condition: nonsense\n}\nrule more { condition: x }"
    )
    stream = RecordStream()
    stream.flip(1)
    ran = cli("--verbose", "scan", write_capture(tmp_path / "x.mtrace", stream), "--rules", path)
    first, *others = ran.err.splitlines()
    assert (ran.status, ran.out) == (2, "")
    assert f"{path}:3:14: unknown identifier `nonsense`" in first
    assert any(f"{path}:5:24" in line for line in others)


def test_directory_of_rules_is_read_whole(cli: CommandLine, tmp_path: Path) -> None:
    directory = tmp_path / "rules"
    directory.mkdir()
    (directory / "a.yar").write_text('rule a { strings: $w = "needle" condition: $w }')
    (directory / "b.yara").write_text('rule a { strings: $w = "eedl" condition: $w }')
    (directory / "readme.txt").write_text("not a rule")
    stream = RecordStream()
    flip(stream, BASE, WITH_WORD)
    matches = scan(cli, write_capture(tmp_path / "x.mtrace", stream), directory)
    assert [(match["namespace"], match["rule"]) for match in matches] == [("a", "a"), ("b", "a")]


def test_sarif_is_one_document_that_names_rule_and_place(
    cli: CommandLine, tmp_path: Path, rules: Path
) -> None:
    stream = RecordStream()
    flip(stream, BASE, WITH_WORD, page((7, b"needle"), seed=5))
    capture = write_capture(tmp_path / "x.mtrace", stream)
    document = json.loads(cli("scan", capture, "--rules", rules, "--sarif").out)
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert ids == ["rules.word", "rules.two", "rules.start"]
    assert [result["ruleId"] for result in run["results"]] == ["rules.word"] * 2
    place = run["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == capture.as_uri()
    assert place["address"] == {"absoluteAddress": BASE + 100, "length": 6}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what sarif-tools imports
def test_sarif_opens_in_sarif_tools(cli: CommandLine, tmp_path: Path, rules: Path) -> None:
    loader = pytest.importorskip("sarif.loader")
    stream = RecordStream()
    flip(stream, BASE, WITH_WORD)
    path = tmp_path / "x.sarif"
    path.write_text(
        cli("scan", write_capture(tmp_path / "x.mtrace", stream), "--rules", rules, "--sarif").out
    )
    (record,) = loader.load_sarif_file(str(path)).get_records()
    assert (record["Tool"], record["Severity"], record["Code"]) == ("memory-tracer", "warning", "rules.word")
    assert f"word ($w) at {BASE + 100:#x}" in record["Description"]


def test_sarif_without_matches_is_a_document_too(cli: CommandLine, tmp_path: Path, rules: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    ran = cli("scan", write_capture(tmp_path / "x.mtrace", stream), "--rules", rules, "--sarif")
    assert json.loads(ran.out)["runs"][0]["results"] == []


def test_damaged_page_is_said(cli: CommandLine, tmp_path: Path, rules: Path) -> None:
    stream = RecordStream()
    flip(stream, BASE, WITH_WORD)
    capture = write_capture(tmp_path / "x.mtrace", stream)
    content = capture.read_bytes()
    capture.write_bytes(content.replace(b"needle", b"haynot"))
    ran = cli("scan", capture, "--rules", rules)
    assert (ran.status, ran.out) == (1, "")
    assert "1 damaged page" in ran.err

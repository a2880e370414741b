"""The three tables: what they show, their filters, their JSON, hostile names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from memory_tracer.model import EventKind
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, PID, RecordStream, page_bytes, write_capture
from .scenario import (
    CHILD_PID,
    DEVICE,
    HOSTILE_COMM,
    HOSTILE_PATH,
    INODE,
    PACKED,
    PROGRAM,
    CommandLine,
    whole_scenario,
)

VERBS = ("events", "regions", "pages")
JSON_PAGE = Path(__file__).parents[2] / "docs" / "json.md"


def rows(out: str) -> list[list[str]]:
    """Split the lines of a table, heading first, into cells."""
    return [re.split(r" {2,}", line.strip()) for line in out.splitlines()]


def test_events_are_in_order_with_what_they_did(cli: CommandLine, hostile: Path) -> None:
    heading, *events = rows(cli("events", hostile).out)
    assert heading == ["TIME", "PID", "TID", "COMM", "EVENT", "ADDRESS", "SIZE", "PROT", "RESULT", "BACKING"]
    assert [event[4] for event in events] == [
        *("fork", "exec", "exec_mapping", "mprotect", "mprotect", "mmap", "mprotect", "exit"),
        *("fork", "mprotect"),
    ]
    assert events[4][5:] == [hex(BASE), "4 KiB", "rw- > r-x", "0", "anonymous"]
    assert events[5][5:9] == [hex(PACKED), "16 KiB", "--- > rwx", hex(PACKED)]
    assert events[6][8] == "ENOMEM"
    assert events[7][8] == "killed by SIGKILL"


def test_regions_show_generations_and_what_is_missing(cli: CommandLine, hostile: Path) -> None:
    heading, *regions = rows(cli("regions", hostile).out)
    shown = [dict(zip(heading, region, strict=True)) for region in regions]
    assert [(row["PID"], row["ADDRESS"]) for row in shown] == [
        (str(PID), hex(PROGRAM)),
        (str(PID), hex(BASE)),
        (str(PID), hex(PACKED)),
        (str(CHILD_PID), hex(BASE)),
    ]
    assert [row["GENERATIONS"] for row in shown] == ["0", "2", "1", "1"]
    assert shown[2]["PROT"] == "rwx"
    assert shown[2]["MISSING"] == "2"


def test_pages_show_digests_or_why_there_is_none(cli: CommandLine, hostile: Path) -> None:
    heading, *pages = rows(cli("pages", hostile).out)
    shown = [dict(zip(heading, page, strict=True)) for page in pages]
    assert [row["GENERATION"] for row in shown] == ["1", "2", "1", "0", "0", "1"]
    assert [row["SHA-256"] for row in shown[3:5]] == ["missing: swapped"] * 2
    assert all(re.fullmatch("[0-9a-f]{64}", row["SHA-256"]) for row in (*shown[:3], shown[5]))


def test_pages_without_bytes_can_be_left_out(cli: CommandLine, hostile: Path) -> None:
    assert len(cli("pages", hostile, "--no-missing").out.splitlines()) == 1 + 4


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--pid", CHILD_PID], {(CHILD_PID, BASE)}),
        (["--pid", PID, "--pid", CHILD_PID, "--address", hex(BASE)], {(PID, BASE), (CHILD_PID, BASE)}),
        (["--address", f"{PACKED + PAGE_BYTES:#x}+1"], {(PID, PACKED)}),
        (["--protection", "wx"], {(PID, PACKED)}),
        (["--event", "exec_mapping"], {(PID, PROGRAM)}),
        (["--path", "name"], {(PID, PROGRAM)}),
        (["--exclude-file-backed", "--until", "1.000005"], {(PID, BASE)}),
        (["--since", "1.00000901"], {(CHILD_PID, BASE)}),
    ],
    ids=["pid", "pids-and-address", "inside", "protection", "event", "path", "until", "since"],
)
def test_filters_choose_regions(
    cli: CommandLine, hostile: Path, arguments: list[object], expected: set[tuple[int, int]]
) -> None:
    regions = cli("regions", hostile, "--json", *arguments).objects()
    assert {(region["pid"], int(region["region"]["start"], 16)) for region in regions} == expected


@pytest.mark.parametrize("verb", VERBS)
def test_limit_bounds_table_and_json_alike(cli: CommandLine, hostile: Path, verb: str) -> None:
    assert len(cli(verb, hostile, "--limit", "2").out.splitlines()) == 1 + 2
    assert len(cli(verb, hostile, "--limit", "2", "--json").objects()) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_json_has_exactly_the_documented_keys(cli: CommandLine, hostile: Path, verb: str) -> None:
    kind = verb.removesuffix("s")
    line = next(line for line in JSON_PAGE.read_text().splitlines() if line.startswith(f"| `{kind}` |"))
    documented = re.findall(r"`(\w+)`", re.split("; (?:in|with) `", line)[0])[1:]
    objects = cli(verb, hostile, "--json").objects()
    assert {tuple(value) for value in objects} == {tuple(documented)}
    assert {value["type"] for value in objects} == {kind}


def test_json_keeps_names_exactly_and_is_ascii(cli: CommandLine, hostile: Path) -> None:
    ran = cli("regions", hostile, "--json")
    assert ran.out.isascii()
    regions = ran.objects()
    assert regions[0]["region"]["path"].encode(errors="surrogateescape") == HOSTILE_PATH
    assert regions[3]["comm"].encode(errors="surrogateescape") == HOSTILE_COMM


@pytest.mark.parametrize("verb", [*VERBS, "report", "verify"])
def test_hostile_names_reach_the_terminal_spelled_out(cli: CommandLine, hostile: Path, verb: str) -> None:
    ran = cli(verb, hostile)
    assert all(line.isprintable() for line in (ran.out + ran.err).splitlines())


@pytest.mark.parametrize("verb", VERBS)
def test_incomplete_capture_is_said_to_be_so_beside_every_table(
    cli: CommandLine, hostile: Path, verb: str
) -> None:
    for arguments in ([], ["--json"]):
        assert "this capture is incomplete" in cli(verb, hostile, *arguments).err


@pytest.mark.parametrize("verb", VERBS)
def test_complete_capture_needs_no_remark(cli: CommandLine, tmp_path: Path, verb: str) -> None:
    capture = write_capture(tmp_path / "whole.mtrace", whole_scenario())
    ran = cli(verb, capture)
    assert (ran.status, ran.err) == (0, "")


@pytest.mark.parametrize("verb", VERBS)
def test_table_without_rows_says_why(cli: CommandLine, tmp_path: Path, verb: str) -> None:
    empty = write_capture(tmp_path / "empty.mtrace", RecordStream())
    ran = cli(verb, empty)
    assert (ran.out, ran.err) == ("", f"memory-tracer: the capture holds no {verb}\n")
    whole = write_capture(tmp_path / "whole.mtrace", whole_scenario())
    assert cli(verb, whole, "--pid", "1").err == f"memory-tracer: no {verb} match\n"


def test_range_of_no_length_in_time_is_a_usage_error(cli: CommandLine, hostile: Path) -> None:
    ran = cli("events", hostile, "--since", "2", "--until", "1")
    assert ran.status == 2
    assert ran.err == "memory-tracer: the time range ends before it starts\n"


def test_json_is_one_object_per_line_that_parses(cli: CommandLine, hostile: Path) -> None:
    for verb in VERBS:
        ran = cli(verb, hostile, "--json")
        assert len(ran.objects()) == ran.out.count("\n")


@pytest.fixture
def called(tmp_path: Path) -> Path:
    """A page that is executed, called for from a library with a hostile name."""
    stream = RecordStream()
    stream.event(EventKind.EXEC_MAPPING, PROGRAM, 4, inode=INODE, device=DEVICE, file_offset=0x2000)
    stream.path(DEVICE, INODE, HOSTILE_PATH)
    stream.flip(1)
    cause = stream.event(caller_ip=PROGRAM + 0x123)
    stream.stack(cause, PROGRAM + 0x123, BASE + 9, 0x1234)
    stream.page(cause, page_bytes(2))
    stream.event(EventKind.MUNMAP, protection=0, caller_ip=BASE)
    stream.flip(3)
    return write_capture(tmp_path / "called.mtrace", stream)


def test_events_show_each_frame_as_file_and_offset(cli: CommandLine, called: Path) -> None:
    heading, *lines = cli("events", called, "--stack", "--event", "mprotect").out.splitlines()
    assert heading.endswith("BACKING    STACK")
    assert all(line.isprintable() for line in lines)
    column = heading.index("STACK")
    hostile = "/tmp/\\x1b]0;owned\\x07\\u202ename"
    assert [line[column:] for line in lines] == [
        "-",
        f"{PROGRAM + 0x123:#x} {hostile}+0x2123",
        f"{BASE + 9:#x} anonymous {BASE:#x}+0x9",
        "0x1234",
        "-",
    ]
    assert [line[:column].strip() for line in lines[2:4]] == ["", ""]
    assert len(cli("events", called, "--stack", "--limit", "3").out.splitlines()) == 1 + 3 + 2


def test_events_as_json_have_the_stack_and_on_request_what_it_lies_in(cli: CommandLine, called: Path) -> None:
    stacks = [event["stack"] for event in cli("events", called, "--json").objects()]
    assert stacks == [[], [], [hex(PROGRAM + 0x123), hex(BASE + 9), "0x1234"], [], []]
    event = cli("events", called, "--json", "--stack").objects()[2]
    library, code, unknown = event["frames"]
    assert (library["offset"], library["mapping"]["inode"]) == (0x2123, INODE)
    assert (code["offset"], code["mapping"]["path"]) == (9, None)
    assert unknown == {"address": "0x1234", "offset": None, "mapping": None}


def test_pages_show_how_they_are_known_to_have_been_executed(cli: CommandLine, called: Path) -> None:
    heading, *pages = rows(cli("pages", called).out)
    assert [page[heading.index("EXECUTED")] for page in pages] == ["-", "caller,stack", "-"]
    (only,) = cli("pages", called, "--executed", "--json").objects()
    assert (only["generation"], only["evidence"]) == (2, ["caller", "stack"])


def test_regions_show_what_brought_them_and_whether_there_are_gaps(
    cli: CommandLine, called: Path, hostile: Path
) -> None:
    heading, *regions = rows(cli("regions", called, "--exclude-file-backed").out)
    shown = [dict(zip(heading, region, strict=True)) for region in regions]
    assert [(row["EXECUTED"], row["HISTORY"]) for row in shown] == [("caller,stack", "calls 4")]
    heading, *regions = rows(cli("regions", hostile).out)
    shown = [dict(zip(heading, region, strict=True)) for region in regions]
    assert [row["HISTORY"] for row in shown] == ["found 1", "calls 2", "calls 1, gaps", "calls 1"]


def test_callers_are_named_by_file_and_offset(cli: CommandLine, called: Path) -> None:
    (region,) = cli("regions", called, "--json", "--exclude-file-backed").objects()
    assert (region["caller"], region["caller_event"]) == (hex(PROGRAM + 0x123), 4)
    name = "\\x1b]0;owned\\x07\\u202ename"
    assert f"# first made executable by /tmp/{name}+0x2123" in cli("show", called, hex(BASE)).out
    assert f"called from {name[:19]}…+0x2123" in cli("report", called).out

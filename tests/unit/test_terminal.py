"""Text made harmless, numbers made readable, tables."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_tracer import terminal
from memory_tracer.terminal import Column, clean


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name", "plain name"),
        ("größe 日本", "größe 日本"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\u009b31m"),
        ("two\nlines\r", r"two\x0alines\x0d"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("\U000e0041", r"\U000e0041"),
        (b"\xff\x80".decode(errors="surrogateescape"), r"\xff\x80"),
        (r"\x1b", r"\\x1b"),
    ],
    ids=["ascii", "letters", "escape", "c1", "newline", "bidi", "zero-width", "tag", "bytes", "backslash"],
)
def test_clean_spells_out_what_could_act_on_a_terminal(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(st.characters(codec=None)))
def test_clean_text_is_printable_whatever_it_was(text: str) -> None:
    assert clean(text).isprintable()


@given(st.text(max_size=40), st.text(max_size=40))
def test_clean_keeps_different_texts_different(one: str, other: str) -> None:
    assert (clean(one) == clean(other)) == (one == other)


def test_clean_bounds_the_length() -> None:
    assert clean("a" * 100, 10) == "a" * 10 + "…"
    assert len(clean("\x1b" * 10**6)) < 5 * terminal.TEXT_LIMIT


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (4096, "4 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (1 << 30, "1 GiB"),
        (1 << 47, "128 TiB"),
        (1 << 77, "1.311e+05 EiB"),
    ],
)
def test_sizes_are_in_binary_units(size: int, text: str) -> None:
    assert terminal.format_size(size) == text


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (1_500_000, "1.5 ms"),
        (1_240_000_000, "1.2 s"),
        (123_000_000_000, "2 min 3 s"),
        (3_900_000_000_000, "1 h 5 min"),
    ],
)
def test_durations_are_for_people(nanoseconds: int, text: str) -> None:
    assert terminal.format_duration(nanoseconds) == text


def test_seconds_are_exact() -> None:
    assert terminal.format_seconds(1_234_567_891) == "1.234567891"
    assert terminal.format_seconds(-1) == "-0.000000001"


def test_counts_agree_with_their_noun() -> None:
    assert [terminal.format_count(n, "page") for n in (0, 1, 12_000)] == ["0 pages", "1 page", "12,000 pages"]
    assert terminal.format_count(2, "process", "processes") == "2 processes"


COLUMNS = (Column("N", right=True), Column("NAME", style="red"), Column("REST"))


def test_table_is_aligned_plain_text_of_full_width_away_from_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [("1", "日本", "x" * 300), ("10", "a", "-")]
    assert terminal.print_table(COLUMNS, rows) == 2
    assert capsys.readouterr().out.splitlines() == [
        " N  NAME  REST",
        " 1  日本  " + "x" * 300,
        "10  a     -",
    ]


def test_table_without_rows_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.print_table(COLUMNS, []) == 0
    assert capsys.readouterr().out == ""


def test_table_prints_rows_beyond_those_measured(capsys: pytest.CaptureFixture[str]) -> None:
    count = terminal.ROWS_MEASURED + 7
    assert terminal.print_table(COLUMNS, ((str(n), "a", "b") for n in range(count))) == count
    assert len(capsys.readouterr().out.splitlines()) == count + 1


class Screen(io.StringIO):
    """A terminal, as far as a program can tell."""

    def isatty(self) -> bool:
        return True


def print_on_screen(monkeypatch: pytest.MonkeyPatch, row: tuple[str, str, str]) -> list[str]:
    """Print a table of one row on a terminal of 40 columns."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    with monkeypatch.context() as patch:
        stream = Screen()
        patch.setattr(sys, "stdout", stream)
        terminal.print_table(COLUMNS, [row])
    return stream.getvalue().splitlines()


def test_table_is_coloured_and_cut_to_the_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, line = print_on_screen(monkeypatch, ("1", "name", "x" * 300))
    assert "\x1b[31mname\x1b[0m" in line
    assert line.rstrip().endswith("…")
    assert line.count("x") < 40


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    _, line = print_on_screen(monkeypatch, ("1", "name", "rest"))
    assert "\x1b[31m" not in line


@pytest.mark.parametrize("total", [None, 3])
def test_progress_passes_everything_on_and_leaves_no_trace(
    total: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Screen()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(terminal, "PROGRESS_DELAY", 0.0)
    assert list(terminal.progress(iter("abc"), "reading", total)) == ["a", "b", "c"]
    shown = stream.getvalue()
    assert ("reading 66 %" if total else "reading 2") in shown
    assert shown.endswith(" \r")

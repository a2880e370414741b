"""Addresses, times and protections as they are typed."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_tracer.cli.arguments import AddressRange, Number, ProtectionBits, Seconds
from memory_tracer.model import Protection
from memory_tracer.terminal import format_seconds

from .scenario import CommandLine

ADDRESS = 0x7F00AA550000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0x7f00aa550000", (ADDRESS, ADDRESS + 1)),
        (str(ADDRESS), (ADDRESS, ADDRESS + 1)),
        ("0x7f00aa550000-0x7f00aa551000", (ADDRESS, ADDRESS + 4096)),
        ("0x7f00aa550000+4096", (ADDRESS, ADDRESS + 4096)),
        ("0x7F00AA550000+0x10", (ADDRESS, ADDRESS + 16)),
    ],
)
def test_address_is_a_number_a_range_or_a_start_and_a_size(text: str, expected: tuple[int, int]) -> None:
    assert AddressRange().convert(text, None, None) == expected


@pytest.mark.parametrize(
    "text", ["", "0x", "-", "-5", "0x2000-0x1000", "5+0", "1-2-3", "0x1_0", "٣", "0x" + "f" * 17]
)
def test_address_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        AddressRange().convert(text, None, None)


def test_bare_hexadecimal_is_refused_with_the_form_that_works() -> None:
    with pytest.raises(click.BadParameter, match="start with 0x: 0x7f00aa550000"):
        Number().convert("7f00aa550000", None, None)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1.5", 1_500_000_000),
        ("0", 0),
        (".25", 250_000_000),
        ("-1", -1_000_000_000),
        ("1.234567891", 1_234_567_891),
    ],
)
def test_seconds_become_nanoseconds(text: str, nanoseconds: int) -> None:
    assert Seconds().convert(text, None, None) == nanoseconds


@given(st.integers(min_value=-(2**64), max_value=2**64))
def test_time_that_a_table_shows_can_be_typed_back(nanoseconds: int) -> None:
    assert Seconds().convert(format_seconds(nanoseconds), None, None) == nanoseconds


@pytest.mark.parametrize("text", ["", ".", "-", "nan", "inf", "1e9", "1.0000000001", "9" * 400])
def test_time_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Seconds().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("x", Protection.EXEC),
        ("wx", Protection.WRITE | Protection.EXEC),
        ("r-x", Protection.READ | Protection.EXEC),
    ],
)
def test_protection_is_its_letters(text: str, bits: Protection) -> None:
    assert ProtectionBits().convert(text, None, None) == bits


@pytest.mark.parametrize("text", ["", "---", "rq", "X"])
def test_protection_of_other_letters_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        ProtectionBits().convert(text, None, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--address", "5+0"],
        ["--event", "mprotec"],
        ["--since", "soon"],
        ["--protection", "q"],
        ["--limit", "0"],
        ["--pid", "-1"],
    ],
)
@pytest.mark.parametrize("verb", ["events", "regions", "pages"])
def test_filter_that_means_nothing_exits_with_2(
    cli: CommandLine, hostile: Path, verb: str, arguments: list[str]
) -> None:
    ran = cli(verb, hostile, *arguments)
    assert ran.status == 2
    assert f"Invalid value for '{arguments[0]}'" in ran.err

"""What needs an extra says which, in one sentence, where it is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import memory_tracer as mt

from .scenario import CommandLine


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("yara_x", "scan", ("scan", "FILE")),
        ("pyarrow", "parquet", ("export", "FILE", "--format", "parquet", "-o", "OUT")),
    ],
)
def test_missing_extra_is_named(
    cli: CommandLine,
    hostile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    extra: str,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # importing it then fails
    paths = {"FILE": hostile, "OUT": tmp_path / "out"}
    ran = cli(*(paths.get(argument, argument) for argument in arguments))
    (sentence,) = ran.err.splitlines()
    assert (ran.status, ran.out) == (1, "")
    assert f"pip install 'memory-tracer[{extra}]'" in sentence
    assert not (tmp_path / "out").exists()


def test_frames_name_the_package_they_need(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with mt.open_capture(hostile) as capture, pytest.raises(mt.MissingExtraError, match="pip install polars"):
        capture.to_polars()

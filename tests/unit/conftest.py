"""What the tests of the views share."""

from __future__ import annotations

from pathlib import Path

import pytest

from .scenario import CommandLine, hostile_scenario


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line, run in this process."""
    return CommandLine(capsys)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """The capture of ``scenario.hostile_scenario``."""
    return hostile_scenario(tmp_path / "hostile.mtrace")

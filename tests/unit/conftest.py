"""What the tests of the views share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from .scenario import CommandLine, hostile_scenario

#: How long an example takes is the machine's business, which others use too.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line, run in this process."""
    return CommandLine(capsys)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """The capture of ``scenario.hostile_scenario``."""
    return hostile_scenario(tmp_path / "hostile.mtrace")

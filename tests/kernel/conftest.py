"""Fixtures for tests that record: all of them need the right to load BPF programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workloads import Workloads

from .recording import Recorder


@pytest.fixture
def recorder(tmp_path: Path, workloads: Workloads) -> Recorder:
    """Records commands into the test's own directory."""
    return Recorder(tmp_path, workloads)


@pytest.fixture(scope="module")
def recorders(tmp_path_factory: pytest.TempPathFactory, workloads: Workloads) -> Recorder:
    """Records commands that several tests of a module look at."""
    return Recorder(tmp_path_factory.mktemp("recordings"), workloads)

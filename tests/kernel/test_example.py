"""The example of the Python interface does what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.workloads import PAGE_SIZE

from .recording import execute

pytestmark = pytest.mark.privileged

EXAMPLE = Path(__file__).parents[2] / "examples" / "unpack.py"


def test_example_unpacks_the_bundled_sample(tmp_path: Path) -> None:
    output = tmp_path / "unpacked"
    ran = execute([sys.executable, EXAMPLE, output], cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert b"the sample ended with status 0" in ran.out
    unpacked = output.read_bytes()
    assert len(unpacked) == PAGE_SIZE
    assert b"This code was never in the file.\n" in unpacked
    assert not (tmp_path / "sample").exists()

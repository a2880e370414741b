"""Captures of every format version that was ever written still read exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from memory_tracer.capture.certificate import verify
from memory_tracer.capture.format import FORMAT_VERSION
from memory_tracer.capture.reader import open_capture
from memory_tracer.model import EventKind, Missing
from tests.golden.make_golden import CHILD, write_golden
from tests.unit.builders import BASE, PID, page_bytes

GOLDEN = Path(__file__).parent.parent / "golden"


def stored(version: int) -> Path:
    return GOLDEN / f"version-{version}.mtrace"


@pytest.fixture(params=["stored", "written now"])
def version_1(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The capture that was kept, and the same written by the current code while it has that version."""
    if request.param == "stored":
        return stored(1)
    if FORMAT_VERSION != 1:
        pytest.skip("the writer writes a later version")
    write_golden(tmp_path / "c.mtrace")
    return tmp_path / "c.mtrace"


def test_every_version_has_a_golden_file() -> None:
    assert all(stored(version).is_file() for version in range(1, FORMAT_VERSION + 1))


def test_version_1_reads_exactly(version_1: Path) -> None:
    with open_capture(version_1) as capture:
        assert [(event.sequence, event.pid, event.kind) for event in capture.events()] == [
            (1, PID, EventKind.EXEC),
            (3, PID, EventKind.MPROTECT),
            (6, PID, EventKind.MPROTECT),
            (9, PID, EventKind.MPROTECT),
            (12, PID, EventKind.MMAP),
            (17, CHILD, EventKind.FORK),
            (18, CHILD, EventKind.MUNMAP),
            (19, CHILD, EventKind.EXIT),
        ]
        contents = [
            (page.sequence, page.address - BASE, page.content, page.missing) for page in capture.pages()
        ]
        assert contents == [
            (4, 0, page_bytes(1), None),
            (5, 0x1000, page_bytes(3), None),
            (7, 0, page_bytes(2), None),
            (8, 0x1000, page_bytes(3), None),
            (10, 0, page_bytes(1), None),
            (11, 0x1000, page_bytes(3), None),
            (13, 0x10000, None, Missing.LIMIT),
            (14, 0x12000, None, Missing.DEFERRED),
            (16, 0x11000, page_bytes(1), None),
        ]
        assert [page.generation for page in capture.pages()] == [1, 1, 2, 1, 1, 1, 0, 0, 1]
        sample, child = capture.processes
        assert (sample.path, sample.command_line) == ("/usr/bin/sample", ("sample", "--flag"))
        assert (child.parent_pid, child.wait_status) == (PID, 256)
        losses = [(loss.reason, loss.count) for loss in capture.losses]
        assert losses == [("deferred", 1), ("limit", 1), ("unwatched-writes", 1)]
        assert capture.metadata["command"] == ["./sample"]
        assert capture.end is not None
        assert (capture.end["reason"], capture.end["wait_status"]) == ("command-ended", 256)
        certificate = verify(capture)
    assert (certificate.damaged, certificate.checked_pages) == ((), 3)

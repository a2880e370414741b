"""The generator of large captures, and the document whose section about them is replaced alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import memory_tracer as mt
from benchmarks import document
from benchmarks.large import write_large

from .scenario import CommandLine


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.mtrace"
    write_large(path, 8192)
    return path


def test_generated_capture_is_complete_and_has_what_real_ones_have(large: Path) -> None:
    with mt.open_capture(large) as capture:
        assert capture.complete
        assert capture.page_count == 8192
        assert 4096 < capture.unique_pages < 8192
        assert len(capture.processes) == 64
        histories = [history for history in capture.regions() if history.pages]
        assert max(history.generations for history in histories) == 8
        assert capture.stack_at(next(capture.events(kinds=[mt.EventKind.MPROTECT])).sequence)


def test_every_byte_of_a_generated_capture_is_what_its_hash_says(cli: CommandLine, large: Path) -> None:
    ran = cli("verify", large)
    assert (ran.status, "COMPLETE" in ran.out) == (0, True)


def test_one_section_of_the_document_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "benchmarks.md"
    monkeypatch.setattr(document, "DOCUMENT", path)
    path.write_text("# Benchmarks\n\n## Flips\n\nfast\n\n## What to keep in mind\n\n- noise\n")
    document.write_section("Reading", "## Reading\n\nslow\n")
    document.write_section("Reading", "## Reading\n\nfaster\n")
    assert path.read_text() == (
        "# Benchmarks\n\n## Flips\n\nfast\n\n## Reading\n\nfaster\n\n## What to keep in mind\n\n- noise\n"
    )
    document.write_document(
        "# Benchmarks\n\n## Flips\n\nfaster\n\n## What to keep in mind\n\n- noise\n", "Reading"
    )
    assert "## Flips\n\nfaster\n\n## Reading\n\nfaster\n\n## What" in path.read_text()

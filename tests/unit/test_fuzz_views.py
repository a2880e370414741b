"""Every view and export of captures whose values are wrong behind checksums that are right.

``test_capture_damage`` does the same to the reader. A longer search, of so many examples for each view:

    MEMORY_TRACER_FUZZ=2000 python -m pytest tests/unit/test_fuzz_views.py
"""

from __future__ import annotations

import io
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_tracer.capture.format import ChunkType
from memory_tracer.cli.main import main

from .builders import BASE, PID
from .scenario import hostile_scenario
from .test_capture_damage import INTERESTING, patched, resealed, spans

EXAMPLES = int(os.environ.get("MEMORY_TRACER_FUZZ", "20"))

#: What this process may map beyond what it has: no view of a capture of some pages may need more.
MEMORY_BOUND = 2 << 30

Edit = tuple[ChunkType, int, int, int, str]

EDITS = st.lists(
    st.tuples(
        st.sampled_from([ChunkType.RECORDS, ChunkType.PAGES, ChunkType.COUNTERS, ChunkType.END]),
        st.integers(0, 7),
        st.integers(0, 1 << 16),
        st.integers(0, (1 << 64) - 1) | INTERESTING,
        st.sampled_from(["<Q", "<I", "<H", "<B"]),
    ),
    min_size=1,
    max_size=6,
)

VIEWS = [
    ("report",),
    ("report", "--all"),
    ("report", "--json"),
    ("verify",),
    ("events",),
    ("events", "--json"),
    ("pages",),
    ("pages", "--json"),
    ("regions",),
    ("regions", "--json"),
]
EXPORTS = ["elf", "core", "raw", "jsonl"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return hostile_scenario(tmp_path_factory.mktemp("fuzz") / "c.mtrace").read_bytes()


@pytest.fixture
def bounded() -> Iterator[None]:
    """Let an allocation beyond the bound fail, as MemoryError."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BOUND, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def edited(original: bytes, edits: list[Edit]) -> bytes:
    data = original
    for kind, which, place, value, width in edits:
        candidates = [span for span in spans(original) if span.type == kind]
        span = candidates[which % len(candidates)]
        size = struct.calcsize(width)
        offset = span.payload + place * size % (span.payload_end - span.payload - size + 1)
        data = patched(data, offset, struct.pack(width, value & ((1 << 8 * size) - 1)))
    return resealed(data)


def check(data: bytes, *view: str, output: bool = False) -> None:
    """Run ``view`` of ``data``: it prints, or refuses in one line. Any other exception is the finding."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "c.mtrace"
        path.write_bytes(data)
        out, err = io.StringIO(), io.StringIO()
        arguments = [view[0], str(path), *view[1:]]
        if output:
            arguments += ["-o", str(Path(directory) / "out")]
        with redirect_stdout(out), redirect_stderr(err):
            status = main(arguments)
    assert status in {0, 1, 2}, (status, err.getvalue())
    assert "Traceback" not in err.getvalue()
    assert "\x1b" not in out.getvalue() + err.getvalue()
    assert status == 0 or err.getvalue() or out.getvalue(), "it fails, and says nothing"


untimed = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("view", VIEWS, ids=" ".join)
@untimed
@given(edits=EDITS)
def test_no_view_breaks_on_wrong_values(original: bytes, view: tuple[str, ...], edits: list[Edit]) -> None:
    check(edited(original, edits), *view)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("form", EXPORTS)
@untimed
@given(edits=EDITS)
def test_no_export_breaks_on_wrong_values(original: bytes, form: str, edits: list[Edit]) -> None:
    check(edited(original, edits), "export", "--format", form, output=True)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("form", ["--hex", "--disasm"])
@untimed
@given(edits=EDITS)
def test_show_does_not_break_on_wrong_values(original: bytes, form: str, edits: list[Edit]) -> None:
    check(edited(original, edits), "show", hex(BASE), "--pid", str(PID), form, "--size", "4096")


@pytest.mark.usefixtures("bounded")
@untimed
@given(edits=EDITS)
def test_the_page_does_not_break_on_wrong_values(original: bytes, edits: list[Edit]) -> None:
    check(edited(original, edits), "html", output=True)

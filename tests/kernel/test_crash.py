"""The tracer dies: the capture opens and holds what had arrived, the target lives, nothing is left."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from memory_tracer import CaptureError, EventKind, open_capture
from memory_tracer.capture.certificate import verify
from memory_tracer.capture.format import ALIGNMENT, CHUNK_MAGIC
from tests.workloads import PAGE_SIZE, Executable, Workloads, parse, random_pages

from .loaded import await_unloaded, ids_held_by
from .recording import (
    TOOL,
    Recorder,
    Recording,
    await_pages,
    await_that,
    end_of,
    execute,
    line_from,
    line_to,
    running,
    tool,
)

pytestmark = pytest.mark.privileged

SEED = 15485863


def test_kill_of_the_tracer_leaves_what_was_written_and_a_living_target(
    recorder: Recorder, workloads: Workloads
) -> None:
    # GIVEN a recording of a target that has made code and waits
    path = recorder.new_path()
    target = (workloads.path("wait_then_flip"), recorder.directory, SEED)
    with running(*TOOL, "run", "-o", path, "--", *target) as process:
        steps = list(parse(line_from(process) for _ in range(4)))
        await_pages(path, 6)
        held = ids_held_by(process.pid)
        assert held
        with open_capture(path) as capture:
            assert capture.recording is True
        # WHEN the tracer is killed
        process.send_signal(signal.SIGKILL)
        # THEN the target goes on and ends by itself
        line_to(process)
        (after,) = parse([line_from(process)])
        assert isinstance(after, Executable)
        line_to(process)
        assert end_of(process).status == -signal.SIGKILL
    await_unloaded(held)
    # AND the capture opens, has what had arrived, and says that it was not closed
    with open_capture(path) as capture:
        for flip in (step for step in steps if isinstance(step, Executable)):
            for address, content in flip.pages.items():
                assert capture.read(flip.pid, address, PAGE_SIZE) == content
        assert (capture.end, capture.recording) == (None, False)
        # The memfd and the deleted file are shared.
        assert [loss.reason for loss in capture.losses] == ["unwatched-writes", "not-closed"]
    verify = tool("verify", path)
    assert verify.status == 1
    assert "not closed" in verify.out.decode()
    assert tool("report", path).status == 0


def test_kill_of_the_tracer_in_a_flood_of_pages_leaves_those_that_were_written(
    recorder: Recorder, workloads: Workloads
) -> None:
    # GIVEN a target that makes far more executable at once than the ring holds
    path = recorder.new_path()
    options = ("--ring-size", "8M", "--lossless", "-o", path)
    with running(*TOOL, "run", *options, "--", workloads.path("big"), 128, SEED) as process:
        # WHEN the tracer is killed in the middle of it
        await_that(lambda: path.exists() and path.stat().st_size > 16 << 20, "content was written")
        process.send_signal(signal.SIGKILL)
        assert end_of(process).status == -signal.SIGKILL
    # THEN what the capture holds is right
    with open_capture(path) as capture:
        assert capture.end is None
        assert not capture.complete
        assert capture.unique_pages > 0
        assert verify(capture).damaged == ()
        (flip,) = capture.events(kinds={EventKind.MPROTECT})
        assert flip.region is not None
        pages = {
            page.address: page.content for page in capture.pages(missing=False, kinds={EventKind.MPROTECT})
        }
        content = random_pages(SEED, 128 << 8)
        assert pages == {address: content[(address - flip.region.start) // PAGE_SIZE] for address in pages}


@pytest.fixture(scope="module")
def sixteen(recorders: Recorder) -> Recording:
    """A small whole capture."""
    return recorders.workload("pages16", SEED)


def chunk_starts(capture: bytes) -> list[int]:
    """Return where chunks start: at aligned places, with a magic number that no page has there."""
    return [
        place
        for place in range(ALIGNMENT, len(capture), ALIGNMENT)
        if capture[place : place + len(CHUNK_MAGIC)] == CHUNK_MAGIC
    ]


def test_capture_cut_anywhere_in_its_last_records_opens_to_the_last_whole_one(
    sixteen: Recording, tmp_path: Path
) -> None:
    whole = sixteen.path.read_bytes()
    starts = chunk_starts(whole)
    cut = tmp_path / "cut.mtrace"
    for size in range(starts[-2], len(whole)):
        cut.write_bytes(whole[:size])
        last_whole = max(start for start in [*starts, len(whole)] if start <= size)
        with open_capture(cut) as capture:
            assert capture.stored_bytes == last_whole
            assert not capture.complete
            assert (capture.truncated is None) == (size == last_whole)
            assert capture.event_count > 0


@pytest.mark.parametrize("verb", ["report", "verify", "events", "regions", "pages"])
def test_cut_capture_is_no_reason_for_a_traceback(sixteen: Recording, tmp_path: Path, verb: str) -> None:
    whole = sixteen.path.read_bytes()
    cut = tmp_path / "cut.mtrace"
    cut.write_bytes(whole[: chunk_starts(whole)[-1] + 17])
    ran = tool(verb, cut)
    assert ran.status == (1 if verb == "verify" else 0)
    assert "Traceback" not in ran.err
    assert ran.out


def test_capture_cut_before_its_first_chunk_is_still_a_capture_or_one_sentence(
    sixteen: Recording, tmp_path: Path
) -> None:
    whole = sixteen.path.read_bytes()
    cut = tmp_path / "cut.mtrace"
    for size in range(2 * ALIGNMENT + 1):
        cut.write_bytes(whole[:size])
        if size < ALIGNMENT:
            with pytest.raises(CaptureError, match=r"empty|capture"):
                open_capture(cut)
        else:
            with open_capture(cut) as capture:
                assert list(capture.events()) == []
                assert not capture.complete


@pytest.mark.parametrize("verb", ["report", "verify", "events", "regions", "pages", "export", "show"])
@pytest.mark.parametrize("head", [0, 8, 64], ids=["noise", "noise after the magic", "noise after the header"])
def test_random_bytes_are_one_sentence_or_an_incomplete_capture(
    sixteen: Recording, tmp_path: Path, verb: str, head: int
) -> None:
    noise = tmp_path / "noise.mtrace"
    noise.write_bytes(sixteen.path.read_bytes()[:head] + random.Random(SEED).randbytes(1 << 16))
    extra = {"show": ["0x1000"], "export": ["--format", "jsonl"]}.get(verb, [])
    ran = tool(verb, noise, *extra)
    assert "Traceback" not in ran.err
    assert ran.status == (0 if head == 64 and verb not in ("verify", "show") else 1)
    if head < 64:
        assert ran.out == b""
        assert str(noise) in ran.sentence


def test_full_disk_ends_the_recording_with_one_sentence_and_a_capture_that_opens(
    recorder: Recorder, workloads: Workloads
) -> None:
    path = recorder.new_path()
    # The limit on the size of a file stands for a full disk; the target is under it, too, and writes none.
    limit = f"ulimit -f 2048; exec {' '.join(TOOL)} run -o {path} -- {workloads.path('big')} 16 {SEED}"
    ran = execute(["sh", "-c", limit])
    assert ran.status == 1
    assert "Traceback" not in ran.err
    assert "File too large" in ran.sentence
    assert str(path) in ran.sentence
    with open_capture(path) as capture:
        assert not capture.complete
        assert capture.event_count > 0
    assert tool("verify", path).status == 1


def test_nothing_is_loaded_any_more_when_the_tool_has_ended(recorder: Recorder) -> None:
    path = recorder.new_path()
    with running(*TOOL, "run", "-o", path, "--", "sh", "-c", "echo ready; read line") as process:
        line_from(process)
        held = ids_held_by(process.pid)
        assert {kind for kind, _ in held} >= {"prog", "map"}
        assert end_of(process).status in (0, 1)
    await_unloaded(held)

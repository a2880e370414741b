"""Reading a capture while it is being written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memory_tracer.capture.reader import open_capture
from memory_tracer.capture.writer import CaptureWriter
from memory_tracer.live.watch import Watch
from memory_tracer.wire.layout import PAGE_BYTES
from tests.unit.builders import BASE, METADATA, PID, RecordStream, page_bytes


def test_refresh_takes_in_what_was_appended(tmp_path: Path) -> None:
    stream = RecordStream()
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer, open_capture(writer.path) as capture:
        assert (capture.page_count, capture.processes, capture.refresh()) == (0, (), False)

        for seed in (1, 2, 1):
            stream.flip(seed)
            writer.append(stream.take())
            assert capture.refresh()
            assert capture.read(PID, BASE, PAGE_BYTES) == page_bytes(seed)
            assert not capture.refresh()
        assert [page.generation for page in capture.pages()] == [1, 2, 1]
        assert [loss.reason for loss in capture.losses] == ["not-closed"]

        writer.counters({"kernel": {"pages": 3}})
        writer.finish(reason="targets-ended", wait_status=0)
        assert capture.refresh()
        assert capture.complete
        assert (capture.page_count, capture.event_count, capture.unique_pages) == (3, 3, 2)
        assert capture.stored_bytes == writer.bytes_written


def test_a_chunk_caught_in_the_middle_of_its_write_is_taken_when_it_is_whole(tmp_path: Path) -> None:
    stream = RecordStream()
    path, growing = tmp_path / "c.mtrace", tmp_path / "growing.mtrace"
    with CaptureWriter(path, METADATA) as writer:
        before = writer.bytes_written
        stream.flip(1)
        writer.append(stream.take())
        writer.finish(reason="targets-ended", wait_status=0)
    data = path.read_bytes()
    growing.write_bytes(data[: before + 100])

    with open_capture(growing) as capture, growing.open("ab") as file:
        assert "cut off" in str(capture.truncated)
        file.write(data[before + 100 :])
        file.flush()

        assert capture.refresh()
        assert capture.complete
        assert [page.content for page in capture.pages()] == [page_bytes(1)]


def test_what_was_handed_out_stays_valid_while_the_capture_grows(tmp_path: Path) -> None:
    stream = RecordStream()
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer, open_capture(writer.path) as capture:
        stream.flip(1, 2)
        writer.append(stream.take())
        capture.refresh()
        pages = capture.pages()
        first = next(pages)
        stream.flip(3)
        writer.append(stream.take())
        capture.refresh()

        assert [first.content, *(page.content for page in pages)] == [page_bytes(1), page_bytes(2)]


def test_closing_twice_is_allowed_and_frees_the_descriptor(tmp_path: Path) -> None:
    CaptureWriter(tmp_path / "c.mtrace", METADATA).close()
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))

    capture = open_capture(tmp_path / "c.mtrace")
    assert len(list(descriptors.iterdir())) == before + 1
    capture.close()
    capture.close()

    assert len(list(descriptors.iterdir())) == before


#: A recorder that says when it has begun, and then waits to be killed.
_RECORDER = """
import sys
from pathlib import Path
from memory_tracer.capture.writer import CaptureWriter
writer = CaptureWriter(Path(sys.argv[1]), {})
print("begun", flush=True)
sys.stdin.read()
"""


def test_a_recorder_that_was_killed_is_told_from_one_at_work(tmp_path: Path) -> None:
    path = tmp_path / "c.mtrace"
    command = [sys.executable, "-c", _RECORDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == b"begun\n"
        with open_capture(path) as capture:
            assert capture.recording is True
            # Opening and closing it elsewhere takes nothing from the recorder.
            open_capture(path).close()
            capture.refresh()
            assert capture.recording is True
            assert "still running" in capture.losses[-1].explanation
            recorder.kill()
            recorder.wait()
            assert not capture.refresh()
            assert capture.recording is False
            assert (capture.end, capture.losses[-1].reason) == (None, "not-closed")
            assert "its recorder is gone" in capture.losses[-1].explanation
        watch = Watch(path)
        summary = watch.look()
        watch.close()
    assert (summary.state, summary.finished) == ("RECORDER GONE", True)
    assert any("its recorder is gone" in loss for loss in summary.losses)


def test_the_recorder_of_a_closed_capture_is_not_at_work(tmp_path: Path) -> None:
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:
        writer.finish(reason="targets-ended", wait_status=0)
        with open_capture(writer.path) as capture:
            assert capture.recording is False


def test_of_a_recorder_that_did_not_say_that_it_locks_nothing_is_known(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "golden" / "version-1.mtrace"
    path = tmp_path / "cut.mtrace"
    with open_capture(golden) as capture:
        assert (capture.recording, capture.metadata.get("locked")) == (False, None)
    path.write_bytes(golden.read_bytes()[:-64])
    with open_capture(path) as capture:
        assert (capture.end, capture.recording) == (None, None)

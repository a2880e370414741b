"""Writing captures: one copy of each page, nobody else's files, never a torn middle."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memory_tracer.capture.certificate import verify
from memory_tracer.capture.reader import open_capture
from memory_tracer.capture.writer import RECORDS_PER_WRITE, CaptureWriter
from memory_tracer.errors import OutputError
from memory_tracer.model import EventKind, Missing
from memory_tracer.wire.layout import PAGE_BYTES, RecordType
from tests.unit.builders import BASE, METADATA, PID, RecordStream, page_bytes, write_capture


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes: to a writer, a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_equal_pages_are_stored_once(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2, 1)
    again = RecordStream(pid=PID + 1)
    again.cpu = 1
    again.flip(2, 3)

    path = write_capture(tmp_path / "c.mtrace", stream, again)

    with open_capture(path) as capture:
        assert capture.unique_pages == 3
        assert [page.content for page in capture.pages()] == [page_bytes(seed) for seed in (1, 2, 1, 2, 3)]


def test_counts_what_it_wrote(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2, 1)

    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:
        writer.append(stream.take())
        writer.finish(reason="targets-ended", wait_status=0)

        assert (writer.records, writer.pages, writer.stored_pages, writer.limited_pages) == (1, 3, 2, 0)
        assert writer.bytes_written == (tmp_path / "c.mtrace").stat().st_size


def test_a_batch_larger_than_one_write_keeps_its_order(tmp_path: Path) -> None:
    stream = RecordStream()
    count = RECORDS_PER_WRITE + 7
    for _ in range(count):
        stream.event(EventKind.THREAD)
    stream.flip(5)

    with open_capture(write_capture(tmp_path / "c.mtrace", stream)) as capture:
        assert [event.sequence for event in capture.events()] == list(range(count + 1))
        assert [page.sequence for page in capture.pages()] == [count + 1]
        assert capture.complete


def test_records_of_any_size_and_type_are_kept(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(type=200)
    stream.event(EventKind.FORK)

    with open_capture(write_capture(tmp_path / "c.mtrace", stream)) as capture:
        assert [event.kind for event in capture.events()] == [EventKind.FORK]
        assert [loss.reason for loss in capture.losses] == ["unknown-records"]


def test_beyond_the_size_limit_pages_are_recorded_without_bytes(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2, 3, 1)

    path = write_capture(tmp_path / "c.mtrace", stream, size_limit=2 * PAGE_BYTES)

    with open_capture(path) as capture:
        assert [page.missing for page in capture.pages()] == [None, None, Missing.LIMIT, None]
        assert [(loss.reason, loss.count) for loss in capture.losses] == [("limit", 1)]
        assert not capture.complete


def test_the_file_is_private_and_given_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "c.mtrace"
    owner = (os.getuid(), os.getgid())

    CaptureWriter(path, METADATA, owner=owner).close()

    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert (status.st_uid, status.st_gid) == owner


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "c.mtrace"
    path.write_text("precious")

    with pytest.raises(OutputError, match="--force"):
        CaptureWriter(path, METADATA)
    assert path.read_text() == "precious"

    CaptureWriter(path, METADATA, force=True).close()
    assert path.read_bytes().startswith(b"\x89MTRACE\n")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, "precious"])
def test_a_recording_that_never_began_leaves_everything_as_it_was(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "c.mtrace"
    if before is not None:
        path.write_text(before)

    CaptureWriter(path, METADATA, force=True).withdraw()

    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == (
        {} if before is None else {path.name: before}
    )


def test_a_hard_linked_file_keeps_its_other_name_s_content(tmp_path: Path) -> None:
    path, other = tmp_path / "c.mtrace", tmp_path / "other"
    other.write_text("precious")
    path.hardlink_to(other)

    CaptureWriter(path, METADATA, force=True).close()

    assert other.read_text() == "precious"


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("dangling", [False, True])
def test_symbolic_links_are_refused(tmp_path: Path, force: bool, dangling: bool) -> None:
    target, path = tmp_path / "target", tmp_path / "c.mtrace"
    if not dangling:
        target.write_text("precious")
    path.symlink_to(target)

    with pytest.raises(OutputError):
        CaptureWriter(path, METADATA, force=force)

    assert path.is_symlink()
    assert target.exists() != dangling
    assert dangling or target.read_text() == "precious"


@pytest.mark.parametrize("force", [False, True])
def test_directories_and_unreachable_paths_are_refused_in_one_sentence(tmp_path: Path, force: bool) -> None:
    for path in (tmp_path, tmp_path / "no" / "such" / "directory"):
        with pytest.raises(OutputError) as caught:
            CaptureWriter(path, METADATA, force=force)
        assert "\n" not in str(caught.value)


def test_after_a_full_disk_the_file_opens_to_its_last_whole_chunk(tmp_path: Path) -> None:
    path = tmp_path / "c.mtrace"
    first, second = RecordStream(), RecordStream()
    first.flip(1, 2)
    second.cpu = 1
    second.flip(3, 4)

    with CaptureWriter(path, METADATA) as writer:
        writer.append(first.take())
        whole = writer.bytes_written
        with file_size_limit(whole + PAGE_BYTES), pytest.raises(OutputError, match=r"c\.mtrace"):
            writer.append(second.take())

        assert path.stat().st_size == whole
        assert (writer.pages, writer.stored_pages) == (2, 2)
        writer.finish(reason="error", wait_status=None, error="no space left on device")

    with open_capture(path) as capture:
        assert capture.truncated is None
        assert [page.content for page in capture.pages()] == [page_bytes(1), page_bytes(2)]
        assert [loss.reason for loss in capture.losses] == ["recording-error"]


def test_a_disk_too_full_for_the_metadata_is_an_error(tmp_path: Path) -> None:
    with file_size_limit(100), pytest.raises(OutputError, match=r"c\.mtrace"):
        CaptureWriter(tmp_path / "c.mtrace", METADATA)


def test_after_a_failed_write_the_same_pages_can_be_written_again(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    batch = stream.take()

    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:
        with file_size_limit(writer.bytes_written + PAGE_BYTES), pytest.raises(OutputError):
            writer.append(batch)
        writer.append(batch)
        writer.finish(reason="targets-ended", wait_status=0)

    with open_capture(tmp_path / "c.mtrace") as capture:
        assert capture.complete
        assert capture.read(PID, BASE, 2 * PAGE_BYTES) == page_bytes(1) + page_bytes(2)


def test_closed_without_finish_the_capture_is_not_complete(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    writer = CaptureWriter(tmp_path / "c.mtrace", METADATA)
    writer.append(stream.take())
    writer.close()
    writer.close()

    with open_capture(tmp_path / "c.mtrace") as capture:
        assert capture.end is None
        assert [loss.reason for loss in capture.losses] == ["not-closed"]


@pytest.mark.parametrize("batches", ["one", "two"])
def test_runs_of_equal_pages_become_pages_of_their_own(tmp_path: Path, batches: str) -> None:
    stream = RecordStream()
    cause = stream.event(pages=5)
    source = stream.record(RecordType.PAGE, cause=cause, address=BASE, content=page_bytes(1))
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:
        if batches == "two":
            writer.append(stream.take())
        stream.record(RecordType.REPEAT, cause=cause, address=BASE + PAGE_BYTES, pages=3, source=source)
        stream.page(cause, page_bytes(2), BASE + 4 * PAGE_BYTES)
        writer.append(stream.take())
        writer.finish(reason="targets-ended", wait_status=0)
        assert (writer.pages, writer.records, writer.stored_pages) == (5, 1, 2)

    with open_capture(writer.path) as capture:
        assert capture.read(PID, BASE, 5 * PAGE_BYTES) == page_bytes(1) * 4 + page_bytes(2)
        assert [page.sequence for page in capture.pages()] == [1, 2, 3, 4, 5]
        assert capture.complete
        assert verify(capture).complete

"""Writing captures: one copy of each page, nobody else's files, never a torn middle."""

from __future__ import annotations

import os
import resource
import signal
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
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
@pytest.mark.parametrize("below", ["", "deeper"])
def test_symbolic_links_to_directories_are_not_followed(tmp_path: Path, force: bool, below: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / below).mkdir(parents=True)
    (tmp_path / "link").symlink_to(elsewhere)

    with pytest.raises(OutputError, match=r"/link is a symbolic link, and nothing is written through one"):
        CaptureWriter(tmp_path / "link" / below / "c.mtrace", METADATA, force=force)

    assert not list(elsewhere.rglob("*.mtrace"))


def test_directory_that_is_exchanged_during_the_recording_is_not_the_one_that_is_changed(
    tmp_path: Path,
) -> None:
    directory, path = tmp_path / "directory", tmp_path / "directory" / "c.mtrace"
    directory.mkdir()
    path.write_text("older")
    writer = CaptureWriter(path, METADATA, force=True)
    directory.rename(tmp_path / "renamed")
    directory.mkdir()
    path.write_text("precious")

    writer.withdraw()

    assert path.read_text() == "precious"
    assert (tmp_path / "renamed" / "c.mtrace").read_text() == "older"


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

        assert whole <= writer.bytes_written == path.stat().st_size < whole + PAGE_BYTES
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


def many_pages(count: int = 300, *, first: int = 1) -> RecordStream:
    """Return an event and so many pages of it, each different: enough to be written past the page cache."""
    stream = RecordStream()
    stream.flip(*range(first, first + count))
    return stream


def check_pages(path: Path, seeds: Iterable[int]) -> None:
    """Check that a capture is complete and has exactly the pages made of ``seeds``."""
    with open_capture(path) as capture:
        assert [page.content for page in capture.pages()] == [page_bytes(seed) for seed in seeds]
        assert capture.complete
        assert verify(capture).complete


@pytest.mark.parametrize("hurry", [False, True])
def test_many_pages_at_once_are_all_there_with_what_comes_between(tmp_path: Path, hurry: bool) -> None:
    stream = many_pages(300)
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:
        for first in (301, 601):
            writer.append(stream.take(), hurry=hurry)
            writer.counters({"kernel": {}, "recorder": {}})
            stream.event(EventKind.THREAD)
            writer.append(stream.take())
            stream.flip(*range(first, first + 300))
        writer.append(stream.take(), hurry=hurry)
        assert (writer.pages, writer.stored_pages) == (900, 900)
        writer.finish(reason="targets-ended", wait_status=0)
        assert writer.bytes_written == writer.path.stat().st_size

    check_pages(writer.path, range(1, 901))


def test_more_than_one_piece_takes_is_written_as_well(tmp_path: Path) -> None:
    stream = many_pages(1500)
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:
        writer.append(stream.take(), hurry=True)
        writer.finish(reason="targets-ended", wait_status=0)

    check_pages(writer.path, range(1, 1501))


def test_equal_pages_stored_in_a_hurry_count_once(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:
        writer.append(stream.take())
        stream.flip(*[1, 2, 3] * 100)
        writer.append(stream.take(), hurry=True)
        while writer.hash_some():
            pass
        stream.flip(3, 4)
        writer.append(stream.take())
        assert writer.stored_pages == 303
        writer.finish(reason="targets-ended", wait_status=0)

    with open_capture(writer.path) as capture:
        assert capture.unique_pages == 4
        assert [page.generation for page in capture.generations(PID, BASE)] == [1, 2]
    check_pages(writer.path, [1, 2, *[1, 2, 3] * 100, 3, 4])


@pytest.mark.parametrize("hashed", [0, 1], ids=["none hashed", "some hashed"])
def test_not_hashed_yet_pages_are_checked_all_the_same(tmp_path: Path, hashed: int) -> None:
    stream = many_pages(300)
    stream.flip(1, 2)
    path = tmp_path / "c.mtrace"
    with CaptureWriter(path, METADATA) as writer:
        writer.append(stream.take(), hurry=True)
        for _ in range(hashed):
            assert writer.hash_some()
    # GIVEN a recording that was killed THEN its pages are there
    with open_capture(path) as capture:
        pages = list(capture.pages())
        assert [page.content for page in pages] == [page_bytes(seed) for seed in (*range(1, 301), 1, 2)]
        assert {page.sha256 for page in pages} == {sha256(page.content or b"").hexdigest() for page in pages}
        assert capture.unique_pages == 300
        assert verify(capture).damaged == ()
    # WHEN the disk never got one of them THEN it is damaged, whether it was hashed or not
    data = path.read_bytes()
    for seed in (3, 290):
        place = data.index(page_bytes(seed))
        path.write_bytes(data[:place] + bytes(512) + data[place + 512 :])
        with open_capture(path) as capture:
            assert [page.missing for page in capture.pages()].count(Missing.DAMAGED) == 1
            assert len(verify(capture).damaged) == 1


def test_what_is_written_in_the_background_and_fails_is_cut_back_and_said(tmp_path: Path) -> None:
    path = tmp_path / "c.mtrace"
    with CaptureWriter(path, METADATA) as writer:
        stream = many_pages(300)
        writer.append(stream.take(), hurry=True)
        stream.event(EventKind.THREAD)
        stream.flip(*range(301, 601))
        batch = stream.take()
        counters: dict[str, dict[str, int]] = {"kernel": {}, "recorder": {}}
        while writer.hash_some():
            pass
        writer.counters(counters)
        whole = writer.bytes_written
        with file_size_limit(whole + 100 * PAGE_BYTES):
            writer.append(batch, hurry=True)
            with pytest.raises(OutputError, match=r"c\.mtrace"):
                writer.finish(reason="targets-ended", wait_status=0)
        assert whole <= writer.bytes_written == path.stat().st_size < whole + PAGE_BYTES
        assert (writer.pages, writer.stored_pages) == (300, 300)
        writer.finish(reason="error", wait_status=None, error="no space left on device")

    with open_capture(path) as capture:
        assert capture.truncated is None
        assert len(list(capture.pages(missing=False))) == 300
        assert [loss.reason for loss in capture.losses] == ["recording-error"]
        assert verify(capture).damaged == ()


@pytest.mark.parametrize("limit", [299, 300])
def test_in_a_hurry_the_size_limit_holds(tmp_path: Path, limit: int) -> None:
    stream = RecordStream()
    stream.flip(*range(1, 300), 1)
    with CaptureWriter(tmp_path / "c.mtrace", METADATA, size_limit=limit * PAGE_BYTES) as writer:
        writer.append(stream.take(), hurry=True)
        assert writer.limited_pages == 0
        assert writer.stored_pages == limit
        writer.finish(reason="targets-ended", wait_status=0)

    check_pages(writer.path, [*range(1, 300), 1])


def test_a_file_system_without_direct_writes_takes_them_as_well() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        stream = many_pages(600)
        with CaptureWriter(Path(directory) / "c.mtrace", METADATA) as writer:
            writer.append(stream.take(), hurry=True)
            writer.finish(reason="targets-ended", wait_status=0)
        check_pages(writer.path, range(1, 601))


def test_cut_anywhere_a_capture_of_many_pages_opens_to_its_last_whole_chunk(tmp_path: Path) -> None:
    path, cut = tmp_path / "c.mtrace", tmp_path / "cut.mtrace"
    stream = many_pages(300)
    with CaptureWriter(path, METADATA) as writer:
        writer.append(stream.take(), hurry=True)
        stream.flip(*range(301, 601))
        writer.append(stream.take(), hurry=True)
        writer.finish(reason="targets-ended", wait_status=0)
    data = path.read_bytes()
    for size in range(64, len(data), 4999):
        cut.write_bytes(data[:size])
        with open_capture(cut) as capture:
            pages = list(capture.pages())
            assert len(pages) in (0, 300, 600)
            assert [page.content for page in pages] == [page_bytes(seed + 1) for seed in range(len(pages))]
            assert not capture.complete

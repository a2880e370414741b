"""Late reads: in order, in pieces, and never longer waited for than makes sense."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from memory_tracer.record import late
from memory_tracer.record.filesystems import FileSystems
from memory_tracer.record.late import LateReads


def drained(reads: LateReads) -> list[bytes]:
    records: list[bytes] = []
    while reads:
        records += reads.take()
    return records


@pytest.fixture
def reads() -> Iterator[LateReads]:
    reads = LateReads()
    yield reads
    reads.close()


def test_records_come_in_the_order_they_were_asked_for(reads: LateReads) -> None:
    first, second = [bytes([n]) * 300_000 for n in range(10)], [b"second"]
    reads.add(1, iter(first))
    reads.add(2, iter(second))
    assert drained(reads) == first + second
    assert reads.take() == []
    assert reads.abandoned == 0


def test_what_reading_raises_is_raised(reads: LateReads) -> None:
    def broken() -> Iterator[bytes]:
        yield b"one"
        raise ValueError("broken")

    reads.add(1, broken())
    with pytest.raises(ValueError, match="broken"):
        drained(reads)


def test_a_process_that_does_not_answer_is_left_alone_and_the_others_are_read(
    reads: LateReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "_DEADLINE", 0.2)
    never = Event()

    def silent() -> Iterator[bytes]:
        never.wait()
        yield b"too late"

    for whose, records in (
        (1, silent()),
        (2, iter([b"two"])),
        (1, iter([b"one more"])),
        (3, iter([b"three"])),
    ):
        reads.add(whose, records)
    assert drained(reads) == [b"two", b"three"]
    reads.add(1, iter([b"and one more"]))
    assert drained(reads) == []
    assert reads.abandoned == 3
    never.set()


def test_file_systems_that_a_process_serves_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(
        "36 35 98:3 / /mnt rw,noatime shared:1 - ext4 /dev/root rw\n"
        "37 35 0:77 / /home/user/served rw - fuse.sshfs served rw\n"
        "38 35 0:78 / /home/user/memory rw - tmpfs none rw\n"
    )
    systems = FileSystems(tmp_path)
    assert systems.can_be_read(98 << 20 | 3)
    assert systems.can_be_read(78)
    assert not systems.can_be_read(77)
    assert not systems.can_be_read(79), "a mount that nobody sees any more"
    assert not FileSystems(tmp_path / "gone").can_be_read(77)

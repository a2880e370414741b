"""What was mapped at an address before an event."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from memory_tracer.capture.ranges import Ranges
from memory_tracer.capture.reader import Capture, open_capture
from memory_tracer.model import EventKind, Region, Status
from memory_tracer.wire.layout import PAGE_BYTES
from tests.unit.builders import BASE, PID, RecordStream, write_capture

LIBRARY, SIZE = 0x7E00_0000_0000, 4 * PAGE_BYTES
DEVICE, INODE, PATH = 8 << 20 | 1, 7, "/lib/libc.so.6"
OFFSET = 0x2_8000


def mapped(stream: RecordStream, kind: EventKind = EventKind.MMAP) -> None:
    """Append a mapping of four pages of a library, and its path."""
    stream.event(kind, LIBRARY, 4, device=DEVICE, inode=INODE, file_offset=OFFSET)
    stream.path(DEVICE, INODE, PATH.encode())


def reopened(tmp_path: Path, *streams: RecordStream) -> Capture:
    return open_capture(write_capture(tmp_path / "c.mtrace", *streams))


def known(capture: Capture, address: int) -> list[Region | None]:
    """What was at ``address`` before each event."""
    return [capture.mapping_at(event.sequence, address) for event in capture.events()]


def test_a_mapping_is_known_after_the_call_that_made_it_until_it_is_gone(tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream)
    stream.event()
    stream.event(EventKind.MUNMAP, LIBRARY + PAGE_BYTES)
    stream.event()

    library = Region(LIBRARY, SIZE, PATH, DEVICE, INODE, OFFSET)
    rest = Region(LIBRARY + 2 * PAGE_BYTES, 2 * PAGE_BYTES, PATH, DEVICE, INODE, OFFSET + 2 * PAGE_BYTES)
    head = Region(LIBRARY, PAGE_BYTES, PATH, DEVICE, INODE, OFFSET)
    with reopened(tmp_path, stream) as capture:
        assert known(capture, LIBRARY + 9) == [None, library, library, head]
        assert known(capture, LIBRARY + PAGE_BYTES) == [None, library, library, None]
        assert known(capture, LIBRARY + SIZE - 1) == [None, library, library, rest]
        assert known(capture, LIBRARY + SIZE) == [None] * 4
        assert known(capture, LIBRARY - 1) == [None] * 4
        sequences = [event.sequence for event in capture.events()]
        backwards = [capture.mapping_at(sequence, LIBRARY) for sequence in reversed(sequences)]
        assert backwards[::-1] == known(capture, LIBRARY)


def test_an_unknown_event_has_no_mappings(tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream)
    stream.event()

    with reopened(tmp_path, stream) as capture:
        assert [capture.mapping_at(sequence, LIBRARY) for sequence in (0, 1, 3, 99)] == [None] * 4
        assert capture.mapping_at(2, LIBRARY) is not None


def test_what_an_event_does_not_know_changes_nothing(tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream)
    stream.event(address=LIBRARY, status=Status.MAPPING_UNKNOWN)
    stream.event(address=LIBRARY, status=Status.SEVERAL_MAPPINGS)
    stream.event(EventKind.MMAP, LIBRARY, result=-12)
    stream.event(EventKind.MADVISE, LIBRARY)
    stream.event()
    stream.event(EventKind.MMAP, LIBRARY, status=Status.MAPPING_UNKNOWN)
    stream.event()

    with reopened(tmp_path, stream) as capture:
        found = known(capture, LIBRARY)
    assert [region and region.path for region in found] == [None, *[PATH] * 6, None]


def test_a_child_has_what_its_parent_had_until_it_executes_another_program(tmp_path: Path) -> None:
    parent, child = RecordStream(), RecordStream(pid=PID + 1)
    mapped(parent, EventKind.BASELINE)
    child.cpu = 1
    child.event(EventKind.FORK, parent_pid=PID)
    child.event(EventKind.MUNMAP)
    child.event(EventKind.EXEC)
    child.event()

    with reopened(tmp_path, parent, child) as capture:
        found = known(capture, LIBRARY)
    assert [region and region.path for region in found] == [None, None, PATH, PATH, None]


def test_what_a_child_unmaps_its_parent_keeps(tmp_path: Path) -> None:
    first, child, second = RecordStream(), RecordStream(pid=PID + 1), RecordStream()
    mapped(first)
    child.cpu, second.cpu = 1, 2
    child.event(EventKind.FORK, parent_pid=PID)
    child.event(EventKind.MUNMAP, LIBRARY, 4)
    child.event()
    second.event()

    with reopened(tmp_path, first, child, second) as capture:
        found = known(capture, LIBRARY)
    assert [region and region.path for region in found] == [None, None, PATH, None, PATH]


def test_addresses_of_another_process_are_not_looked_up_in_this_one(tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream)
    stream.event(EventKind.LOOK, arguments=(0, 0, 0, PID))
    stream.event(EventKind.LOOK, arguments=(0, 0, 0, PID + 1))

    with reopened(tmp_path, stream) as capture:
        found = known(capture, LIBRARY)
    assert [region is not None for region in found] == [False, True, False]


def test_anonymous_memory_keeps_the_start_it_was_mapped_at(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(EventKind.MMAP, pages=4)
    stream.event(address=BASE + PAGE_BYTES)
    stream.event()

    with reopened(tmp_path, stream) as capture:
        assert known(capture, BASE + PAGE_BYTES + 1)[1:] == [Region(BASE, 4 * PAGE_BYTES)] * 2


def test_the_word_on_top_of_the_stack_is_a_frame_where_code_is_mapped(tmp_path: Path) -> None:
    stream = RecordStream()
    code, elsewhere = LIBRARY + 9, LIBRARY + SIZE

    def called(top: int, *frames: int) -> None:
        stream.stack(stream.event(), *frames, top=top)

    called(code, 1, 2)
    mapped(stream, EventKind.EXEC_MAPPING)
    called(code, 1, 2)
    called(code, 1)
    called(code)
    called(code, 1, code, 2)
    called(elsewhere, 1, 2)
    called(0, 1, 2)
    stream.event(EventKind.MPROTECT, LIBRARY, protection=3, status=Status.SEVERAL_MAPPINGS)
    called(code, 1, 2)
    called(code + PAGE_BYTES, 1, 2)
    stream.event(EventKind.MPROTECT, LIBRARY)
    called(code, 1, 2)
    stream.event(EventKind.MUNMAP, LIBRARY, 4)
    called(code, 1, 2)

    with reopened(tmp_path, stream) as capture:
        stacks = [event.stack for event in capture.events() if event.stack]
    before, *mapped_ones, gone = stacks
    assert before == gone == (1, 2)
    assert mapped_ones == [
        (1, code, 2),
        (1, code),
        (1, code, 2),
        (1, 2),
        (1, 2),
        (1, 2),
        (1, code + PAGE_BYTES, 2),
        (1, code, 2),
    ]


def test_the_top_of_the_stack_is_the_same_whichever_events_are_asked_for(tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream, EventKind.EXEC_MAPPING)
    for frame in range(1, 4):
        stream.stack(stream.event(), frame, top=LIBRARY + 9)
        stream.stack(stream.event(EventKind.LOOK, arguments=(0, 0, 0, PID + 1)), frame, top=LIBRARY + 9)

    with reopened(tmp_path, stream) as capture:
        every = list(capture.events())
        # Two readers that take turns, and one who asks for other mappings in between.
        taking_turns = []
        for first, second in zip(capture.events(), capture.events(), strict=True):
            assert capture.mapping_at(first.sequence, BASE) == capture.mapping_at(second.sequence, BASE)
            taking_turns += [first, second]
        later = list(capture.events(after=every[3].sequence))
    assert taking_turns == [event for event in every for _ in range(2)]
    assert later == every[4:]
    assert [event.stack for event in every[1:]] == [
        (1, LIBRARY + 9),
        (1,),
        (2, LIBRARY + 9),
        (2,),
        (3, LIBRARY + 9),
        (3,),
    ]


def test_a_file_mapped_over_another_takes_its_place(tmp_path: Path) -> None:
    stream = RecordStream()
    mapped(stream)
    stream.event(address=LIBRARY, device=DEVICE, inode=INODE + 1)
    stream.event()

    with reopened(tmp_path, stream) as capture:
        found = known(capture, LIBRARY)[-1]
    assert found == Region(LIBRARY, PAGE_BYTES, None, DEVICE, INODE + 1, 0)


RANGES = st.tuples(st.integers(0, 20), st.integers(1, 8), st.none() | st.integers(1, 3))


@given(st.lists(RANGES, max_size=30))
def test_of_overlapping_ranges_the_last_counts(ranges: list[tuple[int, int, int | None]]) -> None:
    named: Ranges[int] = Ranges()
    expected: dict[int, int | None] = {}
    for start, length, name in ranges:
        named.put(start, start + length, name)
        expected |= dict.fromkeys(range(start, start + length), name)
    numbers = [named.find(address) for address in range(30)]
    found = [named.values[number] if number >= 0 else None for number in numbers]
    assert found == [expected.get(address) for address in range(30)]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_ranges_beyond_the_address_space_do_no_harm(address: int, length: int, offset: int) -> None:
    stream = RecordStream()
    stream.event(EventKind.MMAP, address, length=length, device=1, inode=1, file_offset=offset)
    stream.event()

    with tempfile.TemporaryDirectory() as directory, reopened(Path(directory), stream) as capture:
        found = capture.mapping_at(1, address)
    assert found == (Region(address, length, None, 1, 1, offset) if length else None)

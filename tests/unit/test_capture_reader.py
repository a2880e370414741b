"""Reading captures: events, pages, processes, memory at a time, filters."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_tracer.capture.reader import Capture, open_capture
from memory_tracer.errors import NotCapturedError, UsageError
from memory_tracer.model import (
    EventKind,
    Missing,
    MissingRun,
    Outcome,
    Page,
    Protection,
    Region,
    Status,
)
from memory_tracer.wire.layout import PAGE_BYTES, REGISTER_SLOTS, STACK_FRAMES, RecordType, TextKind
from memory_tracer.wire.registers import EM_AARCH64, EM_X86_64, REGISTERS
from tests.unit.builders import BASE, PID, RX, START_NS, RecordStream, page_bytes, write_capture


def reopened(tmp_path: Path, *streams: RecordStream) -> Capture:
    return open_capture(write_capture(tmp_path / "c.mtrace", *streams))


def test_an_event_says_everything_its_record_said(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.path(0x800001, 99, b"/opt/lib.so")
    stream.event(
        EventKind.PKEY_MPROTECT,
        pages=2,
        tid=PID + 1,
        status=Status.SHARED | Status.HOT,
        result=-13,
        arguments=(BASE, 8192, 5, 1),
        previous_protection=3,
        inode=99,
        device=0x800001,
        file_offset=4096,
        caller_ip=0x401000,
        parent_pid=1,
        uid=1000,
        namespace_pid=7,
        coalesced=12,
        coalesced_since_ns=1_500_000_000,
    )

    with reopened(tmp_path, stream) as capture:
        (event,) = capture.events()

    assert (event.sequence, event.pid, event.tid, event.process_start_ns) == (1, PID, PID + 1, START_NS)
    assert (event.kind, event.comm) == (EventKind.PKEY_MPROTECT, "sample")
    assert event.arguments == (BASE, 8192, 5, 1)
    assert (event.result, event.succeeded) == (-13, False)
    assert (event.protection, event.previous_protection) == (RX, Protection.READ | Protection.WRITE)
    assert event.region == Region(BASE, 8192, "/opt/lib.so", 0x800001, 99, 4096)
    assert event.status == Status.SHARED | Status.HOT
    assert (event.caller, event.parent_pid, event.uid, event.namespace_pid) == (0x401000, 1, 1000, 7)
    assert (event.coalesced, event.coalesced_since_ns) == (12, 1_500_000_000)
    assert event.wall_time == datetime(2023, 11, 14, 22, 13, 21, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(EventKind.MMAP, 6), (EventKind.MPROTECT, 3), (EventKind.MUNMAP, 2), (EventKind.BASELINE, 0)],
)
def test_a_call_has_as_many_arguments_as_the_system_call(
    tmp_path: Path, kind: EventKind, arguments: int
) -> None:
    stream = RecordStream()
    stream.event(kind, arguments=range(1, 7))

    with reopened(tmp_path, stream) as capture:
        (event,) = capture.events()

    assert event.arguments == tuple(range(1, arguments + 1))


def test_what_an_event_cannot_know_is_none(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(EventKind.BASELINE, status=Status.PREVIOUS_UNKNOWN)
    stream.event(EventKind.FORK)

    with reopened(tmp_path, stream) as capture:
        baseline, fork = capture.events()

    assert baseline.previous_protection is None
    assert baseline.result is None
    assert baseline.region == Region(BASE, PAGE_BYTES)
    assert (baseline.caller, baseline.namespace_pid, baseline.coalesced_since_ns) == (None, None, None)
    assert (fork.region, fork.outcome, fork.result) == (None, None, None)


def test_the_outcome_is_the_kernel_s_or_what_is_there(tmp_path: Path) -> None:
    stream = RecordStream()
    first = stream.event(pages=5)
    stream.page(first, page_bytes(1))
    stream.record(RecordType.OUTCOME, cause=first, captured=1, unchanged=3, absent=1)
    stream.flip(1, 2)
    stream.event(EventKind.MUNMAP, page_count=0)

    with reopened(tmp_path, stream) as capture:
        outcomes = [event.outcome for event in capture.events()]

    assert outcomes == [Outcome(captured=1, unchanged=3, absent=1), Outcome(captured=2), None]


def test_an_event_has_the_stack_that_names_it(tmp_path: Path) -> None:
    stream = RecordStream()
    first = stream.event(caller_ip=0x1000)
    second = stream.event()
    stream.stack(second, 0x3000)
    stream.stack(second, *range(1, STACK_FRAMES + 1))
    stream.stack(first, 0x1000, 0x2000)
    stream.event()
    stream.stack(12345, 0x6666)

    with reopened(tmp_path, stream) as capture:
        stacks = [event.stack for event in capture.events()]
        assert capture.complete

    # The last record about an event counts, and one about an event that is lost about none.
    assert stacks == [(0x1000, 0x2000), tuple(range(1, STACK_FRAMES + 1)), ()]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=STACK_FRAMES))
def test_a_stack_has_no_more_frames_than_its_record(count: int, frames: list[int]) -> None:
    stream = RecordStream()
    cause = stream.event()
    stream.record(RecordType.STACK, cause=cause, count=count, frames=frames)

    with tempfile.TemporaryDirectory() as directory, reopened(Path(directory), stream) as capture:
        (event,) = capture.events()

    assert event.stack == (*frames, *[0] * STACK_FRAMES)[: min(count, STACK_FRAMES)]


@given(
    st.sampled_from([EM_X86_64, EM_AARCH64, 7]),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**64 - 1), max_size=REGISTER_SLOTS),
)
def test_registers_are_those_of_the_machine_however_many_the_record_claims(
    machine: int, count: int, values: list[int]
) -> None:
    stream = RecordStream()
    stream.event()
    cause = stream.event(EventKind.FETCH, arguments=(BASE + 5,))
    stream.record(RecordType.REGISTERS, cause=cause, machine=machine, count=count, values=values)

    with tempfile.TemporaryDirectory() as directory, reopened(Path(directory), stream) as capture:
        first, second = capture.events()
        assert capture.complete

    assert (first.registers, first.fault_address) == (None, None)
    assert second.fault_address == BASE + 5
    names = REGISTERS.get(machine, ())
    padded = [*values, *[0] * (REGISTER_SLOTS - len(values))][: min(count, REGISTER_SLOTS)]
    assert second.registers is not None
    assert list(second.registers.items()) == list(zip(names, padded, strict=False))


def test_the_process_of_a_lost_event_is_known_by_its_stack(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.stack(stream.next_sequence(), 0x1000)

    with reopened(tmp_path, stream) as capture:
        (process,) = capture.processes
        losses = [(loss.reason, loss.count) for loss in capture.losses]

    assert (process.pid, process.start_time_ns) == (PID, START_NS)
    assert losses == [("unaccounted-records", 1)]


def test_pages_carry_their_event(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)

    with reopened(tmp_path, stream) as capture:
        first, second = capture.pages()

    assert (first.address, second.address) == (BASE, BASE + PAGE_BYTES)
    assert (first.content, second.content) == (page_bytes(1), page_bytes(2))
    assert (first.event, first.protection, first.comm) == (EventKind.MPROTECT, RX, "sample")
    assert first.region == second.region == Region(BASE, 2 * PAGE_BYTES)
    assert (first.sequence, second.sequence) == (1, 2)
    assert (first.missing, first.late) == (None, False)


def test_a_content_that_comes_back_has_its_old_generation(tmp_path: Path) -> None:
    stream = RecordStream()
    for seed in (1, 2, 1, 3):
        stream.flip(seed, 9)

    with reopened(tmp_path, stream) as capture:
        assert [page.generation for page in capture.pages(end=BASE + 1)] == [1, 2, 1, 3]
        assert [page.generation for page in capture.pages(start=BASE + PAGE_BYTES)] == [1, 1, 1, 1]
        generations = capture.generations(PID, BASE + 17)
    assert [page.content for page in generations] == [page_bytes(seed) for seed in (1, 2, 3)]
    assert [page.sequence for page in generations] == [1, 4, 10]


def test_generations_of_two_processes_at_one_address_do_not_mix(tmp_path: Path) -> None:
    stream, other = RecordStream(), RecordStream(pid=PID + 1)
    other.cpu = 1
    stream.flip(1)
    other.flip(2)
    again = RecordStream()
    again.cpu = 2
    again.flip(2)

    with reopened(tmp_path, stream, other, again) as capture:
        assert [(page.pid, page.generation) for page in capture.pages()] == [(PID, 1), (PID + 1, 1), (PID, 2)]


def test_memory_is_read_across_pages_and_at_any_offset(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2, 3)
    memory = page_bytes(1) + page_bytes(2) + page_bytes(3)

    with reopened(tmp_path, stream) as capture:
        assert capture.read(PID, BASE, 3 * PAGE_BYTES) == memory
        assert capture.read(PID, BASE + 100, 2 * PAGE_BYTES) == memory[100 : 100 + 2 * PAGE_BYTES]
        assert capture.read(PID, BASE + PAGE_BYTES, 1) == memory[PAGE_BYTES : PAGE_BYTES + 1]
        assert capture.read(PID, BASE, 0) == b""


def test_memory_is_read_as_it_was_at_a_time(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    between = stream.now_ns
    stream.flip(2)

    with reopened(tmp_path, stream) as capture:
        assert capture.read(PID, BASE, PAGE_BYTES) == page_bytes(2)
        assert capture.read(PID, BASE, PAGE_BYTES, at=between) == page_bytes(1)
        with pytest.raises(NotCapturedError):
            capture.read(PID, BASE, PAGE_BYTES, at=between - 1)


def test_memory_with_a_page_that_is_not_there_is_not_read(tmp_path: Path) -> None:
    stream = RecordStream()
    cause = stream.event(pages=3)
    stream.page(cause, page_bytes(1))
    stream.missing(cause, Missing.SWAPPED, BASE + PAGE_BYTES)
    stream.page(cause, page_bytes(3), BASE + 2 * PAGE_BYTES)

    with reopened(tmp_path, stream) as capture:
        for start, size in ((BASE, 3 * PAGE_BYTES), (BASE + PAGE_BYTES, 8), (BASE + PAGE_BYTES - 1, 2)):
            with pytest.raises(NotCapturedError, match=f"{BASE + PAGE_BYTES:#x}.*swapped"):
                capture.read(PID, start, size)
        with pytest.raises(NotCapturedError, match=f"{BASE + 3 * PAGE_BYTES:#x}"):
            capture.read(PID, BASE + 2 * PAGE_BYTES, 1 << 60)
        with pytest.raises(UsageError):
            capture.read(PID, -1, 8)


def test_bytes_that_became_outdated_unseen_are_not_read(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    before = stream.now_ns
    cause = stream.event()
    stream.next_sequence()
    stream.missing(cause, Missing.RING_FULL)

    with reopened(tmp_path, stream) as capture:
        with pytest.raises(NotCapturedError, match=f"ring buffer was full.*{before} ns"):
            capture.read(PID, BASE, 8)
        assert capture.read(PID, BASE, 8, at=before) == page_bytes(1)[:8]


def test_absent_pages_are_zeros_until_they_have_bytes(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2, 3)
    held = stream.now_ns
    cause = stream.event(pages=3)
    stream.missing(cause, Missing.ABSENT, BASE + PAGE_BYTES, pages=2)
    emptied = stream.now_ns
    stream.flip(4, address=BASE + 2 * PAGE_BYTES)

    with reopened(tmp_path, stream) as capture:
        zeros = bytes(PAGE_BYTES)
        whole = (PID, BASE, 3 * PAGE_BYTES)
        assert capture.read(*whole, at=held) == page_bytes(1) + page_bytes(2) + page_bytes(3)
        assert capture.read(*whole, at=emptied) == page_bytes(1) + zeros + zeros
        assert capture.read(*whole) == page_bytes(1) + zeros + page_bytes(4)


def test_memory_that_was_never_touched_is_zeros_and_beyond_it_nothing_is_known(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.missing(stream.event(pages=2), Missing.ABSENT, pages=2)

    with reopened(tmp_path, stream) as capture:
        assert capture.read(PID, BASE, 2 * PAGE_BYTES) == bytes(2 * PAGE_BYTES)
        with pytest.raises(NotCapturedError, match=f"{BASE + 2 * PAGE_BYTES:#x}"):
            capture.read(PID, BASE, 1 << 60)


def test_absent_page_that_could_not_be_read_later_is_not_read(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.missing(stream.event(), Missing.ABSENT)
    stream.missing(stream.event(), Missing.UNREADABLE)

    with reopened(tmp_path, stream) as capture, pytest.raises(NotCapturedError, match="could not read"):
        capture.read(PID, BASE, 8)


def test_a_reused_pid_is_another_process(tmp_path: Path) -> None:
    first, second = RecordStream(comm=b"old"), RecordStream(start_ns=START_NS + 10**9, comm=b"new")
    second.cpu, second.now_ns = 1, first.now_ns + 10**9
    first.flip(1, 2)
    first.event(EventKind.EXIT, result=9)
    died = first.now_ns
    second.flip(3)

    with reopened(tmp_path, first, second) as capture:
        old, new = capture.processes
        assert [page.generation for page in capture.pages()] == [1, 1, 1]
        assert capture.read(PID, BASE, 8) == page_bytes(3)[:8]
        assert capture.read(PID, BASE, 8, at=died) == page_bytes(1)[:8]
        with pytest.raises(NotCapturedError):
            capture.read(PID, BASE, 2 * PAGE_BYTES)

    assert (old.pid, old.comm, old.ended_ns, old.wait_status) == (PID, "old", died, 9)
    assert (new.pid, new.comm, new.ended_ns, new.wait_status) == (PID, "new", None, None)


def test_start_times_in_clock_ticks_name_the_same_process(tmp_path: Path) -> None:
    exact, rounded = RecordStream(), RecordStream(start_ns=START_NS // 10**7 * 10**7)
    rounded.cpu = 1
    exact.flip(1)
    rounded.flip(2)

    with reopened(tmp_path, exact, rounded) as capture:
        assert len(capture.processes) == 1
        assert {event.process_start_ns for event in capture.events()} == {START_NS}
        assert [page.generation for page in capture.pages()] == [1, 2]


def test_processes_are_put_together_from_their_steps(tmp_path: Path) -> None:
    parent, child = RecordStream(comm=b"sh"), RecordStream(pid=PID + 1, start_ns=START_NS + 10**9, comm=b"sh")
    child.cpu, child.now_ns = 1, parent.now_ns + 10**6
    parent.path(1, 5, b"/bin/sh")
    parent.event(EventKind.EXEC, device=1, inode=5, parent_pid=1, uid=1000)
    parent.command_line(b"sh", b"-c", b"")
    child.event(EventKind.FORK, parent_pid=PID, uid=1000)
    forked = child.now_ns
    grandchild = RecordStream(pid=PID + 2, start_ns=START_NS + 2 * 10**9)
    grandchild.cpu, grandchild.now_ns = 2, child.now_ns + 10**6
    grandchild.event(EventKind.FORK, parent_pid=PID + 1)
    grandchild.path(1, 6, b"/bin/true")
    grandchild.event(EventKind.EXEC, device=1, inode=6, parent_pid=PID + 1, comm=b"true", uid=0)
    grandchild.command_line(b"true")
    grandchild.event(EventKind.EXIT, result=256, comm=b"true")

    with reopened(tmp_path, parent, child, grandchild) as capture:
        shell, fork, true = capture.processes

    assert (shell.path, shell.command_line, shell.parent_pid, shell.uid) == (
        "/bin/sh",
        ("sh", "-c", ""),
        1,
        1000,
    )
    assert (fork.path, fork.command_line, fork.parent_pid) == ("/bin/sh", ("sh", "-c", ""), PID)
    assert (fork.first_seen_ns, fork.ended_ns) == (forked, None)
    assert (true.path, true.command_line, true.parent_pid, true.comm) == (
        "/bin/true",
        ("true",),
        PID + 1,
        "true",
    )
    assert true.wait_status == 256


def test_a_path_is_the_one_given_last_before_the_event(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(device=1, inode=5)
    stream.path(1, 5, b"/old")
    stream.event(device=1, inode=5)
    stream.path(1, 5, b"/new")
    stream.event(device=1, inode=5)
    stream.event(device=2, inode=5)

    with reopened(tmp_path, stream) as capture:
        paths = [event.region.path for event in capture.events() if event.region]

    assert paths == ["/old", "/old", "/new", None]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"ls\0bin\0usr\0\0", "/usr/bin/ls"),
        (b"\0", "/"),
        (b"ls\0bin\0", ".../bin/ls"),
        (b"\xff\x1b[31m\0\0", "/\udcff\x1b[31m"),
    ],
)
def test_paths_are_turned_round_and_kept_byte_for_byte(tmp_path: Path, text: bytes, path: str) -> None:
    stream = RecordStream()
    stream.record(RecordType.TEXT, kind=TextKind.PATH, device=1, inode=5, length=len(text), text=text)
    stream.event(device=1, inode=5)

    with reopened(tmp_path, stream) as capture:
        (event,) = capture.events()

    assert event.region is not None
    assert event.region.path == path


def test_a_page_that_came_late_is_not_missing(tmp_path: Path) -> None:
    stream = RecordStream()
    cause = stream.event(pages=5)
    stream.missing(cause, Missing.DEFERRED, BASE, 5)
    stream.page(cause, page_bytes(2), BASE + PAGE_BYTES, late=True)
    stream.page(cause, page_bytes(3), BASE + 2 * PAGE_BYTES, late=True)
    stream.missing(cause, Missing.GONE, BASE + 4 * PAGE_BYTES)

    with reopened(tmp_path, stream) as capture:
        pages = {(page.address - BASE) // PAGE_BYTES: page for page in capture.pages()}
        losses = {loss.reason: loss.count for loss in capture.losses}

    assert [pages[index].missing for index in range(5)] == [
        Missing.DEFERRED,
        None,
        None,
        Missing.DEFERRED,
        Missing.GONE,
    ]
    assert [pages[index].late for index in range(5)] == [False, True, True, False, False]
    assert losses == {"deferred": 2, "gone": 1}


def test_a_late_page_of_another_event_explains_nothing(tmp_path: Path) -> None:
    stream = RecordStream()
    cause, other = stream.event(), stream.event()
    stream.missing(cause, Missing.DEFERRED)
    stream.page(other, page_bytes(1), late=True)

    with reopened(tmp_path, stream) as capture:
        assert [page.missing for page in capture.pages()] == [Missing.DEFERRED, None]


def test_pages_of_a_lost_event_are_shown_with_an_unknown_event(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(EventKind.THREAD)
    lost = stream.next_sequence()
    stream.page(lost, page_bytes(1))
    stream.missing(lost, Missing.SWAPPED, BASE + PAGE_BYTES, 2)

    with reopened(tmp_path, stream) as capture:
        pages = list(capture.pages())
        assert [event.kind for event in capture.events()] == [EventKind.THREAD]
        (region,) = capture.regions()

    assert {page.event for page in pages} == {EventKind.UNKNOWN}
    assert {page.region for page in pages} == {Region(BASE, 3 * PAGE_BYTES)}
    assert (pages[0].content, pages[0].protection, pages[0].comm) == (
        page_bytes(1),
        Protection.NONE,
        "sample",
    )
    assert (region.kinds, region.pages, region.missing) == ((EventKind.UNKNOWN,), 1, 2)


def test_an_event_of_an_unknown_kind_is_kept(tmp_path: Path) -> None:
    stream = RecordStream()
    cause = stream.event(kind=77)
    stream.page(cause, page_bytes(1))

    with reopened(tmp_path, stream) as capture:
        (event,) = capture.events()
        (page,) = capture.pages()

    assert (event.kind, page.event) == (EventKind.UNKNOWN, EventKind.UNKNOWN)
    assert event.region == page.region == Region(BASE, PAGE_BYTES)


def test_an_empty_recording_reads_as_empty(tmp_path: Path) -> None:
    with reopened(tmp_path) as capture:
        assert (list(capture.events()), list(capture.pages()), capture.regions()) == ([], [], [])
        assert (capture.processes, capture.losses, capture.complete) == ((), (), True)
        with pytest.raises(NotCapturedError):
            capture.read(PID, BASE, 1)
        assert capture.generations(PID, BASE) == []


def test_a_run_of_missing_pages_can_be_had_as_one(tmp_path: Path) -> None:
    stream = RecordStream()
    cause = stream.event(pages=4)
    stream.page(cause, page_bytes(1))
    stream.missing(cause, Missing.SWAPPED, BASE + PAGE_BYTES, 3)

    with reopened(tmp_path, stream) as capture:
        page, run = capture.page_rows()
        assert list(capture.page_rows(pid=PID + 1)) == []

    assert isinstance(page, Page)
    assert isinstance(run, MissingRun)
    assert (page.address, page.sequence, page.content) == (BASE, 1, page_bytes(1))
    assert (run.address, run.length, run.missing) == (BASE + PAGE_BYTES, 3 * PAGE_BYTES, Missing.SWAPPED)
    assert (run.sequence, run.pid, run.event, run.comm) == (2, PID, EventKind.MPROTECT, "sample")

"""The life of each region that was or became executable."""

from __future__ import annotations

from pathlib import Path

from memory_tracer.analyze.regions import RegionHistory
from memory_tracer.analyze.triggers import Triggers
from memory_tracer.capture.reader import open_capture
from memory_tracer.model import EventKind, Evidence, Missing, Protection, Region, Status
from memory_tracer.wire.layout import PAGE_BYTES
from tests.unit.builders import BASE, PID, RX, START_NS, RecordStream, page_bytes, write_capture


def regions(tmp_path: Path, *streams: RecordStream) -> list[RegionHistory]:
    with open_capture(write_capture(tmp_path / "c.mtrace", *streams)) as capture:
        return capture.regions()


def test_a_region_s_history_sums_up_its_events_and_pages(tmp_path: Path) -> None:
    stream = RecordStream()
    mapped = stream.event(EventKind.MMAP, pages=3, protection=7, caller_ip=0x1000, comm=b"before")
    first_ns = stream.now_ns
    stream.missing(mapped, Missing.NOT_PRESENT, BASE, 3)
    cause = stream.event(pages=3, caller_ip=0x2000, coalesced=40, status=Status.SHARED | Status.UNLINKED)
    stream.page(cause, page_bytes(1), BASE)
    stream.page(cause, page_bytes(1), BASE + PAGE_BYTES)
    cause = stream.event(pages=3)
    stream.page(cause, page_bytes(2), BASE)
    stream.missing(cause, Missing.SWAPPED, BASE + 2 * PAGE_BYTES)
    stream.event(EventKind.MUNMAP, pages=3, protection=0)

    assert regions(tmp_path, stream) == [
        RegionHistory(
            pid=PID,
            process_start_ns=START_NS,
            comm="sample",
            region=Region(BASE, 3 * PAGE_BYTES),
            protection=Protection.NONE,
            kinds=(EventKind.MMAP, EventKind.MPROTECT, EventKind.MUNMAP),
            first_ns=first_ns,
            last_ns=stream.now_ns,
            flips=44,
            generations=2,
            pages=2,
            content_bytes=2 * PAGE_BYTES,
            missing=3,
            caller=0x1000,
            rwx=True,
            unlinked=True,
            shared=True,
            caller_event=0,
            open_to_writes=True,
            triggers=Triggers(calls=44),
            evidence=Evidence.NONE,
        )
    ]


def test_the_caller_is_the_first_that_made_it_executable(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(protection=3, caller_ip=0x1000)
    stream.event(result=-12, caller_ip=0x2000)
    stream.event(caller_ip=0x3000)
    stream.event(caller_ip=0x4000)

    (region,) = regions(tmp_path, stream)

    assert region.caller == 0x3000
    assert not region.rwx


def test_the_protection_is_that_of_the_last_call_that_succeeded(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event()
    stream.event(protection=7, result=-13)

    (region,) = regions(tmp_path, stream)

    assert region.protection == RX
    assert not region.rwx


def test_a_call_that_failed_half_way_counts(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(protection=7, result=-12, status=Status.PARTIAL)

    (region,) = regions(tmp_path, stream)

    assert region.rwx


def test_ranges_that_never_became_executable_are_no_regions(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.event(result=-12)
    stream.event(address=BASE + 0x10000, protection=3)
    stream.event(EventKind.MUNMAP, address=BASE + 0x20000, protection=0)
    stream.event(EventKind.EXEC)

    assert regions(tmp_path, stream) == []


def test_what_was_executable_before_is_a_region(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.path(1, 5, b"/bin/true")
    stream.event(EventKind.BASELINE, device=1, inode=5, protection=0)
    stream.event(EventKind.EXEC_MAPPING, address=BASE + 0x10000, protection=0)

    found = regions(tmp_path, stream)

    assert [region.region.path for region in found] == ["/bin/true", None]
    assert [region.kinds for region in found] == [(EventKind.BASELINE,), (EventKind.EXEC_MAPPING,)]


def test_the_same_range_of_two_processes_is_two_regions(tmp_path: Path) -> None:
    stream, other, reused = RecordStream(), RecordStream(pid=1), RecordStream(start_ns=START_NS + 10**9)
    other.cpu, reused.cpu = 1, 2
    stream.flip(1)
    other.flip(1, 2)
    other.flip(1)
    reused.flip(2)

    found = regions(tmp_path, stream, other, reused)

    assert [(region.pid, region.region.length // PAGE_BYTES) for region in found] == [
        (PID, 1),
        (1, 2),
        (1, 1),
        (PID, 1),
    ]
    assert [region.process_start_ns for region in found] == [START_NS, START_NS, START_NS, START_NS + 10**9]


def test_pages_missing_several_times_are_counted_once(tmp_path: Path) -> None:
    stream = RecordStream()
    for start, pages in ((0, 4), (2, 4), (1, 2), (8, 1)):
        cause = stream.event(pages=10)
        stream.missing(cause, Missing.SWAPPED, BASE + start * PAGE_BYTES, pages)

    (region,) = regions(tmp_path, stream)

    assert region.missing == 7


def test_pages_of_a_step_in_a_process_s_life_belong_to_no_region(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.page(stream.event(EventKind.EXEC), page_bytes(1))

    assert regions(tmp_path, stream) == []


def test_a_region_says_what_brought_its_bytes(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.page(stream.event(EventKind.BASELINE, protection=7), page_bytes(1), late=True)
    own, recorder, call = (0, 0, 0, PID), (0, 0, 0, PID + 1), (0, 77, 0, PID + 1)
    looks = [(EventKind.LOOK, own), (EventKind.LOOK, recorder), (EventKind.LOOK, call)]
    for seed, (kind, arguments) in enumerate([*looks, (EventKind.SAMPLE, ())], 2):
        stream.page(stream.event(kind, arguments=arguments, protection=7), page_bytes(seed))
    # A look that found nothing new is no event.
    stream.page(stream.event(EventKind.LOOK, arguments=own), page_bytes(5))

    (region,) = regions(tmp_path, stream)

    assert region.triggers == Triggers(found=1, looks=2, passes=1, samples=1, late=1)
    assert region.open_to_writes


def test_only_memory_that_is_writable_somewhere_is_open_to_writes(tmp_path: Path) -> None:
    stream = RecordStream()
    for index, (protection, status, result) in enumerate(
        [(RX, 0, 0), (7, 0, 0), (RX, Status.VIEWED, 0), (7, 0, -12)]
    ):
        address = BASE + index * 0x10000
        cause = stream.event(address=address, protection=protection, status=status, result=result)
        stream.page(cause, page_bytes(1), address)

    assert [region.open_to_writes for region in regions(tmp_path, stream)] == [False, True, True, False]


def test_the_evidence_of_a_region_is_that_of_its_pages(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    stream.event(EventKind.MUNMAP, 0, protection=0, caller_ip=BASE)
    stream.stack(stream.event(EventKind.MUNMAP, 0, protection=0), 0x1000, BASE + PAGE_BYTES + 5)
    stream.flip(1, address=BASE + 0x10000)

    found = [region.evidence for region in regions(tmp_path, stream)]
    assert found == [Evidence.CALLER | Evidence.STACK, Evidence.NONE]

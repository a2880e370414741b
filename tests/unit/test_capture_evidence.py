"""Which captured bytes are known to have been executed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_tracer.capture.reader import open_capture
from memory_tracer.model import EventKind, Evidence
from memory_tracer.wire.layout import PAGE_BYTES, RecordType
from tests.unit.builders import BASE, PID, RecordStream, page_bytes, write_capture

LIBRARY = 0x7E00_0000_0000


def evidence(path: Path, *streams: RecordStream) -> list[Evidence]:
    with open_capture(write_capture(path / "c.mtrace", *streams)) as capture:
        return [page.evidence for page in capture.pages()]


def test_content_that_a_sample_or_a_caller_lies_in_is_known_to_have_been_executed(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    stream.event(EventKind.SAMPLE, caller_ip=BASE + 5)
    stream.flip(2)
    stream.event(EventKind.MUNMAP, BASE + PAGE_BYTES, caller_ip=BASE + 9)
    stream.flip(3)
    stream.flip(1)
    other = RecordStream(pid=PID + 1)
    other.cpu = 1
    other.flip(1)

    with open_capture(write_capture(tmp_path / "c.mtrace", stream, other)) as capture:
        found = [(page.pid, page.generation, page.evidence) for page in capture.pages()]
    assert found == [
        (PID, 1, Evidence.SAMPLED),
        (PID, 2, Evidence.CALLER),
        (PID, 3, Evidence.NONE),
        (PID, 1, Evidence.SAMPLED),
        (PID + 1, 1, Evidence.NONE),
    ]


def test_content_that_a_caller_returns_to_is_known_to_have_been_executed(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2, 3)
    stream.stack(stream.event(EventKind.MUNMAP, LIBRARY, caller_ip=LIBRARY), LIBRARY, BASE + 5, LIBRARY)
    stream.flip(4, 2, 3)

    assert evidence(tmp_path, stream) == [Evidence.STACK, *[Evidence.NONE] * 5]


def test_the_innermost_frame_is_the_caller_and_no_return_address(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    stream.stack(stream.event(EventKind.MUNMAP, LIBRARY, caller_ip=BASE), BASE, BASE + 5)
    stream.flip(2)
    stream.stack(stream.event(EventKind.SAMPLE, LIBRARY, caller_ip=BASE), BASE)

    assert evidence(tmp_path, stream) == [Evidence.CALLER | Evidence.STACK, Evidence.SAMPLED]


def test_a_call_at_the_end_of_a_page_is_evidence_for_this_page(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    stream.stack(stream.event(EventKind.MUNMAP, LIBRARY), LIBRARY, BASE + PAGE_BYTES)

    assert evidence(tmp_path, stream) == [Evidence.STACK, Evidence.NONE]


def test_frames_beyond_the_count_are_none(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    stream.record(
        RecordType.STACK, cause=stream.event(EventKind.MUNMAP), count=2, frames=(LIBRARY, LIBRARY, BASE + 5)
    )

    assert evidence(tmp_path, stream) == [Evidence.NONE]


def test_the_stack_of_a_lost_event_is_no_evidence(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    stream.stack(stream.next_sequence(), LIBRARY, BASE + 5)

    assert evidence(tmp_path, stream) == [Evidence.NONE]


@pytest.mark.parametrize(("caller", "known"), [(0, True), (PID, True), (PID + 1, False)])
def test_only_a_process_s_own_calls_are_evidence(tmp_path: Path, caller: int, known: bool) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    look = stream.event(EventKind.LOOK, caller_ip=BASE, arguments=(0, 0, 0, caller))
    stream.stack(look, BASE, BASE + PAGE_BYTES + 5)
    stream.flip(3)

    own = [Evidence.CALLER, Evidence.STACK] if known else [Evidence.NONE] * 2
    assert evidence(tmp_path, stream) == [*own, Evidence.NONE]


def test_the_lowest_and_the_highest_address_are_on_no_page(tmp_path: Path) -> None:
    stream = RecordStream()
    cause = stream.event()
    for address in (0, 2**64 - PAGE_BYTES):
        stream.page(cause, page_bytes(1), address)
    stream.stack(stream.event(EventKind.MUNMAP), 0, 0, 1, LIBRARY)

    assert evidence(tmp_path, stream) == [Evidence.NONE] * 2


class Step(NamedTuple):
    """A page of some content, or a call with a stack, in one of two processes."""

    process: int
    at: int
    content: int | None
    kind: EventKind
    stack: tuple[int, ...]


PLACES = st.integers(0, 3)
STEPS = st.builds(
    Step,
    st.integers(0, 1),
    PLACES,
    st.none() | st.integers(1, 2),
    st.sampled_from([EventKind.SAMPLE, EventKind.MUNMAP]),
    st.lists(PLACES, max_size=4).map(tuple),
)


@given(st.lists(STEPS, max_size=20))
def test_evidence_is_that_of_a_walk_through_time(steps: Sequence[Step]) -> None:
    """Pages are numbered from 0; addresses lie 8 bytes into them."""
    streams = RecordStream(), RecordStream(pid=PID + 1)
    streams[1].cpu = 1
    held: dict[tuple[int, int], int] = {}
    known: dict[tuple[int, int, int], Evidence] = {}
    pages: tuple[list[tuple[int, int, int]], ...] = ([], [])
    for step in steps:
        stream = streams[step.process]
        if step.content is not None:
            stream.page(stream.event(), page_bytes(step.content), BASE + step.at * PAGE_BYTES)
            held[step.process, step.at] = step.content
            pages[step.process].append((step.process, step.at, step.content))
            continue
        addresses = [BASE + place * PAGE_BYTES + 8 for place in step.stack]
        caller = addresses[0] if addresses else 0
        stream.stack(stream.event(step.kind, LIBRARY, caller_ip=caller), *addresses)
        first = Evidence.SAMPLED if step.kind is EventKind.SAMPLE else Evidence.CALLER
        for place, kind in zip(step.stack, [first, *[Evidence.STACK] * 3], strict=False):
            content = held.get((step.process, place))
            if content is not None:
                key = step.process, place, content
                known[key] = known.get(key, Evidence.NONE) | kind

    with tempfile.TemporaryDirectory() as directory:
        found = evidence(Path(directory), *streams)

    assert found == [known.get(page, Evidence.NONE) for page in (*pages[0], *pages[1])]

"""What an event says about who made the call, and how: the user stack, and the system call's ABI."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import pytest

import memory_tracer as mt
from memory_tracer import EventKind, Evidence, Status
from memory_tracer.record.kernel import Kernel
from tests.workloads import PAGE_SIZE, Step, Workloads

from . import machine
from .recording import Recorder, Recording

pytestmark = pytest.mark.privileged


def mprotect_of_step(recording: Recording, name: str) -> tuple[mt.Event, dict[str, Any]]:
    """Return the event that the workload speaks of in a step, and what it says."""
    (step,) = (step for step in recording.steps if isinstance(step, Step) and step.name == name)
    with recording.open() as capture:
        (event,) = (
            event
            for event in capture.events()
            if event.kind is EventKind.MPROTECT and event.region and event.region.start == step.fields["page"]
        )
    return event, step.fields


@pytest.mark.emulated
def test_event_has_the_return_addresses_of_its_callers(recorder: Recorder, workloads: Workloads) -> None:
    if not Kernel().knows("BPF_FUNC_task_pt_regs"):
        pytest.skip("this kernel does not say where a call came from (Linux 5.15)")
    recording = recorder.command(workloads.path("nested_calls"))
    event, called = mprotect_of_step(recording, "called")
    assert event.stack[0] == event.caller
    assert list(event.stack[1:3]) == called["returns"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="return addresses are in a register first")
def test_caller_without_a_frame_pointer_does_not_hide_who_called_it(
    recorder: Recorder, workloads: Workloads
) -> None:
    recording = recorder.command(workloads.path("nested_calls"))
    event, called = mprotect_of_step(recording, "wrapped")
    start, end = called["code"]
    with recording.open() as capture:
        wrapper, program = (capture.mapping_at(event.sequence, address) for address in event.stack[:2])
    assert wrapper is not None
    assert Path(wrapper.path or "").name.startswith("libc")
    assert program is not None
    assert program.path == str(workloads.path("nested_calls"))
    assert start < event.stack[1] < end
    assert list(event.stack[2:3]) == called["returns"]


def test_page_on_the_stack_of_a_call_was_executed(recorder: Recorder, workloads: Workloads) -> None:
    # Code in the page calls a function that maps memory: of the page, only its return address is seen.
    recording = recorder.command(workloads.path("coverage/calls_back"))
    (executed,) = (step for step in recording.steps if isinstance(step, Step) and step.name == "executed")
    with recording.open() as capture:
        pages = capture.generations(executed.fields["process"], executed.fields["address"] & -PAGE_SIZE)
    assert any(page.evidence & Evidence.STACK for page in pages)


@pytest.mark.emulated
def test_call_of_the_32_bit_abi_is_an_event_with_its_result(recorder: Recorder, workloads: Workloads) -> None:
    if not Kernel().knows("BPF_FUNC_find_vma"):
        pytest.skip("this kernel does not say what protection there was before (Linux 5.17)")
    recording = recorder.command(workloads.path("coverage/compat_calls"), "hide")
    if recording.ran.status:
        pytest.skip("this kernel has no 32-bit ABI")
    (executed,) = (step for step in recording.steps if isinstance(step, Step) and step.name == "executed")
    with recording.open() as capture:
        calls = [
            (event.kind, event.result, str(event.previous_protection), str(event.protection))
            for event in capture.events()
            if event.status & Status.COMPAT
            and event.region
            and event.region.start == executed.fields["address"]
        ]
    assert calls == [(EventKind.MPROTECT, 0, "rw-", "r-x"), (EventKind.MPROTECT, 0, "r-x", "rw-")]


@pytest.mark.may_skip
def test_page_in_swap_is_fetched_before_the_call_returns(recorder: Recorder, workloads: Workloads) -> None:
    with machine.swap():
        recording = recorder.command(workloads.path("coverage/swapped"), "hide")
    executed = [step for step in recording.steps if isinstance(step, Step) and step.name == "executed"]
    with recording.open() as capture:
        address = executed[0].fields["address"] & -PAGE_SIZE
        pages = capture.generations(executed[0].fields["process"], address)
        assert capture.complete
    if not any(page.fetched for page in pages):
        assert all(page.late or page.event is EventKind.LOOK for page in pages)
        pytest.skip("this kernel cannot leave work to a thread (Linux 6.18)")
    for step, page in zip(executed, pages, strict=True):
        assert page.content is not None
        assert page.content.startswith(bytes.fromhex(step.fields["bytes"]))
        assert (page.event, page.fetched, page.late) == (EventKind.MPROTECT, True, False)
        assert isinstance(page, mt.Page)

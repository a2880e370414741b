"""For each way to execute bytes made at run time: the capture holds them, or says what it lacks."""

from __future__ import annotations

import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

import memory_tracer as mt
from memory_tracer.model import EventKind
from memory_tracer.record.kernel import Kernel
from tests.workloads import PAGE_SIZE, Step, Workloads

from . import machine
from .recording import Recorder, Recording, losses_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "coverage.md"

#: Status of a program whose variant needs what this kernel does not have (coverage.h).
NOT_IN_THIS_KERNEL = 77

MMAP, MPROTECT, PKEY_MPROTECT = EventKind.MMAP, EventKind.MPROTECT, EventKind.PKEY_MPROTECT
MREMAP, SHMAT, LOOK, SAMPLE = EventKind.MREMAP, EventKind.SHMAT, EventKind.LOOK, EventKind.SAMPLE
EXEC_MAPPING = EventKind.EXEC_MAPPING

RWX = frozenset({"unwatched-writes"})

#: What only a pass can see depends on when one comes.
NO_PASSES = ("--pass-rate", "0")

#: Whether user space comes in time to read a page decides which of these are reported.
FETCHED_LATER = frozenset({"not-present", "swapped", "gone", "unreadable"})


@dataclass(frozen=True)
class Technique:
    """A program of tests/workloads/coverage with its variant, and what a capture of it holds."""

    command: str
    triggers: frozenset[EventKind]  #: events that brought the markers; one of them when there is a race
    missed: tuple[int, ...] = ()  #: markers that are not in the capture, by number
    losses: frozenset[str] = frozenset()  #: what the capture says about that, by reason
    others: int = 0  #: generations of the executed pages that hold no marker
    status: int = 0
    races: bool = False  #: which of the triggers brings the markers, or whether user space does, is chance
    options: tuple[str, ...] = ()


def technique(
    command: str,
    *triggers: EventKind,
    missed: tuple[int, ...] = (),
    losses: frozenset[str] = frozenset(),
    others: int = 0,
    status: int = 0,
    races: bool = False,
    options: tuple[str, ...] = (),
) -> Technique:
    return Technique(command, frozenset(triggers), missed, losses, others, status, races, options)


TECHNIQUES = (
    # Memory that is writable and executable at once
    technique("rwx_ends unmap", LOOK, losses=RWX),
    technique("rwx_ends none", LOOK, losses=RWX),
    technique("rwx_ends exit", LOOK, losses=RWX),
    technique("rwx_ends exit_group", LOOK, losses=RWX),
    technique("rwx_ends killed", LOOK, losses=RWX, status=137),
    technique("rwx_ends faulted", LOOK, losses=RWX, status=139),
    technique("rwx_ends execve", LOOK, losses=RWX),
    technique("rwx_ends read", LOOK, losses=RWX),
    technique("io_uring read", LOOK, losses=RWX),
    technique("rwx_rewritten busy", SAMPLE, LOOK, losses=RWX, others=1, races=True),
    technique("rwx_rewritten calls", LOOK, losses=RWX, others=1),
    technique("rwx_rewritten written", LOOK, losses=RWX, others=1),
    technique("rwx_rewritten silent", missed=(0, 1, 2, 3, 4), losses=RWX, others=1, options=NO_PASSES),
    technique("rwx_discarded dontneed", LOOK, losses=RWX),
    technique("rwx_discarded mmap", LOOK, losses=RWX),
    technique("rwx_discarded process_madvise", LOOK, losses=RWX),
    technique("rwx_discarded mremap_shrink", LOOK, losses=RWX),
    technique("rwx_discarded mremap_move", LOOK, losses=RWX),
    technique("rwx_discarded mremap_over", LOOK, losses=RWX),
    technique("io_uring discard", LOOK, losses=RWX),
    technique("grows_down", LOOK, losses=RWX),
    technique("hugetlb rwx", LOOK, losses=RWX),
    technique("swapped rwx", LOOK, losses=RWX, races=True),
    technique("userfaultfd", LOOK),
    # Written, then made executable
    technique("flips 3", MPROTECT),
    technique("flips 40", MPROTECT),
    technique("pkey_mprotect", PKEY_MPROTECT),
    technique("mprotect_range part", MPROTECT),
    technique("mprotect_range several", MPROTECT),
    technique("mprotect_range hole", MPROTECT),
    technique("mprotect_range far_hole", MPROTECT),
    technique("large_region huge", MPROTECT),
    technique("large_region sparse", MPROTECT),
    technique("large_region zero", MPROTECT),
    technique("patched_region pages", MPROTECT, others=4),
    technique("patched_region pairs", MPROTECT, others=4),
    technique("other_thread", MPROTECT),
    technique("hugetlb flip", MPROTECT),
    technique("swapped ends", MPROTECT, LOOK, races=True),
    technique("swapped hide", MPROTECT, LOOK, races=True),
    technique("mremap move", MPROTECT, MREMAP),
    technique("mremap grow", MPROTECT, MREMAP),
    technique("mremap keep", MPROTECT, MREMAP),
    technique("mremap duplicate", MPROTECT, MREMAP, losses=RWX),
    # Stack, heap, personality, the kernel's own code
    technique("stack flip", MPROTECT),
    technique("stack rwx", LOOK, losses=RWX, others=1),
    technique("executable_stack", LOOK, losses=RWX),
    technique("heap flip", MPROTECT),
    technique("heap shrink", LOOK, losses=RWX),
    technique("read_implies_exec mmap", LOOK, losses=RWX),
    technique("read_implies_exec mprotect", MPROTECT),
    technique("read_implies_exec brk", LOOK, losses=RWX),
    technique("vdso flip", MPROTECT, races=True),
    technique("vdso rwx", LOOK, losses=RWX, others=1, races=True),
    technique("vdso mem", LOOK, races=True),
    # Shared memory, memory mapped twice
    technique("double_mapping unmap", LOOK, losses=RWX),
    technique("double_mapping protect", LOOK, losses=RWX),
    technique("double_mapping busy", SAMPLE, LOOK, losses=RWX, races=True),
    technique("double_mapping calls", LOOK, losses=RWX),
    technique("double_mapping silent", LOOK, missed=(0, 1), losses=RWX, options=NO_PASSES),
    technique("double_mapping pwrite", LOOK, losses=RWX),
    technique("double_mapping truncate", LOOK, losses=RWX),
    technique("double_mapping punch", LOOK, losses=RWX),
    technique("remap_file_pages", MMAP, LOOK, losses=RWX),
    technique("system_v attach", SHMAT, others=1),
    technique("system_v detach", LOOK, losses=RWX),
    technique("shared_with_child protected", MPROTECT),
    technique("shared_with_child rwx", LOOK, losses=RWX),
    technique("dev_zero private", MPROTECT, LOOK, losses=RWX),
    technique("dev_zero shared", MPROTECT, LOOK, losses=RWX),
    technique("hugetlb view", MMAP, losses=RWX),
    technique("hugetlb file", MMAP, losses=RWX),
    technique("swapped view", MMAP, LOOK, losses=RWX, races=True),
    # Files and programs
    technique("file_mapping cow disk", MPROTECT),
    technique("file_mapping cow tmpfs", MPROTECT),
    technique("file_mapping view disk", LOOK, races=True, losses=RWX, others=1),
    technique("file_mapping view tmpfs", LOOK, losses=RWX),
    technique("file_mapping deleted disk", MMAP, LOOK, races=True),
    technique("file_mapping deleted tmpfs", MMAP),
    technique("file_mapping deleted_later disk", MMAP),
    technique("file_mapping deleted_later tmpfs", MMAP),
    technique("file_mapping overwritten disk", MMAP),
    technique("file_mapping overwritten tmpfs", MMAP),
    technique("program_image memfd disk", LOOK),
    technique("program_image deleted disk", EXEC_MAPPING, LOOK, races=True),
    technique("program_image deletes_itself disk", LOOK),
    technique("program_image deleted_after disk", LOOK),
    # Several processes
    technique("borrowed_memory vfork", MPROTECT, LOOK),
    technique("borrowed_memory clone", MPROTECT, LOOK),
    technique("inherited exit", MPROTECT, LOOK),
    technique("inherited unmap", MPROTECT, LOOK),
    technique("inherited rewrite", MPROTECT, LOOK),
    technique("pid_namespace", MPROTECT),
    # Written from outside, or around the page's protection
    technique("outside_writer writev 1", LOOK, losses=RWX, others=1),
    technique("outside_writer writev 2", LOOK, losses=RWX, others=1),
    technique("outside_writer mem 1", LOOK, others=1),
    technique("outside_writer mem 2", LOOK, others=1),
    technique("outside_writer ptrace 1", LOOK, others=6),
    technique("outside_writer ptrace 2", LOOK, others=11),
    technique("own_mem_file 1", LOOK),
    technique("own_mem_file 2", LOOK),
    # The 32-bit system calls
    technique("compat_calls mmap", LOOK, losses=RWX),
    technique("compat_calls mprotect", MPROTECT),
    technique("compat_calls munmap", MPROTECT),
    technique("compat_calls hide", MPROTECT),
    technique("i386_program mmap", LOOK, losses=RWX),
    technique("i386_program mprotect", MPROTECT),
    technique("i386_program munmap", MPROTECT),
)


#: What the programs need that not every machine lends, not even to root.
NEEDS = {
    "hugetlb": machine.huge_pages,
    "swapped": machine.swap,
    "i386_program": machine.compat_programs,
}


#: Tested under other kernels as well: one for each part of the kernel program.
EMULATED = {
    "rwx_ends unmap",
    "rwx_ends killed",
    "flips 3",
    "mprotect_range hole",
    "mremap move",
    "double_mapping unmap",
    "hugetlb flip",
    "hugetlb view",
    "swapped hide",
    "outside_writer mem 1",
    "i386_program mprotect",
}


def parameter(expected: Technique) -> ParameterSet:
    """Return the technique as a parameter of the test."""
    marks = [pytest.mark.may_skip] if expected.command.split()[0] in NEEDS else []
    marks += [pytest.mark.emulated] if expected.command in EMULATED else []
    return pytest.param(expected, id=expected.command, marks=marks)


def why_not_here(expected: Technique) -> str | None:
    """Return what this kernel lacks for the answer (limitations.md, "What older kernels lack")."""
    kernel = Kernel()
    if expected.triggers & {LOOK, SAMPLE} and not kernel.knows("bpf_iter_task_vma_new"):
        return "this kernel has no looks and samples (Linux 6.7)"
    if MMAP in expected.triggers and expected.command.startswith("hugetlb") and not kernel.caches_hugetlb:
        return "this kernel counts hugetlbfs's page cache in huge pages (until Linux 6.7)"
    return None


@dataclass(frozen=True)
class Marker:
    """Bytes that a process executed at an address."""

    pid: int
    address: int
    content: bytes

    @property
    def page(self) -> tuple[int, int]:
        """The process and the address of the page."""
        return self.pid, self.address - self.address % PAGE_SIZE

    def is_in(self, page: mt.Page) -> bool:
        """Whether the page, which is the right one, holds these bytes at their place."""
        start = self.address % PAGE_SIZE
        return page.content is not None and page.content[start:].startswith(self.content)


def executed(recording: Recording) -> list[Marker]:
    """Return what the program says it executed, in order."""
    steps = [step for step in recording.steps if isinstance(step, Step) and step.name == "executed"]
    return [
        Marker(step.fields["process"], step.fields["address"], bytes.fromhex(step.fields["bytes"]))
        for step in steps
    ]


def captured(
    expected: Technique, recording: Recording
) -> tuple[list[Marker], dict[tuple[int, int], list[mt.Page]], list[list[mt.Page]], frozenset[str]]:
    """What was executed, the generations of its pages, those of them that hold it, and the losses."""
    if recording.ran.status == NOT_IN_THIS_KERNEL:
        pytest.skip(f"this kernel cannot do what {expected.command} does")
    assert recording.ran.status == expected.status, recording.ran.err
    markers = executed(recording)
    assert markers
    with recording.open() as capture:
        pages = {marker.page: list(capture.generations(*marker.page)) for marker in markers}
        holding = [[page for page in pages[marker.page] if marker.is_in(page)] for marker in markers]
        return markers, pages, holding, losses_of(capture)


#: On a busy machine somebody may hold the lock of the mappings just when they are looked at. The recording
#: says so (missed-looks); then it is made once more.
TRIES = 3


@pytest.fixture
def places() -> Iterator[Mapping[str, str]]:
    """File names on a file system that is written to disk, and on one that is not."""
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as disk,
        tempfile.TemporaryDirectory(dir="/dev/shm") as memory,
    ):
        yield {"disk": f"{disk}/code", "tmpfs": f"{memory}/code"}


@pytest.fixture
def resources(expected: Technique) -> Iterator[None]:
    """What the machine must lend for the technique; skips where it does not."""
    with NEEDS.get(expected.command.split()[0], nullcontext)():
        yield


@pytest.mark.privileged
@pytest.mark.usefixtures("resources")
@pytest.mark.parametrize("hook", machine.hooks())
@pytest.mark.parametrize("expected", [parameter(item) for item in TECHNIQUES])
def test_capture_holds_the_executed_bytes_or_says_what_it_lacks(
    expected: Technique, hook: str, recorder: Recorder, workloads: Workloads, places: Mapping[str, str]
) -> None:
    lacking = why_not_here(expected)
    if lacking is not None:
        pytest.skip(lacking)
    # GIVEN a program that executed known bytes and hid them
    program, *arguments = expected.command.split()
    path = workloads.path(f"coverage/{program}")
    for _ in range(TRIES):
        recording = recorder.command(
            path,
            *(places.get(word, word) for word in arguments),
            options=(*expected.options, "--hook", hook),
        )
        markers, pages, holding, reasons = captured(expected, recording)
        if "missed-looks" not in reasons:
            break

    # THEN each is in one generation of its page, in its process, or is known to be missed
    assert [len(found) for found in holding] == [
        0 if number in expected.missed else 1 for number in range(len(markers))
    ], sorted(reasons)
    assert sum(map(len, pages.values())) == len(markers) - len(expected.missed) + expected.others
    # AND generations of one page are in the order in which they were executed
    orders: dict[tuple[int, int], list[int]] = defaultdict(list)
    for marker, found in zip(markers, holding, strict=True):
        orders[marker.page] += [page.generation for page in found]
    assert all(order == sorted(order) for order in orders.values())
    # AND they were captured when docs/coverage.md says, with the losses it says
    kinds = {page.event for found in holding for page in found}
    # (a pass, which is a look, can come between what a call does and its exit, and bring it first)
    by_chance = {LOOK} - expected.triggers if expected.triggers else set[EventKind]()
    kinds -= by_chance
    assert kinds <= expected.triggers if expected.races else kinds == expected.triggers
    assert reasons - (FETCHED_LATER if expected.races else frozenset()) == expected.losses


#: What the ptrace engine does not capture, by program; the targets of the first cannot run with it.
NOT_WITH_PTRACE = frozenset({"outside_writer", "userfaultfd"})

#: What the kernel cannot protect page by page is not watched.
RELEASED = {"vdso rwx": RWX}


@pytest.mark.usefixtures("resources")
@pytest.mark.parametrize("expected", [parameter(item) for item in TECHNIQUES])
def test_ptrace_engine_captures_what_is_executed(
    expected: Technique, recorder: Recorder, workloads: Workloads, places: Mapping[str, str]
) -> None:
    program, *arguments = expected.command.split()
    if program in NOT_WITH_PTRACE:
        pytest.skip("this is beyond the ptrace engine (docs/coverage.md)")
    if program == "pid_namespace" and os.geteuid():
        pytest.skip("this takes root")
    # GIVEN a program that executed known bytes and hid them
    path = workloads.path(f"coverage/{program}")
    recording = recorder.command(
        path, *(places.get(word, word) for word in arguments), options=("--engine", "ptrace")
    )
    markers, _, holding, reasons = captured(expected, recording)

    # THEN each is in one generation of its page, in its process, in the order in which they ran
    assert [len(found) for found in holding] == [1] * len(markers)
    orders: dict[tuple[int, int], list[int]] = defaultdict(list)
    for marker, (page,) in zip(markers, holding, strict=True):
        orders[marker.page].append(page.generation)
    assert all(order == sorted(order) for order in orders.values())
    assert reasons == RELEASED.get(expected.command, frozenset())


def test_document_names_what_the_ptrace_engine_does_not_capture() -> None:
    section = DOCUMENT.read_text().partition("## With the ptrace engine")[2].partition("\n## ")[0]
    assert set(re.findall(r"^- `(\w+)`", section, re.MULTILINE)) == NOT_WITH_PTRACE


def documented() -> dict[str, tuple[str, str]]:
    """Return the answer and the triggers in the table of docs/coverage.md, by command."""
    rows = re.findall(r"^\|[^|]+\| (\w+) \| ([^|]+) \| `([^`]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    return {command: (answer, triggers) for answer, triggers, command in rows}


def test_document_gives_the_answers_that_are_tested() -> None:
    answers = {command: answer for command, (answer, _) in documented().items()}
    assert answers == {
        item.command: ("partly" if item.triggers else "no") if item.missed else "yes" for item in TECHNIQUES
    }


def test_document_names_the_triggers_that_are_tested() -> None:
    triggers = {command: set(re.findall(r"`(\w+)`", text)) for command, (_, text) in documented().items()}
    assert triggers == {item.command: {str(kind) for kind in item.triggers} for item in TECHNIQUES}

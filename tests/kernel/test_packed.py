"""A packed program yields its whole original code, and the code that unpacked it."""

from __future__ import annotations

from pathlib import Path

import pytest

import memory_tracer as mt
from memory_tracer.model import EventKind
from tests.workloads import PAGE_SIZE, SOURCES, Step, compile_c, parse
from tests.workloads.packer import Code, code_of, pack

from .recording import Ran, Recorder, execute

pytestmark = pytest.mark.privileged

ARGUMENTS = (23, "several", "words")
VARIABLES = {"GREETING": "hello"}


def starts(ran: Ran) -> dict[str, Step]:
    """Return where code started, by the name that a packed program says on standard error."""
    lines = [line for line in ran.err.splitlines() if line.startswith("{")]
    return {step.name: step for step in parse(lines) if isinstance(step, Step)}


def pages_not_held(capture: mt.Capture, code: Code, start: Step) -> list[int]:
    """Return the pages on which some byte of the code was in no mprotect of the process that ran it."""
    address: int = start.fields["address"] - code.entry
    end = address + len(code.content)
    pages = range(address - address % PAGE_SIZE, end, PAGE_SIZE)

    def holds(page: int) -> bool:
        first, last = max(page, address), min(page + PAGE_SIZE, end)
        part = code.content[first - address : last - address]
        return any(
            found.event is EventKind.MPROTECT
            and found.content is not None
            and found.content.startswith(part, first - page)
            for found in capture.generations(start.pid, page)
        )

    return [page for page in pages if not holds(page)]


@pytest.mark.parametrize("linking", ["-static", "-static-pie", "-pie"])
def test_packed_program_yields_all_its_code_and_that_of_its_loader(
    linking: str, recorder: Recorder, tmp_path: Path
) -> None:
    # GIVEN a program, and the same program packed
    original = tmp_path / "original"
    compile_c(SOURCES / "packer" / "original.c", original, "-fPIE", linking)
    packed = pack(original, tmp_path)
    code = code_of(original)
    # AND the packed file holds neither its code nor that of its loader
    file = packed.path.read_bytes()
    assert code.content not in file
    assert packed.stage1.content not in file

    # WHEN the packed one is recorded, THEN it does what the original does
    alone = execute([original, *ARGUMENTS], variables=VARIABLES)
    recording = recorder.command(packed.path, *ARGUMENTS, variables=VARIABLES)
    assert (recording.ran.status, recording.ran.out) == (alone.status, alone.out)
    assert (alone.status, alone.out.split()[0]) == (23, b"hello")
    # AND the capture holds every byte of the code that it decrypted, although it wiped all of it
    ran = starts(recording.ran)
    with recording.open() as capture:
        assert pages_not_held(capture, packed.stage1, ran["stage1"]) == []
        assert pages_not_held(capture, code, ran["original"]) == []
        assert capture.losses == ()

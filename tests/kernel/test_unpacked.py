"""Packed programs come out of a capture as ELF files, which other tools open and which run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import memory_tracer as mt
from tests.foreign import foreign, gdb
from tests.workloads import SOURCES, Step, compile_c, parse
from tests.workloads.packer import code_of, pack, pack_fileless

from .recording import Argument, Ran, Recorder, Recording, execute, tool

pytestmark = pytest.mark.privileged

ARGUMENTS = (23, "several", "words")
VARIABLES = {"GREETING": "hello"}
LINKINGS = ("-static", "-static-pie", "-pie")


@dataclass(frozen=True)
class Rebuilt:
    """A file of an ELF export, and what the index says of it."""

    path: Path
    entry: dict[str, Any]

    def read(self, address: int, size: int) -> bytes | None:
        """Return what was at an address in memory; None when this is not in the file."""
        for segment in self.entry["segments"]:
            inside = address - int(segment["address"], 16)
            if inside >= 0 and inside + size <= segment["file_size"]:
                return self.path.read_bytes()[segment["offset"] + inside :][:size]
        return None


def rebuild(recording: Recording, out: Path, *arguments: Argument) -> list[Rebuilt]:
    """Export the images of a recording."""
    ran = tool("export", recording.path, "--format", "elf", "-o", out, *arguments)
    assert ran.status == 0, ran.err
    entries = json.loads((out / "index.json").read_text())["files"]
    return [Rebuilt(out / entry["file"], entry) for entry in entries]


def record(recorder: Recorder, program: Path, *options: Argument) -> Recording:
    recording = recorder.command(
        program, *ARGUMENTS, options=("--file-age", 0, *options), variables=VARIABLES
    )
    assert recording.ran.status == ARGUMENTS[0], recording.ran.err
    return recording


def start_of(ran: Ran) -> Step:
    """Return where the original says it started."""
    lines = [line for line in ran.err.splitlines() if line.startswith("{")]
    return next(step for step in parse(lines) if isinstance(step, Step) and step.name == "original")


def original_in(directory: Path, *options: str) -> Path:
    path = directory / "original"
    compile_c(SOURCES / "packer" / "original.c", path, "-fPIE", *options)
    return path


def holding_text(files: list[Rebuilt], original: Path, recording: Recording) -> Rebuilt:
    """Return the file whose .text is that of ``original``, byte for byte."""
    code = code_of(original)
    address = start_of(recording.ran).fields["address"] - code.entry
    return next(file for file in files if file.read(address, len(code.content)) == code.content)


@pytest.mark.parametrize("linking", LINKINGS)
def test_code_of_a_packed_program_is_rebuilt_byte_for_byte(
    linking: str, recorder: Recorder, tmp_path: Path
) -> None:
    # GIVEN a program, packed, and recorded as everything is
    original = original_in(tmp_path, linking)
    recording = record(recorder, pack(original, tmp_path).path)
    # WHEN it is exported, THEN one file has the original's .text, and other tools read it
    file = holding_text(rebuild(recording, tmp_path / "out"), original, recording)
    assert "warning" not in foreign("readelf", "-aW", file.path).lower()
    assert "<.text>" in foreign("objdump", "-d", file.path)


@pytest.mark.parametrize("linking", LINKINGS)
def test_whole_packed_program_is_rebuilt_and_runs(linking: str, recorder: Recorder, tmp_path: Path) -> None:
    # GIVEN the same, recorded with memory of every protection
    original = original_in(tmp_path, linking)
    recording = record(recorder, pack(original, tmp_path).path, "--prot", "any")
    # WHEN it is exported, THEN there is a complete image with the original's .text
    file = holding_text(rebuild(recording, tmp_path / "out"), original, recording)
    assert (file.entry["kind"], file.entry["complete"], file.entry["missing"]) == ("image", True, [])
    # AND its headers are the original's
    assert (
        foreign("readelf", "-lW", file.path).split("Section to")[0]
        == (foreign("readelf", "-lW", original).split("Section to")[0])
    )
    # AND it does what the original does
    file.path.chmod(0o700)
    again = execute([file.path, *ARGUMENTS], variables=VARIABLES)
    assert (again.status, again.out) == (23, recording.ran.out)
    # AND the starter rules find it
    hits = tool("scan", recording.path, "--json")
    found = [json.loads(line) for line in hits.out.splitlines()]
    assert ("elf_in_memory", file.entry["address"]) in [(hit["rule"], hit["address"]) for hit in found]


@pytest.mark.parametrize("linking", LINKINGS)
def test_code_of_a_program_executed_from_memory_is_rebuilt(
    linking: str, recorder: Recorder, tmp_path: Path
) -> None:
    # GIVEN a program that is compressed, encrypted, and executed from a memfd
    original = original_in(tmp_path, linking)
    packed = pack_fileless(original, tmp_path)
    assert code_of(original).content not in packed.read_bytes()
    recording = record(recorder, packed)
    # WHEN it is exported, THEN one file has the original's .text, although no file ever had it
    file = holding_text(rebuild(recording, tmp_path / "out"), original, recording)
    assert "warning" not in foreign("readelf", "-aW", file.path).lower()
    assert "<.text>" in foreign("objdump", "-d", file.path)


def test_image_whose_header_is_with_its_code_names_what_is_missing(
    recorder: Recorder, tmp_path: Path
) -> None:
    # GIVEN a program with its headers in the executable segment, executed from a memfd
    original = original_in(tmp_path, "-static-pie", "-Wl,-z,noseparate-code")
    recording = record(recorder, pack_fileless(original, tmp_path))
    # WHEN it is exported, THEN it is an image that lacks its data, which is named
    file = holding_text(rebuild(recording, tmp_path / "out"), original, recording)
    assert (file.entry["kind"], file.entry["complete"]) == ("image", False)
    data = next(segment for segment in file.entry["segments"] if "w" in segment["protection"])
    start = int(data["address"], 16)
    assert all(start - start % 4096 <= int(hole["address"], 16) for hole in file.entry["missing"])
    assert sum(hole["size"] for hole in file.entry["missing"]) >= data["file_size"]


def test_gdb_shows_the_unpacked_code_at_the_time_it_was_there(recorder: Recorder, tmp_path: Path) -> None:
    # GIVEN a packed program, which wipes its code in the end
    original = original_in(tmp_path, "-static")
    recording = record(recorder, pack(original, tmp_path).path)
    start = start_of(recording.ran).fields["address"]
    with recording.open() as capture:
        origin = capture.metadata["clock"]["monotonic_ns"]
        page = next(page for page in capture.generations(recording_pid(recording), start) if page.content)
    # WHEN a core of that moment is exported, THEN gdb shows the original's first instructions
    core = tmp_path / "at.core"
    seconds = f"{(page.timestamp_ns - origin) / 1e9:.9f}"
    ran = tool("export", recording.path, "--format", "core", "-o", core, "--at", seconds)
    assert ran.status == 0, ran.err
    shown = gdb(core, f"x/6i {start:#x}").splitlines()[-6:]
    expected = foreign(
        "objdump", "-d", f"--start-address={start:#x}", f"--stop-address={start + 32:#x}", original
    )
    mnemonics = [line.split("\t")[2].split()[0] for line in expected.splitlines() if line.count("\t") == 2]
    assert [line.split("\t")[1].split()[0] for line in shown] == mnemonics[:6]


def recording_pid(recording: Recording) -> int:
    return start_of(recording.ran).pid


def test_code_of_a_jit_compiler_is_an_elf_file_too(recorder: Recorder, tmp_path: Path) -> None:
    # GIVEN generated code that is no image of anything
    recording = recorder.workload("generations", 3)
    # WHEN it is exported, THEN objdump shows its last generation at its address
    files = rebuild(recording, tmp_path / "out", "--exclude-file-backed")
    with recording.open() as capture:
        (history,) = [item for item in capture.regions(exclude_file_backed=True) if item.generations == 3]
        last = capture.generations(history.pid, history.region.start)[-1]
    (file,) = [file for file in files if file.entry["address"] == hex(history.region.start)]
    assert last.content is not None
    assert file.read(last.address, mt.model.PAGE_SIZE) == last.content
    assert f"{last.address:x}:\tb8 " in foreign("objdump", "-d", file.path)

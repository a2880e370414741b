"""The workloads say truthfully which bytes they made executable: the kernel tests rely on it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.workloads import PAGE_SIZE, Executable, Step, Workloads, compile_c, parse, random_pages

SEED = 1000


def flips(steps: list[Executable | Step]) -> list[Executable]:
    return [step for step in steps if isinstance(step, Executable)]


def test_generator_agrees_with_the_published_xorshift64() -> None:
    # x ^= x << 13; x ^= x >> 7; x ^= x << 17 from 1, worked out by hand: 1 -> 0x2001 -> 0x2041 -> 0x40822041.
    first = random_pages(1, 1)[0]
    assert first[:8] == (0x40822041).to_bytes(8, "little")


def test_pages_of_one_content_differ() -> None:
    pages = random_pages(SEED, 16)
    assert len(set(pages)) == 16
    assert pages[3:5] == random_pages(SEED + 3, 2)


def test_attached_workload_holds_in_memory_what_it_says(workloads: Workloads, tmp_path: Path) -> None:
    command = [str(workloads.path("wait_then_flip")), str(tmp_path), str(SEED)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        steps = list(parse(process.stdout.readline() for _ in range(4)))
        assert isinstance(steps[3], Step)
        assert steps[3].name == "ready"
        with Path(f"/proc/{process.pid}/mem").open("rb") as memory:
            for flip in flips(steps):
                for address, page in flip.pages.items():
                    assert os.pread(memory.fileno(), PAGE_SIZE, address) == page
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        assert "/memfd:code (deleted)" in maps
        assert f"{tmp_path}/deleted (deleted)" in maps
        process.stdin.write(b"\n")
        process.stdin.flush()
        (after,) = parse([process.stdout.readline()])
        assert isinstance(after, Executable)
        with Path(f"/proc/{process.pid}/mem").open("rb") as memory:
            for address, page in after.pages.items():
                assert os.pread(memory.fileno(), PAGE_SIZE, address) == page
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("name", "arguments", "flip_count", "page_count"),
    [
        pytest.param("pages16", (SEED,), 1, 16, id="pages16"),
        pytest.param("generations", (17, SEED), 17, 17, id="generations"),
        pytest.param("unmap_at_once", (SEED,), 1, 1, id="unmap_at_once"),
        pytest.param("threads", (3, 7, SEED), 21, 21, id="threads"),
        pytest.param("forks", (SEED,), 9, 9, id="forks"),
        pytest.param("big", (1, SEED), 1, 256, id="big"),
        pytest.param("sparse", (128, 7, 11, SEED), 11, 77, id="sparse"),
        pytest.param("pkey", (SEED,), 1, 2, id="pkey"),
    ],
)
def test_workload_reports_every_flip(
    workloads: Workloads, name: str, arguments: tuple[int, ...], flip_count: int, page_count: int
) -> None:
    found = flips(workloads.run(name, *arguments))
    assert len(found) == flip_count
    assert sum(len(flip.pages) for flip in found) == page_count


def test_each_generation_has_its_own_bytes_at_one_address(workloads: Workloads) -> None:
    found = flips(workloads.run("generations", 17, SEED))
    assert len({flip.address for flip in found}) == 1
    assert len({page for flip in found for page in flip.pages.values()}) == 17


def test_fork_tree_has_every_way_to_make_a_process(workloads: Workloads) -> None:
    steps = [step for step in workloads.run("forks", SEED) if isinstance(step, Step)]
    assert {step.fields["how"] for step in steps} == {
        "root",
        "fork",
        "fork-exec",
        "vfork-exec",
        "clone",
        "clone-exec",
    }
    assert len({step.pid for step in steps}) == 7


def test_failing_calls_fail_for_the_reasons_meant(workloads: Workloads, tmp_path: Path) -> None:
    failures = [step.fields for step in workloads.run("mmap_exec", tmp_path, SEED) if isinstance(step, Step)]
    assert [(item["call"], os.strerror(item["errno"])) for item in failures] == [
        ("mmap", "Invalid argument"),
        ("mmap", "Bad file descriptor"),
        ("mmap", "File exists"),
        ("mprotect", "Cannot allocate memory"),
        ("mprotect", "Cannot allocate memory"),
    ]


def test_hostile_names_hold_escapes_and_line_breaks(workloads: Workloads, tmp_path: Path) -> None:
    names, _ = workloads.run("hostile_name", tmp_path, SEED)
    assert isinstance(names, Step)
    comm, path = (bytes.fromhex(names.fields[key]) for key in ("comm", "path"))
    assert b"\x1b" in comm
    assert b"\n" in comm
    assert Path(os.fsdecode(path)).exists()
    assert b"\x1b]0;" in path


def test_bundled_sample_prints_what_its_file_does_not_hold(sample_source: Path, tmp_path: Path) -> None:
    program = tmp_path / "sample"
    compile_c(sample_source, program)
    output = subprocess.run([program], check=True, capture_output=True).stdout
    assert output == b"This code was never in the file.\n"
    assert output.strip() not in program.read_bytes()
    assert b"This code" not in program.read_bytes()

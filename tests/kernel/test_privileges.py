"""What memory-tracer may still do once a recording has begun: little, and that suffices."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_tracer import EventKind, open_capture
from memory_tracer.record.privileges import EFFECTIVE, PERMITTED, Capability
from tests.workloads import PAGE_SIZE, Executable, Workloads, parse

from .recording import (
    OLD_FILES,
    TOOL,
    Recorder,
    await_that,
    end_of,
    execute,
    line_from,
    losses_of,
    recorded,
    running,
    said,
)

pytestmark = pytest.mark.privileged

SEED = 32452843
NOBODY = 65534


AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory in which another user may execute programs, and write."""
    with tempfile.TemporaryDirectory() as directory:
        os.chown(directory, NOBODY, NOBODY)
        Path(directory).chmod(0o755)
        yield Path(directory)


def capability_sets(status: Path) -> dict[str, int]:
    """The sets of a thread, by name, and whether it can gain others."""
    fields = dict(re.findall(r"^(Cap\w+|NoNewPrivs):\s*(\w+)$", status.read_text(), re.MULTILINE))
    return {name: int(value, 16) for name, value in fields.items()}


def mask(capabilities: frozenset[Capability]) -> int:
    return sum(1 << capability for capability in capabilities)


@pytest.mark.emulated
def test_every_thread_of_a_recording_has_only_the_capabilities_that_are_listed(
    recorder: Recorder, workloads: Workloads
) -> None:
    path = recorder.new_path()
    held = capability_sets(Path("/proc/self/status"))["CapPrm"]
    with running(workloads.path("wait_then_flip"), recorder.directory, SEED) as target:
        steps = list(parse(line_from(target) for _ in range(4)))
        with running(*TOOL, "attach", "-o", path, target.pid) as process:
            await_that(lambda: path.exists() and path.stat().st_size > 0, "the capture is begun")
            await_that(lambda: _baseline_contents(path) >= 6, "the baseline")
            threads = list(Path(f"/proc/{process.pid}/task").iterdir())
            found = [capability_sets(thread / "status") for thread in threads]
            assert end_of(target).status == 0
            assert end_of(process).status == 0
    assert len(steps) == 4
    assert len(threads) > 1  # the one that reads late, too
    for sets in found:
        assert sets["CapEff"] == mask(EFFECTIVE) & held
        assert sets["CapPrm"] == mask(PERMITTED) & held
        assert sets["CapInh"] == sets["CapAmb"] == 0
        assert sets["NoNewPrivs"] == 1


def _baseline_contents(path: Path) -> int:
    with open_capture(path) as capture:
        return sum(page.event is EventKind.BASELINE for page in capture.pages(missing=False))


def test_capabilities_suffice_for_processes_of_other_users(
    recorder: Recorder, workloads: Workloads, shared: Path
) -> None:
    path = recorder.new_path()
    program = shutil.copy(workloads.path("wait_then_flip"), shared)
    with running(*AS_NOBODY, program, shared, SEED) as target:
        before = [step for step in parse(line_from(target) for _ in range(4)) if isinstance(step, Executable)]
        with running(*TOOL, "attach", *OLD_FILES, "-o", path, target.pid) as process:
            await_that(lambda: path.exists() and path.stat().st_size > 0, "the capture is begun")
            await_that(lambda: _baseline_contents(path) >= 6, "the baseline")
            ran = end_of(target)
            assert ran.status == 0
            assert end_of(process).status == 0
    (flip,) = (step for step in parse(ran.out.splitlines()) if isinstance(step, Executable))
    with open_capture(path) as capture:
        for step in (*before, flip):
            for address, content in step.pages.items():
                pages = capture.pages(start=address, end=address + PAGE_SIZE)
                assert content in {page.content for page in pages}
        assert capture.counters["recorder"]["refused_readings"] == 0


def test_accessed_bits_of_another_users_process_can_still_be_cleared(
    recorder: Recorder, workloads: Workloads, shared: Path
) -> None:
    path = recorder.new_path()
    program = shutil.copy(workloads.path("on_command"), shared)

    def epochs() -> int:
        with open_capture(path) as capture:
            return int(capture.counters.get("recorder", {}).get("epochs", 0))

    with running(*AS_NOBODY, program) as target:
        line_from(target)
        with running(*TOOL, "attach", *OLD_FILES, "-o", path, target.pid) as process:
            await_that(lambda: path.exists() and _baseline_events(path) > 0, "the target is recorded")
            assert target.stdin is not None
            target.stdin.write(b"b 4096\n")  # to compare it takes long, so it gets an epoch
            line_from(target)
            await_that(lambda: epochs() > 0, "an epoch began")
            assert end_of(target).status == 0
            assert end_of(process).status == 0


def _baseline_events(path: Path) -> int:
    if not path.stat().st_size:
        return 0
    with open_capture(path) as capture:
        return sum(1 for _ in capture.events(kinds={EventKind.BASELINE}))


def test_older_capture_in_another_users_directory_is_replaced(workloads: Workloads, tmp_path: Path) -> None:
    directory = tmp_path / "theirs"
    directory.mkdir(mode=0o700)
    os.chown(directory, NOBODY, NOBODY)
    path = directory / "capture.mtrace"
    path.write_text("older")
    ran = execute((*TOOL, "run", "--force", *OLD_FILES, "-o", path, "--", workloads.path("pages16"), SEED))
    assert ran.status == 0, ran.err
    assert list(directory.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with open_capture(path) as capture:
        assert losses_of(capture) == frozenset()
        assert recorded(capture) == said(parse(ran.out.splitlines()))


#: Tries what a recording does with another user's process, without one of the capabilities that are kept.
WITHOUT_ONE = """
import os, sys
from pathlib import Path
from memory_tracer.record import privileges

lacking, process = privileges.Capability[sys.argv[1]], Path("/proc", sys.argv[2])
privileges.EFFECTIVE -= {lacking}
privileges.PERMITTED -= {lacking}
privileges.drop()

def clear():
    with privileges.raised(privileges.Capability.DAC_OVERRIDE):
        os.close(os.open(process / "clear_refs", os.O_WRONLY))

mapped = process / "map_files" / next((process / "maps").open()).split()[0]
attempts = {
    "clear": clear,
    "read": lambda: os.close(os.open(process / "mem", os.O_RDONLY)),
    "mapped": lambda: mapped.stat(),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError:
        print(name)
"""


@pytest.mark.parametrize(
    ("capability", "failing"),
    [
        (Capability.DAC_OVERRIDE, {"clear"}),
        (Capability.DAC_READ_SEARCH, {"read", "mapped"}),
        (Capability.SYS_PTRACE, {"read", "mapped"}),
        (Capability.CHECKPOINT_RESTORE, {"mapped"}),
    ],
    ids=lambda value: value.name if isinstance(value, Capability) else "",
)
def test_reading_takes_each_of_the_capabilities_that_are_kept_for_it(
    capability: Capability, failing: set[str], workloads: Workloads, shared: Path
) -> None:
    program = shutil.copy(workloads.path("on_command"), shared)
    with running(*AS_NOBODY, program) as target:
        line_from(target)
        ran = execute((sys.executable, "-c", WITHOUT_ONE, capability.name, target.pid))
        assert end_of(target).status == 0
    assert ran.err == ""
    assert set(ran.out.decode().split()) == failing

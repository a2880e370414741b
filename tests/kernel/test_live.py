"""``live`` follows real recordings: fast ones, at no cost to them, and attached ones, in a terminal."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.bench import Bench
from memory_tracer import EventKind, open_capture
from memory_tracer.live.watch import Watch
from tests.workloads import Workloads

from .recording import ENVIRONMENT, OLD_FILES, TOOL, Recorder, await_that, end_of, running
from .test_attach import waiting

pytestmark = pytest.mark.privileged

#: Each changes the page that it makes executable.
FLIPS = 50021


def calls_of(path: Path) -> int:
    """Return how many calls of the target are in a capture from which nothing is missing."""
    with open_capture(path) as capture:
        assert capture.losses == ()
        return sum(1 for _ in capture.events(kinds=[EventKind.MPROTECT], exclude_file_backed=True))


def test_a_fast_target_is_followed_to_its_end_and_nothing_is_lost(recorder: Recorder, tmp_path: Path) -> None:
    # GIVEN a target that changes its code without rest, recorded by itself
    target = (Bench(tmp_path).program("flips"), "changed", 1, FLIPS, 0)
    alone = recorder.command(*target, options=OLD_FILES)
    # WHEN it is recorded again, and somebody looks all the time
    path = recorder.new_path()
    seen: list[int] = []
    with running(*TOOL, "run", *OLD_FILES, "-o", path, "--", *target) as process:
        await_that(lambda: path.exists() and path.stat().st_size > 1 << 10, "the recording has begun")
        watch = Watch(path)
        while not (summary := watch.look()).finished:
            assert summary.state == "RECORDING"
            seen.append(summary.pages)
        watch.close()
        assert end_of(process).status == 0
    # THEN the view saw it grow, and has in the end what the capture has
    assert len(set(seen)) > 1
    assert seen == sorted(seen)
    assert (summary.state, summary.losses) == ("FINISHED", ())
    with open_capture(path) as capture:
        assert (summary.pages, summary.events) == (capture.page_count, capture.event_count)
    # AND it has every call, as without the view
    assert calls_of(path) == calls_of(alone.path) >= FLIPS


def events_on(screen: str) -> int:
    """Return how many events the first line says there are."""
    found = re.search(r"([\d,]+) events", screen)
    return int(found[1].replace(",", "")) if found else 0


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_a_running_process_is_watched_in_a_real_terminal(
    recorder: Recorder, workloads: Workloads, tmp_path: Path
) -> None:
    pytest.importorskip("textual")
    path, status = recorder.new_path(), tmp_path / "status"
    tmux = ["tmux", "-S", str(tmp_path / "tmux")]

    def screen() -> str:
        shown = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True)
        return shown.stdout

    def shows(text: str) -> None:
        await_that(lambda: text in screen(), f"{text!r} on the screen")

    # GIVEN live, attached to a process that runs, on a terminal of 80 by 24
    with waiting(workloads, recorder.directory) as target:
        view = shlex.join([*TOOL, "live", "--pid", str(target.pid), "-o", str(path)])
        start = [*tmux, "-f", os.devnull, "new-session", "-d", "-x", "80", "-y", "24"]
        environment = ENVIRONMENT | {"LC_ALL": "C.UTF-8"}
        subprocess.run([*start, f"{view}; echo $? > {status}"], check=True, env=environment)
        try:
            shows("RECORDING")
            before = events_on(screen())
            # WHEN the process makes code, THEN that is counted
            step = target.flip()
            await_that(lambda: events_on(screen()) > before, "more events on the screen")
            lines = screen().splitlines()
            assert len(lines) == 24
            assert "q Quit" in lines[-1]
            assert str(target.pid) in screen()
            # AND leaving ends the recording in order, and not the process
            subprocess.run([*tmux, "send-keys", "q"], check=True)
            await_that(lambda: status.exists() and status.read_text() == "0\n", "the view was left")
            assert target.finish() == 0
        finally:
            subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)
    with open_capture(path) as capture:
        assert capture.end is not None
        assert capture.end["reason"] == "interrupted"
        assert capture.read(step.pid, min(step.pages), 4096) == step.pages[min(step.pages)]

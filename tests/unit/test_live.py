"""``memory-tracer live``: what stands on a terminal of 80 by 24, and what keys do."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import memory_tracer
from memory_tracer.capture.writer import CaptureWriter
from memory_tracer.live.watch import REGIONS_KEPT, Watch
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, METADATA, RecordStream, write_capture
from .scenario import CODE, PACKED, CommandLine, whole_scenario

pytest.importorskip("textual")

from textual.pilot import Pilot

from memory_tracer.live.app import LiveApp

Steps = Callable[[Pilot[None], LiveApp], Awaitable[None]]
TIME_LIMIT_SECONDS = 30


def screen(app: LiveApp) -> str:
    """Return the screen as text, a line for each row."""
    return "\n".join(
        "".join(segment.text for segment in line) for line in app.screen._compositor.render_strips()
    )


async def shows(pilot: Pilot[None], app: LiveApp, text: str) -> None:
    """Wait until ``text`` is on the screen."""
    end = time.monotonic() + TIME_LIMIT_SECONDS
    while text not in screen(app):
        assert time.monotonic() < end, f"{text!r} is not on the screen:\n{screen(app)}"
        await pilot.pause(0.02)


def with_app(path: Path, steps: Steps) -> None:
    async def body() -> None:
        watch = Watch(path)
        app = LiveApp(watch, path.name, interval=0.02)
        async with app.run_test(size=(80, 24)) as pilot:
            await steps(pilot, app)
        watch.close()

    asyncio.run(body())


def test_one_screen_has_processes_regions_losses_bytes_and_keys(hostile: Path) -> None:
    async def steps(pilot: Pilot[None], app: LiveApp) -> None:
        await shows(pilot, app, "FINISHED")
        await shows(pilot, app, f"{PACKED:#x}")
        await shows(pilot, app, "ev\\x1b[31mil")
        await shows(pilot, app, "q Quit")
        shown = screen(app)
        lines = shown.splitlines()
        assert len(lines) == 24
        assert "2 processes" in lines[0]
        assert "swapped: 2 pages" in lines[1]
        assert "/ Filter" in lines[-1]
        assert "q Quit" in lines[-1]
        assert "\x1b" not in shown

    with_app(hostile, steps)


def test_bytes_of_the_chosen_region_are_shown_as_hex_and_as_instructions(tmp_path: Path) -> None:
    pytest.importorskip("capstone")
    path = write_capture(tmp_path / "whole.mtrace", whole_scenario())

    async def steps(pilot: Pilot[None], app: LiveApp) -> None:
        await shows(pilot, app, f"{BASE:012x} {CODE[:8].hex(' ')}")
        await pilot.press("d")
        await shows(pilot, app, "mov eax, 0x2a")
        await pilot.press("f", *"RET", "enter")
        await shows(pilot, app, "ret")
        assert app._found == 4

    with_app(path, steps)


def test_filter_keeps_the_regions_with_the_text(hostile: Path) -> None:
    async def steps(pilot: Pilot[None], app: LiveApp) -> None:
        await shows(pilot, app, "rwx")
        await pilot.press("slash", *"rwx", "enter")
        await shows(pilot, app, "1 of 4 regions, with 'rwx'")
        await pilot.press("escape")
        await shows(pilot, app, "4 of 4 regions")

    with_app(hostile, steps)


def test_markup_in_names_and_filters_stays_text(tmp_path: Path) -> None:
    stream = RecordStream(comm=b"[red]x[/red]")
    stream.flip(1)
    path = write_capture(tmp_path / "[bold]name.mtrace", stream)

    async def steps(pilot: Pilot[None], app: LiveApp) -> None:
        await shows(pilot, app, "[red]x[/red]")
        await shows(pilot, app, "[bold]name.mtrace")
        await pilot.press("slash", *"[/]", "enter")
        await shows(pilot, app, "with '[/]'")

    with_app(path, steps)


def test_what_is_appended_appears(tmp_path: Path) -> None:
    stream = RecordStream()
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:

        async def steps(pilot: Pilot[None], app: LiveApp) -> None:
            await shows(pilot, app, "RECORDING")
            stream.flip(1)
            writer.append(stream.take())
            await shows(pilot, app, f"{BASE:#x}")
            stream.flip(2, address=BASE + 16 * PAGE_BYTES)
            writer.append(stream.take())
            writer.counters({"kernel": {"pages": 2}})
            writer.finish(reason="targets-ended", wait_status=0)
            await shows(pilot, app, "FINISHED")
            await shows(pilot, app, f"{BASE + 16 * PAGE_BYTES:#x}")
            await shows(pilot, app, "COMPLETE: nothing was lost")

        with_app(writer.path, steps)


def test_the_newest_region_is_chosen_until_another_is(tmp_path: Path) -> None:
    stream = RecordStream()
    regions = [BASE + 16 * number * PAGE_BYTES for number in range(4)]
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:

        async def append(pilot: Pilot[None], app: LiveApp, number: int, chosen: int) -> None:
            stream.flip(number + 1, address=regions[number])
            writer.append(stream.take())
            await shows(pilot, app, f"{number + 1} of {number + 1} regions")
            await shows(pilot, app, f"{regions[chosen]:012x} ")

        async def steps(pilot: Pilot[None], app: LiveApp) -> None:
            await append(pilot, app, 0, chosen=0)
            await append(pilot, app, 1, chosen=1)
            await pilot.press("down")
            await append(pilot, app, 2, chosen=0)
            await pilot.press("home")
            await append(pilot, app, 3, chosen=3)

        with_app(writer.path, steps)


def test_of_many_regions_the_latest_are_kept_and_the_rest_counted(tmp_path: Path) -> None:
    stream = RecordStream()
    for number in range(REGIONS_KEPT + 7):
        stream.flip(1, address=BASE + 2 * number * PAGE_BYTES)
    watch = Watch(write_capture(tmp_path / "many.mtrace", stream))
    summary = watch.look()
    watch.close()
    assert (len(summary.regions), summary.regions_dropped) == (REGIONS_KEPT, 7)
    assert summary.regions[0].region.start == BASE + 2 * (REGIONS_KEPT + 6) * PAGE_BYTES


def test_a_recording_that_outgrows_the_view_is_no_longer_followed(tmp_path: Path) -> None:
    stream = RecordStream()
    with CaptureWriter(tmp_path / "c.mtrace", METADATA) as writer:
        stream.flip(1)
        writer.append(stream.take())
        watch = Watch(writer.path, row_limit=1)
        stream.flip(2)
        writer.append(stream.take())
        summary = watch.look()
        watch.close()
    assert (summary.state, summary.finished, summary.pages) == ("TOO LARGE TO FOLLOW", True, 1)


def test_without_a_terminal_it_says_what_to_use(cli: CommandLine, hostile: Path) -> None:
    ran = cli("live", hostile)
    assert (ran.status, ran.out) == (2, "")
    assert "live needs a terminal" in ran.err


@pytest.mark.parametrize("arguments", [(), ("FILE", "-p", "1"), ("FILE", "--", "true")])
def test_exactly_one_thing_is_watched(cli: CommandLine, arguments: tuple[str, ...]) -> None:
    ran = cli("live", *arguments)
    assert ran.status == 2
    assert "live takes one of" in ran.err


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_a_real_terminal(hostile: Path, tmp_path: Path) -> None:
    socket = ["tmux", "-S", str(tmp_path / "tmux")]
    environment = os.environ | {
        "PYTHONPATH": str(Path(memory_tracer.__path__[0]).parent),
        "LC_ALL": "C.UTF-8",
    }
    view = shlex.join([sys.executable, "-m", "memory_tracer", "live", str(hostile)])
    status = tmp_path / "status"
    start = [*socket, "-f", os.devnull, "new-session", "-d", "-x", "80", "-y", "24"]
    subprocess.run([*start, f"{view}; echo $? > {status}"], check=True, env=environment)
    try:
        end = time.monotonic() + TIME_LIMIT_SECONDS
        shown = ""
        wanted = ("FINISHED", "INCOMPLETE", f"{PACKED:#x}", "q Quit")
        while not all(text in shown for text in wanted) and time.monotonic() < end:
            time.sleep(0.1)
            capture = [*socket, "capture-pane", "-p"]
            shown = subprocess.run(capture, capture_output=True, text=True, check=True).stdout
        assert [text for text in wanted if text not in shown] == []
        subprocess.run([*socket, "send-keys", "q"], check=True)
        while not status.exists() and time.monotonic() < end:
            time.sleep(0.1)
        assert status.read_text() == "0\n"
    finally:
        subprocess.run([*socket, "kill-server"], check=False, capture_output=True)

"""``memory-tracer debug`` shows the program at work and leaves every switch as it was."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from memory_tracer.record.kernel import Kernel
from tests.workloads import TIME_LIMIT_SECONDS, Executable, Workloads, parse

from .recording import TOOL, end_of, line_from, line_to, running, tool

pytestmark = pytest.mark.privileged

SEED = 49979693
WAITS = "echo $$; read line; exec "


class Switch:
    """The ``enable`` file of one trace event or group."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._directory = Kernel().tracefs

    def _open(self, flags: int) -> int:
        return os.open(f"events/{self._event}/enable", flags, dir_fd=self._directory)

    @property
    def state(self) -> str:
        with os.fdopen(self._open(os.O_RDONLY)) as file:
            return file.read().strip()

    def turn(self, state: str) -> None:
        with os.fdopen(self._open(os.O_WRONLY), "w") as file:
            file.write(state)


@contextmanager
def turned_on(switch: Switch) -> Iterator[None]:
    """Have a switch on that was off."""
    assert switch.state == "0"
    switch.turn("1")
    try:
        yield
    finally:
        switch.turn("0")


def test_each_mprotect_of_the_target_is_printed(workloads: Workloads) -> None:
    ran = tool("debug", "--", workloads.path("generations"), 7, SEED)
    assert ran.status == 0
    lines = ran.out.decode().splitlines()
    flips = [
        step for step in parse(line for line in lines if line.startswith("{")) if isinstance(step, Executable)
    ]
    printed = re.findall(rf"PROT: (0x\w+) \| PID: {flips[0].pid}$", ran.out.decode(), re.MULTILINE)
    # The loader protects some of its own; the last fourteen are the workload's.
    assert printed[-14:] == ["0x5", "0x3"] * 7


def test_system_call_events_are_on_while_the_command_runs_and_off_afterwards(workloads: Workloads) -> None:
    switches = [Switch(f"syscalls/sys_{way}_mprotect") for way in ("enter", "exit")]
    script = f"{WAITS} {workloads.path('pages16')} {SEED}"
    with running(*TOOL, "debug", "--syscall", "mprotect", "--", "sh", "-c", script) as process:
        line_from(process)
        assert [switch.state for switch in switches] == ["1", "1"]
        line_to(process)
        ran = end_of(process)
    assert ran.status == 0
    assert [switch.state for switch in switches] == ["0", "0"]
    assert re.search(r"sys_mprotect\(start: \w+, len: (0x)?10000, prot: (0x)?5\)", ran.out.decode())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_switches_are_turned_back_when_it_is_interrupted(number: signal.Signals) -> None:
    switch = Switch("syscalls/sys_enter_munmap")
    with running(*TOOL, "debug", "--syscall", "munmap", "--", "sh", "-c", f"{WAITS} true") as process:
        line_from(process)
        assert switch.state == "1"
        process.send_signal(number)
        assert process.wait(TIME_LIMIT_SECONDS) == 130
    assert switch.state == "0"


def test_switch_that_was_on_before_stays_on(workloads: Workloads) -> None:
    enter, leave = Switch("syscalls/sys_enter_pkey_mprotect"), Switch("syscalls/sys_exit_pkey_mprotect")
    with turned_on(enter):
        ran = tool("debug", "--syscall", "pkey_mprotect", "--", workloads.path("pkey"), SEED)
        assert ran.status == 0
        assert (enter.state, leave.state) == ("1", "0")


def test_all_system_calls_can_be_watched_at_once() -> None:
    group = Switch("syscalls")
    before = group.state
    ran = tool("debug", "--all-syscalls", "--", "true")
    assert ran.status == 0
    assert "sys_exit_group" in ran.out.decode()
    assert group.state == before


def test_running_process_can_be_watched(workloads: Workloads) -> None:
    with running("sh", "-c", f"{WAITS} {workloads.path('pages16')} {SEED}") as target:
        pid = int(line_from(target))
        with running(*TOOL, "debug", "--syscall", "pkey_mprotect", "--pid", pid) as process:
            switch = Switch("syscalls/sys_exit_pkey_mprotect")
            while switch.state == "0":
                os.sched_yield()
            line_to(target)
            assert end_of(target).status == 0
            for line in iter(lambda: line_from(process), b""):
                if f"PROT: 0x5 | PID: {pid}" in line.decode():
                    break
            process.send_signal(signal.SIGINT)
            assert process.wait(TIME_LIMIT_SECONDS) == 130


def test_event_that_this_kernel_lacks_is_a_usage_error() -> None:
    ran = tool("debug", "--syscall", "no_such_call", "true")
    assert ran.status == 2
    assert "sys_enter_no_such_call" in ran.sentence


def test_nothing_to_watch_is_a_usage_error() -> None:
    ran = tool("debug")
    assert ran.status == 2
    assert "nothing to watch" in ran.sentence


def test_command_is_watched_as_the_user_behind_sudo() -> None:
    ran = tool("debug", "--", "id", "-u", variables={"SUDO_UID": "65534", "SUDO_GID": "65534"})
    assert ran.status == 0
    assert "65534" in ran.out.decode().splitlines()

"""Who started whom, and how each process ended."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterable, Iterator, Sequence

from ..model import Process

#: Start times from user space count ticks of 10 ms (docs/file-format.md, "Reading back").
_TICK_NS = 10**7

Identity = tuple[int, int]


def identity(pid: int, start_time_ns: int) -> Identity:
    """Return what tells one process from another of the same PID: (pid, start time in ticks)."""
    return pid, start_time_ns // _TICK_NS


def process_tree(processes: Sequence[Process]) -> Iterator[tuple[int, Process]]:
    """Yield (depth, process), each parent before its children, siblings by start time.

    A parent is the latest process of that PID that started no later than the child and stands
    before it, so that no claim of a capture can make a circle.
    """
    ordered = sorted(processes, key=lambda process: process.start_time_ns)
    latest: dict[int, int] = {}
    children: dict[int | None, list[int]] = {None: []}
    for index, process in enumerate(ordered):
        parent = None if process.parent_pid is None else latest.get(process.parent_pid)
        children.setdefault(parent, []).append(index)
        latest[process.pid] = index
    waiting = [(0, index) for index in reversed(children[None])]
    while waiting:
        depth, index = waiting.pop()
        yield depth, ordered[index]
        waiting.extend((depth + 1, child) for child in reversed(children.get(index, [])))


def command_text(process: Process) -> str:
    """Return the command line as a shell would take it, else the path, else nothing."""
    return shlex.join(process.command_line) or process.path or ""


def describe_wait_status(status: int) -> str:
    """Return ``exit 3`` or ``killed by SIGKILL`` for a status as wait(2) returns it."""
    number = status & 0x7F
    if not number:
        return f"exit {status >> 8 & 0xFF}"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"killed by {name}" + (", core dumped" if status & 0x80 else "")


def by_identity(processes: Iterable[Process]) -> dict[Identity, Process]:
    """Index ``processes`` by :func:`identity`."""
    return {identity(process.pid, process.start_time_ns): process for process in processes}

"""The processes of a capture, put together from the steps of their lives."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from ..model import EventKind, Process
from .columns import Rows
from .decode import Decoder, decode_comm
from .format import LAST_ORDINAL
from .relations import Relations
from .texts import Texts

_STEPS = (EventKind.BASELINE, EventKind.FORK, EventKind.EXEC, EventKind.EXIT)


@dataclass(slots=True)
class _Life:
    """What is known about one process so far."""

    parent_pid: int | None = None
    path: str | None = None
    command_line: tuple[str, ...] = ()
    ended_ns: int | None = None
    wait_status: int | None = None
    namespace_pid: int | None = None


def list_processes(relations: Relations, decoder: Decoder, texts: Texts) -> tuple[Process, ...]:
    """Return the processes in order of first appearance."""
    lives = _lives(relations, decoder, texts)
    return tuple(
        _process(life, head, relations.events[last] if last >= 0 else None)
        for life, head, last in zip(lives, relations.processes, relations.last_event.tolist(), strict=True)
    )


def _lives(relations: Relations, decoder: Decoder, texts: Texts) -> list[_Life]:
    lives = [_Life() for _ in relations.processes]
    bearers: dict[int, list[int]] = defaultdict(list)
    for number, pid in enumerate(relations.processes["pid"].tolist()):
        bearers[pid].append(number)
    steps = np.flatnonzero(np.isin(relations.events["kind"], _STEPS))
    rows = relations.events[steps]
    columns = [
        rows[name].tolist()
        for name in ("kind", "ordinal", "parent_pid", "timestamp_ns", "result", "namespace_pid")
    ]
    for event, process, kind, ordinal, parent_pid, timestamp, result, inner in zip(
        steps.tolist(), relations.event_process[steps].tolist(), *columns, strict=True
    ):
        life = lives[process]
        life.parent_pid = life.parent_pid or parent_pid or None
        life.namespace_pid = life.namespace_pid or inner or None
        parents = [number for number in bearers.get(parent_pid, ()) if number < process]
        if kind == EventKind.FORK and parents:
            # Until it calls execve, a child runs its parent's program.
            parent = lives[parents[-1]]
            life.path = parent.path
            life.command_line = texts.command_line(parents[-1], ordinal) or parent.command_line
        elif kind == EventKind.EXEC:
            life.path = decoder.path(event)
        elif kind == EventKind.EXIT:
            life.ended_ns, life.wait_status = timestamp, result
    for number, life in enumerate(lives):
        life.command_line = texts.command_line(number, LAST_ORDINAL) or life.command_line
    return lives


def _process(life: _Life, head: Rows, last: Rows | None) -> Process:
    return Process(
        pid=int(head["pid"]),
        start_time_ns=int(head["start_time_ns"]),
        parent_pid=life.parent_pid,
        comm=decode_comm(last["comm"].tobytes()) if last is not None else "",
        path=life.path,
        command_line=life.command_line,
        uid=int(last["uid"]) if last is not None else None,
        first_seen_ns=int(head["timestamp_ns"]),
        ended_ns=life.ended_ns,
        wait_status=life.wait_status,
        namespace_pid=life.namespace_pid,
    )

"""Captures as large as one likes, written as the recorder writes them, without recording anything.

Many processes take turns. Each makes regions of different sizes executable, again and again at the same
addresses, so that pages have generations; a part of the contents was there before. Contents are the bytes
of a real program, a few of them changed in each page.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from memory_tracer.capture.columns import dtype_of
from memory_tracer.capture.writer import CaptureWriter
from memory_tracer.model import PAGE_SIZE, EventKind, Protection
from memory_tracer.wire.encode import Encoder, Identity
from memory_tracer.wire.layout import (
    COUNTERS,
    EVENT,
    PAGE,
    SEQUENCE_CPU_SHIFT,
    SIZES,
    STACK,
    WIRE_VERSION,
    FieldSpec,
    RecordType,
)
from memory_tracer.wire.split import split

#: 4 GiB of content.
MILLION = 1 << 20
#: Pages of a batch: what the recorder takes from the ring at once.
_BATCH_PAGES = 1024
#: Pages of the regions of a batch, by turns.
_REGION_PAGES = (1, 16, 4, 64, 2, 256)
_PROCESSES = 64
#: A region is made so often at the same address in one batch, so that its pages have generations.
_GENERATIONS = 8
#: One page in so many has contents that were there before.
_DUPLICATE_EVERY = 4
_TEMPLATES = 2048
#: Where in a page the bytes are that make it differ from all others.
_SEED_AT = 64

_FIRST_PID, _FIRST_ADDRESS, _PROGRAM = 2000, 0x7F10_0000_0000, 0x40_0000
_EXECUTABLE = Protection.READ | Protection.EXEC
_WORD = np.dtype("<u8")


def write_large(path: Path, pages: int = MILLION) -> None:
    """Write a capture with about ``pages`` pages (at least that many) to ``path``."""
    metadata = {
        "tool": {"name": "memory-tracer", "version": "benchmark"},
        "created_ns": time.time_ns(),
        "clock": {"monotonic_ns": 1_000_000_000, "realtime_ns": time.time_ns()},
        "command": ["./generated"],
        "targets": [],
        "engine": "ebpf",
        "hook": "tracepoint",
        "filters": {},
    }
    with CaptureWriter(path, metadata) as writer:
        writer.append(split(np.frombuffer(_lives(), np.uint8)))
        sent = 0
        for batch in _batches(pages):
            sent += _BATCH_PAGES
            writer.append(split(batch))
        kernel = dict.fromkeys(COUNTERS, 0) | {"pages": sent}
        writer.counters({"kernel": kernel, "recorder": {}})
        writer.finish(reason="targets-ended", wait_status=0)


def _lives() -> bytes:
    """Return the first records: the processes, each a child of the one before, and their programs."""
    encoder, records = Encoder(0), []
    for number in range(_PROCESSES):
        who = Identity(_FIRST_PID + number, _FIRST_PID + number, _started(number), 2_000_000_000 + number)
        name, device, inode = b"worker-%d" % number, 0x800001, 5000 + number
        records += [
            encoder.event(who, 0, kind=EventKind.FORK, parent_pid=who.pid - 1, uid=1000, comm=name)[1],
            encoder.path(who, device, inode, b"/opt/generated/" + name),
            encoder.command_line(who, name + b"\0--number\0%d\0" % number),
            encoder.event(who, 0, kind=EventKind.EXEC, inode=inode, device=device, comm=name)[1],
            encoder.event(
                who,
                _PROGRAM,
                kind=EventKind.EXEC_MAPPING,
                length=64 * PAGE_SIZE,
                protection=_EXECUTABLE,
                inode=inode,
                device=device,
                page_count=64,
                comm=name,
            )[1],
        ]
    return b"".join(records)


def _batches(pages: int) -> Iterator[NDArray[np.uint8]]:
    """Yield so many pages as the ring would hold them: regions of one process in each batch."""
    templates, random = _templates(), np.random.default_rng(1)
    taken = 0
    #: How many calls with regions of this size there were in each process.
    calls: dict[tuple[int, int], int] = {}
    for number in range(-(-pages // _BATCH_PAGES)):
        process, size = number % _PROCESSES, _REGION_PAGES[number // _PROCESSES % len(_REGION_PAGES)]
        count, before = _BATCH_PAGES // size, calls.get((process, size), 0)
        calls[process, size] = before + count
        seeds = np.arange(number * _BATCH_PAGES, (number + 1) * _BATCH_PAGES, dtype=np.uint64)
        again = random.random(_BATCH_PAGES) < 1 / _DUPLICATE_EVERY
        seeds[again] = random.integers(0, seeds[0] + 1, int(again.sum()), dtype=np.uint64)
        regions = _regions(process, size, before, count)
        _number(regions, taken, 2_100_000_000 + number * 1_000_000)
        taken += count * (size + 2)
        pages_of = regions["pages"].reshape(-1)
        content = pages_of["content"].copy().view(np.uint8).reshape(_BATCH_PAGES, PAGE_SIZE)
        content[:] = templates[seeds % np.uint64(_TEMPLATES)]
        content[:, _SEED_AT : _SEED_AT + 8] = (seeds + np.uint64(1)).view(np.uint8).reshape(-1, 8)
        regions["pages"]["content"] = content.view(f"V{PAGE_SIZE}").reshape(regions["pages"].shape)
        yield regions.view(np.uint8)


def _regions(process: int, size: int, before: int, count: int) -> NDArray[np.void]:
    """Return ``count`` calls for regions of ``size`` pages, each with its stack and its pages."""
    ringed = [("ring", "<u8")]
    kinds = (("event", EVENT, ()), ("stack", STACK, ()), ("pages", PAGE, (size,)))
    parts = [(name, [*ringed, *_descriptions(fields)], shape) for name, fields, shape in kinds]
    regions = np.zeros(count, np.dtype(parts))
    # Consecutive calls are at consecutive places, and come back to them when the places are used up.
    place = (before + np.arange(count)) % max(1, count // _GENERATIONS)
    address = _FIRST_ADDRESS + size * (1 << 32) + place * (size + 1) * PAGE_SIZE
    types = {"event": RecordType.EVENT, "stack": RecordType.STACK, "pages": RecordType.PAGE}
    for name, kind in types.items():
        part = regions[name]
        part["ring"], part["version"], part["type"], part["size"] = (
            SIZES[kind],
            WIRE_VERSION,
            kind,
            SIZES[kind],
        )
        part["pid"] = part["tid"] = _FIRST_PID + process
        part["start_time_ns"] = _started(process)
    event, stack = regions["event"], regions["stack"]
    event["address"], event["length"], event["page_count"] = address, size * PAGE_SIZE, size
    event["kind"], event["protection"], event["previous_protection"] = EventKind.MPROTECT, _EXECUTABLE, 3
    event["uid"], event["caller_ip"] = 1000, _PROGRAM + 0x1234
    event["comm"] = np.frombuffer((b"worker-%d" % process).ljust(16, b"\0"), "V16")[0]
    stack["count"], stack["frames"][:, 0] = 1, _PROGRAM + 0x1234
    regions["pages"]["address"] = address[:, None] + np.arange(size) * PAGE_SIZE
    return regions


def _number(regions: NDArray[np.void], taken: int, now_ns: int) -> None:
    """Give sequence numbers from ``taken`` on, and times from ``now_ns`` on, a microsecond apart."""
    size = regions["pages"].shape[1]
    first = taken + 1 + np.arange(len(regions)) * (size + 2)
    # User space's own CPU numbers the lives.
    regions["event"]["sequence"] = first | (1 << SEQUENCE_CPU_SHIFT)
    regions["stack"]["sequence"] = regions["event"]["sequence"] + 1
    regions["pages"]["sequence"] = regions["event"]["sequence"][:, None] + np.arange(2, size + 2)
    regions["stack"]["cause"] = regions["event"]["sequence"]
    regions["pages"]["cause"] = regions["event"]["sequence"][:, None]
    times = now_ns + np.arange(len(regions)) * 1000
    regions["event"]["timestamp_ns"] = regions["stack"]["timestamp_ns"] = times
    regions["pages"]["timestamp_ns"] = times[:, None]


def _descriptions(fields: tuple[FieldSpec, ...]) -> list[Any]:
    return list(dtype_of(fields).descr)


def _started(process: int) -> int:
    return 1_000_000_000 + process * 20_000_000


def _templates() -> NDArray[np.uint8]:
    """Return pages of the program that runs this."""
    program = np.fromfile(sys.executable, np.uint8, _TEMPLATES * PAGE_SIZE)
    return np.resize(program, (_TEMPLATES, PAGE_SIZE))


@click.command("capture")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--pages", default=MILLION, show_default=True, type=click.IntRange(1))
def capture(file: Path, pages: int) -> None:
    """Write a capture of so many generated pages to FILE, to try things on."""
    write_large(file, pages)

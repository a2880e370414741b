"""How fast captures are stored, beside what the machine could do at best."""

from __future__ import annotations

import json
import mmap
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .bench import Bench
from .flips import Case
from .samples import Spread, rotated
from .tables import Table
from .tracers import MEMORY_TRACER, UNTRACED, Tracer, run

#: All pages are written before the first flip, so that nothing but the flips takes time. The last look at a
#: process does not go beyond 1 GiB.
CASES = (Case("ready", 1024, 240), Case("ready", 131072, 1))
_RING_BYTES = 64 << 20
_PIECE_BYTES, _PIECES = 4 << 20, 128


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: nanoseconds in all calls and of the whole command, and what it lost and took."""

    calls_ns: float
    whole_ns: int
    lost: int
    cpu_ns: int
    peak_bytes: int


class Storing:
    """What limits a target that makes much memory executable at once: how fast it is stored."""

    title = "Storing"
    method = """\
The target of *without rest* has all its memory written before the first flip. When the ring is full its
calls wait (`--lossless`), so their time is that of storing. *GB/s* counts what does not fit the ring. *Adds*
is the time of all calls less that of the same calls untraced. *Whole run* is from the start of the command to
the closed capture, in which everything is hashed. CPU and memory are memory-tracer's own, at their peak, read
from `/proc` every 20 ms. Beside: the disk, with direct writes of 4 MiB to a new file on the same file system,
and NumPy copying between two arrays of 64 MiB that were used before."""

    def __init__(self, bench: Bench) -> None:
        """Measure nothing yet."""
        self._bench = bench
        self.samples: dict[tuple[Case, Tracer], list[Sample]] = defaultdict(list)
        self.limits: dict[str, list[float]] = defaultdict(list)

    def run_round(self, number: int) -> None:
        """Flip, copy and write."""
        limits: list[tuple[str, Callable[[], float]]] = [
            ("direct writes to the disk", self._write),
            ("memory to memory", _copy),
        ]
        for name, measure in rotated(limits, number):
            self.limits[name].append(measure())
        for case in CASES:
            for tracer in rotated((UNTRACED, MEMORY_TRACER), number):
                self.samples[case, tracer].append(self._flip(case, tracer))

    def _flip(self, case: Case, tracer: Tracer) -> Sample:
        flips = case.flips if case.flips == 1 else self._bench.scaled(case.flips)
        target = [self._bench.program("flips"), case.mode, str(case.pages), str(flips), "0"]
        done = run(tracer, target, self._bench.directory)
        lost = done.captured.lost if done.captured else 0
        calls_ns = json.loads(done.output)["mean_ns"] * flips
        return Sample(
            calls_ns, done.ended_ns - done.started_ns, lost, done.usage.cpu_ns, done.usage.peak_bytes
        )

    def _write(self) -> float:
        """Write 512 MiB past the page cache; return bytes per nanosecond."""
        path = self._bench.directory / "disk"
        piece = mmap.mmap(-1, _PIECE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            piece.madvise(mmap.MADV_HUGEPAGE)
        piece.write(os.urandom(_PIECE_BYTES))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o600)
        try:
            started = time.monotonic_ns()
            written = sum(os.pwrite(descriptor, piece, number * _PIECE_BYTES) for number in range(_PIECES))
            return written / (time.monotonic_ns() - started)
        finally:
            os.close(descriptor)
            path.unlink()

    def tables(self) -> list[Table]:
        """Return what was stored how fast, and the machine's own limits."""
        stored = Table(("calls", "GB/s", "adds", "pages lost", "whole run", "CPU time", "memory"))
        for case in CASES:
            flips = case.flips if case.flips == 1 else self._bench.scaled(case.flips)
            samples, plain = self.samples[case, MEMORY_TRACER], self.samples[case, UNTRACED]
            size = max(0, flips * case.pages * mmap.PAGESIZE - _RING_BYTES)
            added = [traced.calls_ns - alone.calls_ns for traced, alone in zip(samples, plain, strict=True)]
            stored.add(
                f"{flips:,} of {case.pages // 256:,} MiB",
                Spread.of(size / sample.calls_ns for sample in samples).text(""),
                Spread.of(added).text("ms", 1e6, digits=0),
                Spread.of(sample.lost for sample in samples).text("", digits=0),
                Spread.of(sample.whole_ns for sample in samples).text("s", 1e9),
                Spread.of(sample.cpu_ns for sample in samples).text("s", 1e9),
                Spread.of(sample.peak_bytes for sample in samples).text("MiB", 1 << 20, digits=0),
            )
        limits = Table(("the machine's own", "GB/s"))
        for name, rates in self.limits.items():
            limits.add(name, Spread.of(rates).text(""))
        return [stored, limits]


def _copy() -> float:
    """Copy between arrays that were used before, some times; return bytes per nanosecond at best."""
    source, target = (np.ones(_RING_BYTES, dtype=np.uint8) for _ in range(2))
    times = []
    for _ in range(5):
        started = time.monotonic_ns()
        target[:] = source
        times.append(time.monotonic_ns() - started)
    return _RING_BYTES / min(times)

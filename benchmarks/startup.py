"""How long it takes from a command typed to its first instruction."""

from __future__ import annotations

import compileall
import sys
from collections import defaultdict
from dataclasses import dataclass

import memory_tracer

from .bench import Bench
from .samples import Spread, rotated
from .tables import Table
from .tracers import ALL_TRACERS, UNTRACED, Tracer, run

#: One round has several, as each is short.
_REPEATS = 2
_PYTHON = f"{UNTRACED.name}: python -c pass"


@dataclass(frozen=True, slots=True)
class Sample:
    """Nanoseconds from before exec of the tracer; ``first_ns`` is None for what has no such line."""

    first_ns: int | None
    end_ns: int


class Startup:
    """Start and end of a command that does nothing."""

    title = "From the command to the first instruction"
    method = """\
A clock read before the tracer's own exec, and one read by the first statement of the target's `main`
(`first_instruction.c`): the tracer's start, loading, attaching, and the target's own exec are between
them. *To the end* is when the whole command has returned, with the capture closed and the closing lines
printed. Python's own start and end stand beside."""

    def __init__(self, bench: Bench) -> None:
        """Measure nothing yet. The package is compiled, as installing it does."""
        compileall.compile_dir(memory_tracer.__path__[0], quiet=1)
        self._bench = bench
        self.samples: dict[str, list[Sample]] = defaultdict(list)

    def run_round(self, number: int) -> None:
        """Start the target under every tracer, some times."""
        for repeat in range(_REPEATS):
            for tracer in rotated(ALL_TRACERS, number + repeat):
                self._start(tracer)
            done = run(UNTRACED, [sys.executable, "-c", "pass"], self._bench.directory)
            self.samples[_PYTHON].append(Sample(None, done.ended_ns - done.started_ns))

    def _start(self, tracer: Tracer) -> None:
        done = run(tracer, [self._bench.program("first_instruction")], self._bench.directory)
        first = int(done.output) - done.started_ns
        self.samples[tracer.name].append(Sample(first, done.ended_ns - done.started_ns))

    def tables(self) -> list[Table]:
        """Return the times of each tracer."""
        table = Table(("", "to the first instruction", "to the end"))
        for name, samples in self.samples.items():
            first = [sample.first_ns for sample in samples if sample.first_ns is not None]
            end = Spread.of(sample.end_ns for sample in samples)
            table.add(name, _milliseconds(Spread.of(first)) if first else "", _milliseconds(end))
        return [table]


def _milliseconds(spread: Spread) -> str:
    return spread.text("ms", 1e6)

"""What one ``mprotect(PROT_READ | PROT_EXEC)`` costs more when it is traced."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .bench import Bench
from .samples import Spread, rotated
from .tables import Table
from .tracers import ALL_TRACERS, MEMORY_TRACER, UNTRACED, Tracer, run

_MODES = {
    "new": "a new region each time",
    "changed": "the same region, every page changed",
    "unchanged": "the same region, nothing changed",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One way of flipping, as in flips.c."""

    mode: str
    pages: int
    flips: int

    @property
    def name(self) -> str:
        """What stands in the table's first column."""
        return _MODES[self.mode]


@dataclass(frozen=True, slots=True)
class Sample:
    """One process's flips: nanoseconds per call, and the pages whose bytes are not in the capture."""

    median_ns: float
    mean_ns: float
    lost: int


CASES = tuple(
    Case(mode, pages, flips) for mode in _MODES for pages, flips in ((1, 3000), (16, 1000), (1024, 24))
)
#: As fast as the target can, more than the ring buffer holds.
BURSTS = (Case("new", 1, 20000), Case("new", 16, 4000), Case("new", 1024, 128))


class Flips:
    """The cost of a flip when the recorder has the time to keep up."""

    title = "One call that makes memory executable"
    method = """\
`flips.c` times each of its calls of `mprotect(PROT_READ | PROT_EXEC)` with `clock_gettime`. *Adds* is
the median call under the tracer less the median call without, so reading the clock cancels out; *mean*
is the same with mean calls and shows what the median hides, such as wake-ups; *per page* is *adds*
divided by the pages of one call. After every 4 MiB the target rests for 20 ms, so that the recorder
keeps up and what is measured is the cost of capturing, not that of losing; the pages lost are shown
beside. A new region is copied. A region flipped again and again becomes hot: its pages are compared in
the kernel with those sent last, and only what changed is sent; the target flips it 16 times before the
clock starts. In the second table is what the others add to the median call: they see the same calls, and
keep none of their bytes; but for `--hook tracepoint`, which is memory-tracer by the way that works on all
kernels."""

    def __init__(self, bench: Bench, cases: Sequence[Case] = CASES) -> None:
        """Measure ``cases``."""
        self._bench = bench
        self._cases = cases
        self.samples: dict[tuple[Case, Tracer], list[Sample]] = defaultdict(list)

    def run_round(self, number: int) -> None:
        """Flip in every way under every tracer."""
        for case in self._cases:
            for tracer in rotated(ALL_TRACERS, number):
                self.samples[case, tracer].append(flip(self._bench, case, tracer, rest_us=20_000))

    def tables(self) -> list[Table]:
        """Return what the tracers add to one call."""
        columns = ("region", "pages", "untraced", "memory-tracer adds", "mean", "per page", "pages lost")
        table = Table(columns)
        others = [tracer for tracer in ALL_TRACERS if tracer not in (UNTRACED, MEMORY_TRACER)]
        beside = Table(("region", "pages", *(tracer.name for tracer in others)))
        for case in self._cases:
            added = self._added(case, MEMORY_TRACER, "median_ns")
            table.add(
                case.name,
                f"{case.pages:,}",
                _microseconds(Spread.of(sample.median_ns for sample in self.samples[case, UNTRACED])),
                _microseconds(added),
                f"{self._added(case, MEMORY_TRACER, 'mean_ns').median / 1000:,.1f} µs",
                f"{added.median / case.pages:,.0f} ns",
                Spread.of(sample.lost for sample in self.samples[case, MEMORY_TRACER]).text("", digits=0),
            )
            cells = [_microseconds(self._added(case, tracer, "median_ns")) for tracer in others]
            beside.add(case.name, f"{case.pages:,}", *cells)
        return [table, beside]

    def _added(self, case: Case, tracer: Tracer, field: str) -> Spread:
        """What ``tracer`` adds, the runs of one round compared with each other."""
        pairs = zip(self.samples[case, tracer], self.samples[case, UNTRACED], strict=True)
        return Spread.of(getattr(traced, field) - getattr(plain, field) for traced, plain in pairs)


class Bursts:
    """How much is lost when the target does not rest."""

    title = "Without rest"
    method = """\
The same target flips new regions as fast as it can, each page different from all others. The ring
buffer has its default size; when it is full, pages are lost, counted, and the capture says so. The last
look sends what is still missing once more; what is lost then counts again, so it can be more than all."""

    def __init__(self, bench: Bench, cases: Sequence[Case] = BURSTS) -> None:
        """Measure ``cases``."""
        self._bench = bench
        self._cases = cases
        self.samples: dict[Case, list[Sample]] = defaultdict(list)

    def run_round(self, number: int) -> None:
        """Flip in every way."""
        for case in rotated(self._cases, number):
            self.samples[case].append(flip(self._bench, case, MEMORY_TRACER, rest_us=0))

    def tables(self) -> list[Table]:
        """Return the share of pages lost."""
        table = Table(("pages of one call", "calls", "bytes", "pages lost"))
        for case in self._cases:
            calls = self._bench.scaled(case.flips)
            size = f"{calls * case.pages / 256:,.0f} MiB"
            share = Spread.of(sample.lost / (calls * case.pages) * 100 for sample in self.samples[case])
            table.add(f"{case.pages:,}", f"{calls:,}", size, share.text("%", digits=0))
        return [table]


def flip(bench: Bench, case: Case, tracer: Tracer, *, rest_us: int) -> Sample:
    """Run flips.c once; ``rest_us`` microseconds of rest after every 4 MiB."""
    numbers = (case.pages, bench.scaled(case.flips), rest_us)
    target = [bench.program("flips"), case.mode, *map(str, numbers)]
    done = run(tracer, target, bench.directory)
    times = json.loads(done.output)
    return Sample(times["median_ns"], times["mean_ns"], done.captured.lost if done.captured else 0)


def _microseconds(spread: Spread) -> str:
    return spread.text("µs", 1000)

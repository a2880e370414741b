"""What a process that nobody traces pays while another one is traced."""

from __future__ import annotations

import json
from collections import defaultdict

from .bench import Bench
from .samples import Spread, rotated
from .tables import Table
from .tracers import ALL_TRACERS, UNTRACED, Tracer, run, running

_CALLS = {"getppid_ns": "getppid", "mmap_munmap_ns": "mmap and munmap", "spawn_ns": "fork and exec"}
_BLOCKS = 100


class Bystander:
    """System calls of an untraced process."""

    title = "What others pay"
    method = """\
`bystander.c` times blocks of 2,000 system calls, and of 20 processes that it starts (`vfork`, `execve` of a
program that ends at once, `wait`), untraced. Meanwhile a process that only waits runs: by itself, or under a
tracer. The ratio is to the first, within one round."""

    def __init__(self, bench: Bench) -> None:
        """Measure nothing yet."""
        self._bench = bench
        self.samples: dict[Tracer, list[dict[str, float]]] = defaultdict(list)

    def run_round(self, number: int) -> None:
        """Measure the bystander beside a target of every tracer."""
        blocks = str(self._bench.scaled(_BLOCKS))
        for tracer in rotated(ALL_TRACERS, number):
            with running(tracer, [self._bench.program("first_instruction")], self._bench.directory):
                done = run(UNTRACED, [self._bench.program("bystander"), blocks], self._bench.directory)
            self.samples[tracer].append(json.loads(done.output))

    def tables(self) -> list[Table]:
        """Return the time of each kind of call."""
        table = Table(("calls of the bystander", "the other process is", "time of one", "ratio"))
        for call, name in _CALLS.items():
            for tracer in ALL_TRACERS:
                times = [sample[call] for sample in self.samples[tracer]]
                pairs = zip(self.samples[tracer], self.samples[UNTRACED], strict=True)
                ratio = Spread.of(sample[call] / plain[call] for sample, plain in pairs)
                state = tracer.name if tracer is UNTRACED else f"under {tracer.name}"
                table.add(name, state, Spread.of(times).text("ns", digits=0), ratio.text("", digits=2))
        return [table]

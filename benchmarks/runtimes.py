"""What tracing costs programs that generate code all the time."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import dataclass

from .bench import Bench
from .samples import Spread, rotated
from .tables import Table
from .tracers import MEMORY_TRACER, STRACE, TRACERS, UNTRACED, BenchmarkError, Captured, Tracer, run

#: What takes longer is stopped, and not tried again (seconds).
_TIME_LIMIT = 20.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """A code generator, and a script in ``programs`` that makes it compile ``functions`` functions."""

    name: str
    command: tuple[str, ...]
    script: str
    functions: int


_OPCACHE = {
    "enable_cli": "1",
    "file_update_protection": "0",
    "jit_buffer_size": "32M",
    "jit": "tracing",
}
RUNTIMES = (
    Runtime("LuaJIT", ("luajit",), "functions.lua", 8000),
    Runtime("Ruby, YJIT", ("ruby", "--yjit"), "functions.rb", 300),
    Runtime(
        "PHP, JIT",
        ("php", *(f"-dopcache.{name}={value}" for name, value in _OPCACHE.items())),
        "functions.php",
        1000,
    ),
    Runtime("Node", ("node",), "functions.js", 1000),
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: nanoseconds from the program's fork to its end, None when it was stopped."""

    program_ns: int | None
    captured: Captured | None


class Runtimes:
    """Wall time of whole programs."""

    title = "Programs that generate code"
    method = f"""\
Each script in `programs` makes its runtime compile many small functions. The time is that of the program
from its fork to its end (`stopwatch.c`, which is traced with it), so the tracer's own start and end are
not in it. What takes longer than {_TIME_LIMIT:.0f} s is stopped. The output must be the same under every
tracer. LuaJIT, Ruby and PHP flip between writable and executable; Ruby asks for 128 MiB and PHP for
32 MiB in each call. Node asks for memory that is writable and executable at once and then writes into
it without any further call: these are the regions not watched."""

    def __init__(self, bench: Bench) -> None:
        """Measure the runtimes that are installed."""
        self._bench = bench
        self._runtimes = [runtime for runtime in RUNTIMES if shutil.which(runtime.command[0])]
        self.samples: dict[tuple[Runtime, Tracer], list[Sample]] = defaultdict(list)
        self._outputs: dict[Runtime, bytes] = {}

    def run_round(self, number: int) -> None:
        """Run every program under every tracer that was fast enough so far."""
        for runtime in self._runtimes:
            for tracer in rotated(TRACERS, number):
                samples = self.samples[runtime, tracer]
                if all(sample.program_ns is not None for sample in samples):
                    samples.append(self._run(runtime, tracer))

    def _run(self, runtime: Runtime, tracer: Tracer) -> Sample:
        directory = self._bench.directory
        watch = directory / "stopwatch.ns"
        functions = str(self._bench.scaled(runtime.functions))
        script = self._bench.script(runtime.script)
        program = (*runtime.command, script, functions, str(directory))
        target = [self._bench.program("stopwatch"), str(watch), *program]
        done = run(tracer, target, directory, stop_after=None if tracer is UNTRACED else _TIME_LIMIT)
        if done.stopped:
            return Sample(None, done.captured)
        if self._outputs.setdefault(runtime, done.output) != done.output:
            raise BenchmarkError(f"{runtime.name} prints something else under {tracer.name}")
        return Sample(int(watch.read_text()), done.captured)

    def tables(self) -> list[Table]:
        """Return times, and what was captured."""
        columns = ("program", "untraced", "memory-tracer, ratio", "strace, ratio")
        table = Table((*columns, "pages captured", "pages lost", "regions not watched"))
        for runtime in self._runtimes:
            captured = [sample.captured for sample in self.samples[runtime, MEMORY_TRACER] if sample.captured]
            table.add(
                runtime.name,
                Spread.of(self._times(runtime, UNTRACED)).text("s", 1e9, 2),
                self._ratio(runtime, MEMORY_TRACER),
                self._ratio(runtime, STRACE),
                Spread.of(one.pages for one in captured).text("", digits=0),
                Spread.of(one.lost for one in captured).text("", digits=0),
                Spread.of(one.unwatched for one in captured).text("", digits=0),
            )
        absent = [runtime.name for runtime in RUNTIMES if runtime not in self._runtimes]
        for name in absent:
            table.add(name, "not installed", *[""] * (len(table.columns) - 2))
        return [table]

    def _times(self, runtime: Runtime, tracer: Tracer) -> list[int]:
        return [sample.program_ns for sample in self.samples[runtime, tracer] if sample.program_ns]

    def _ratio(self, runtime: Runtime, tracer: Tracer) -> str:
        plain = self._times(runtime, UNTRACED)
        samples = self.samples[runtime, tracer]
        if any(sample.program_ns is None for sample in samples):
            return f"stopped: over {_TIME_LIMIT * 1e9 / Spread.of(plain).median:,.0f}"
        times = self._times(runtime, tracer)
        return Spread.of(traced / alone for traced, alone in zip(times, plain, strict=True)).text("")

"""What tracing costs programs that generate code all the time."""

from __future__ import annotations

import shutil
from collections import defaultdict
from dataclasses import dataclass

from .bench import Bench
from .samples import Spread, rotated
from .tables import Chart, Table
from .tracers import (
    ALL_TRACERS,
    MEMORY_TRACER,
    STRACE,
    UNTRACED,
    BenchmarkError,
    Captured,
    Tracer,
    run,
)

#: What takes longer is stopped, and not tried again (seconds).
_TIME_LIMIT = 20.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """A code generator, and a script in ``programs`` that makes it compile ``functions`` functions.

    In ``command``, ``{script}`` is where that is, ``{functions}`` how many, ``{directory}`` one to write to.
    """

    name: str
    command: tuple[str, ...]
    script: str
    functions: int

    def program(self, bench: Bench) -> list[str]:
        """Return the command line."""
        values = {
            "script": bench.script(self.script),
            "functions": bench.scaled(self.functions),
            "directory": bench.directory,
        }
        return [part.format_map(values) for part in self.command]


_OPCACHE = {
    "enable_cli": "1",
    "file_update_protection": "0",
    "jit_buffer_size": "32M",
    "jit": "tracing",
}
_ARGUMENTS = ("{script}", "{functions}", "{directory}")
RUNTIMES = (
    Runtime("LuaJIT", ("luajit", *_ARGUMENTS), "functions.lua", 8000),
    Runtime("Ruby, YJIT", ("ruby", "--yjit", *_ARGUMENTS), "functions.rb", 300),
    Runtime(
        "PHP, JIT",
        ("php", *(f"-dopcache.{name}={value}" for name, value in _OPCACHE.items()), *_ARGUMENTS),
        "functions.php",
        1000,
    ),
    Runtime("Node", ("node", *_ARGUMENTS), "functions.js", 1000),
    Runtime("HotSpot", ("java", *_ARGUMENTS), "Functions.java", 20000),
    Runtime(
        "SBCL",
        (
            *("sbcl", "--noinform", "--no-sysinit", "--no-userinit"),
            *("--eval", '(defparameter*arguments*(list"{directory}/dump"{functions}))'),
            *("--load", "{script}", "--quit"),
        ),
        "functions.lisp",
        1000,
    ),
    Runtime("PyPy", ("pypy3", *_ARGUMENTS), "functions.py", 300),
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
32 MiB in each call. The others have memory that is writable and executable at once, or mapped twice, and
write into it without any further call: these are the regions not watched. The second table has the ratios
of the other tracers, of which none keeps any bytes but `--hook tracepoint`. In the chart, bars are
memory-tracer and the line is strace."""

    def __init__(self, bench: Bench) -> None:
        """Measure the runtimes that are installed."""
        self._bench = bench
        self._runtimes = [runtime for runtime in RUNTIMES if shutil.which(runtime.command[0])]
        self.samples: dict[tuple[Runtime, Tracer], list[Sample]] = defaultdict(list)
        self._outputs: dict[Runtime, bytes] = {}

    def run_round(self, number: int) -> None:
        """Run every program under every tracer that was fast enough so far."""
        for runtime in self._runtimes:
            for tracer in rotated(ALL_TRACERS, number):
                samples = self.samples[runtime, tracer]
                if all(sample.program_ns is not None for sample in samples):
                    samples.append(self._run(runtime, tracer))

    def _run(self, runtime: Runtime, tracer: Tracer) -> Sample:
        directory = self._bench.directory
        watch = directory / "stopwatch.ns"
        target = [self._bench.program("stopwatch"), str(watch), *runtime.program(self._bench)]
        done = run(tracer, target, directory, stop_after=None if tracer is UNTRACED else _TIME_LIMIT)
        if done.stopped:
            return Sample(None, done.captured)
        output = done.output.strip()  # bpftrace adds empty lines
        if self._outputs.setdefault(runtime, output) != output:
            raise BenchmarkError(f"{runtime.name} prints something else under {tracer.name}")
        return Sample(int(watch.read_text()), done.captured)

    def tables(self) -> list[Table | Chart]:
        """Return times, and what was captured."""
        columns = ("program", "untraced", "memory-tracer, ratio")
        table = Table((*columns, "pages captured", "pages lost", "regions not watched"))
        others = [tracer for tracer in ALL_TRACERS if tracer not in (UNTRACED, MEMORY_TRACER)]
        beside = Table(("program", *(f"{tracer.name}, ratio" for tracer in others)))
        for runtime in self._runtimes:
            captured = [sample.captured for sample in self.samples[runtime, MEMORY_TRACER] if sample.captured]
            table.add(
                runtime.name,
                Spread.of(self._times(runtime, UNTRACED)).text("s", 1e9, 2),
                self._ratio(runtime, MEMORY_TRACER),
                Spread.of(one.pages for one in captured).text("", digits=0),
                Spread.of(one.lost for one in captured).text("", digits=0),
                Spread.of(one.unwatched for one in captured).text("", digits=0),
            )
            beside.add(runtime.name, *(self._ratio(runtime, tracer) for tracer in others))
        absent = [runtime.name for runtime in RUNTIMES if runtime not in self._runtimes]
        for name in absent:
            table.add(name, "not installed", *[""] * (len(table.columns) - 2))
        return [table, beside, self._chart()]

    def _chart(self) -> Chart:
        measured = [
            runtime
            for runtime in self._runtimes
            if all(
                sample.program_ns
                for tracer in (MEMORY_TRACER, STRACE)
                for sample in self.samples[runtime, tracer]
            )
        ]
        return Chart(
            "Wall time of programs that generate code: memory-tracer (bars), strace (line)",
            "times the untraced run",
            tuple(runtime.name for runtime in measured),
            *(
                tuple(Spread.of(self._ratios(runtime, tracer)).median for runtime in measured)
                for tracer in (MEMORY_TRACER, STRACE)
            ),
        )

    def _ratios(self, runtime: Runtime, tracer: Tracer) -> list[float]:
        pairs = zip(self._times(runtime, tracer), self._times(runtime, UNTRACED), strict=True)
        return [traced / alone for traced, alone in pairs]

    def _times(self, runtime: Runtime, tracer: Tracer) -> list[int]:
        return [sample.program_ns for sample in self.samples[runtime, tracer] if sample.program_ns]

    def _ratio(self, runtime: Runtime, tracer: Tracer) -> str:
        plain = self._times(runtime, UNTRACED)
        samples = self.samples[runtime, tracer]
        if any(sample.program_ns is None for sample in samples):
            return f"stopped: over {_TIME_LIMIT * 1e9 / Spread.of(plain).median:,.0f}"
        return Spread.of(self._ratios(runtime, tracer)).text("")

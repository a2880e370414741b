"""The command line: ``python -m benchmarks ptrace``: what the ptrace engine costs, beside strace."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

import click

from memory_tracer import Error

from . import machine
from .bench import Bench
from .runtimes import RUNTIMES, Runtime
from .samples import Spread, rotated
from .tables import Table
from .tracers import STRACE, UNTRACED, WITH_PTRACE, BenchmarkError, Tracer, run

_TRACERS = (UNTRACED, WITH_PTRACE, STRACE)
_TIME_LIMIT = 120.0


#: Ruby makes 128 MiB executable at each call, and does not end in that time.
SUBJECTS = tuple(one for one in RUNTIMES if one.script != "functions.rb")


@click.command("ptrace")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--only", type=click.Choice([one.name for one in SUBJECTS]), help="Measure this one alone.")
def ptrace(rounds: int, only: str | None) -> None:
    """Measure what the ptrace engine costs code generators, beside no tracing and strace."""
    if shutil.which("strace") is None:
        raise click.ClickException("this compares with strace; install it")
    chosen = [one for one in SUBJECTS if only in (None, one.name) and shutil.which(one.command[0])]
    table = Table(("program", "untraced", "memory-tracer, ratio", "strace, ratio"))
    with tempfile.TemporaryDirectory(prefix="memory-tracer-bench-") as name:
        bench = Bench(Path(name))
        for subject in chosen:
            try:
                table.add(subject.name, *_measure(bench, subject, rounds))
            except Error as error:
                raise click.ClickException(str(error)) from error
            click.echo(f"{subject.name}: {rounds} rounds", err=True)
        facts = machine.describe(bench.directory)
    click.echo(table.markdown())
    click.echo(f"\n{facts['kernel']}; {facts['processor']}; {rounds} rounds.")


def _measure(bench: Bench, subject: Runtime, rounds: int) -> tuple[str, str, str]:
    """Run a program under each tracer in turn; times are those of the program, from fork to end."""
    watch, outputs = bench.directory / "stopwatch.ns", set()
    times: dict[Tracer, list[int]] = defaultdict(list)
    for number in range(rounds):
        for tracer in rotated(_TRACERS, number):
            target = [bench.program("stopwatch"), str(watch), *subject.program(bench)]
            outputs.add(run(tracer, target, bench.directory, stop_after=_TIME_LIMIT).output)
            times[tracer].append(int(watch.read_text()))
    if len(outputs) != 1:
        raise BenchmarkError(f"{subject.name} does not print the same under each tracer")
    alone = times[UNTRACED]
    ours, theirs = (
        Spread.of(traced / plain for traced, plain in zip(times[tracer], alone, strict=True)).text("")
        for tracer in (WITH_PTRACE, STRACE)
    )
    return Spread.of(alone).text("s", 1e9, 2), ours, theirs

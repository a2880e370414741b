"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from memory_tracer import Error, PrivilegeError

from . import machine
from .bench import Bench, Measurement
from .bystander import Bystander
from .document import render, write_document
from .flips import Bursts, Flips
from .generators.command import generators
from .large import capture
from .ptrace import ptrace
from .reading import Reading, reading
from .runtimes import Runtimes
from .startup import Startup
from .storing import Storing
from .tracers import BenchmarkError

_ROUNDS, _QUICK_ROUNDS, _QUICK_SCALE = 3, 1, 0.25


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--quick", is_flag=True, help="One small round: under a minute, and not very exact.")
@click.option("--write", is_flag=True, help="Also replace docs/benchmarks.md.")
def main(context: click.Context, quick: bool, write: bool) -> None:
    """Measure what tracing costs, beside no tracing and strace, and print it as Markdown."""
    if context.invoked_subcommand is not None:
        if quick or write:
            raise click.UsageError(f"put the options behind {context.invoked_subcommand!r}")
        return
    if quick and write:
        raise click.UsageError("a quick run is not exact enough to be written; leave out --quick")
    rounds = _QUICK_ROUNDS if quick else _ROUNDS
    try:
        text = _measure(rounds, _QUICK_SCALE if quick else 1.0)
    except Error as error:
        raise click.ClickException(str(error)) from error
    click.echo(text, nl=False)
    if write:
        write_document(text, kept=Reading.title)


def _measure(rounds: int, scale: float) -> str:
    if os.geteuid() != 0:
        raise PrivilegeError("the benchmarks load a kernel program; run them as root")
    if shutil.which("strace") is None:
        raise BenchmarkError("the benchmarks compare with strace; install it")
    with tempfile.TemporaryDirectory(prefix="memory-tracer-bench-") as directory:
        bench = Bench(Path(directory), scale)
        measurements: Sequence[Measurement] = (
            Flips(bench),
            Bursts(bench),
            Storing(bench),
            Startup(bench),
            Bystander(bench),
            Runtimes(bench),
        )
        facts = machine.describe(bench.directory)
        load = os.getloadavg()[0]
        others: set[str] = set()
        for number in range(rounds):
            for measurement in measurements:
                others |= machine.bpf_users()
                _run_round(measurement, number, rounds)
        facts["load"] = f"{load:.1f} before the first round, {os.getloadavg()[0]:.1f} after the last"
        facts["other processes with BPF programs"] = ", ".join(sorted(others)) or "none seen"
        facts["rounds"] = str(rounds)
        return render(measurements, facts)


def _run_round(measurement: Measurement, number: int, rounds: int) -> None:
    started = time.monotonic()
    measurement.run_round(number)
    seconds = time.monotonic() - started
    click.echo(f"round {number + 1} of {rounds}: {measurement.title} ({seconds:.0f} s)", err=True)


main.add_command(generators)
main.add_command(ptrace)
main.add_command(reading)
main.add_command(capture)

if __name__ == "__main__":
    main(prog_name="python -m benchmarks")

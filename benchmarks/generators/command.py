"""The command line: ``python -m benchmarks generators``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from memory_tracer import Error

from .. import machine
from ..bench import Bench
from ..tracers import MEMORY_TRACER, WITH_PTRACE, Tracer
from .measure import Round, Subject
from .programs import GENERATORS, Generator
from .table import render, write

_ROUNDS = 3


@click.command("generators")
@click.option(
    "--only", type=click.Choice([one.name for one in GENERATORS]), multiple=True, help="Measure this alone."
)
@click.option("--engine", type=click.Choice(["ebpf", "ptrace"]), default="ebpf", show_default=True)
@click.option("--rounds", default=_ROUNDS, show_default=True, type=click.IntRange(1))
@click.option("--write", "writes", is_flag=True, help="Also replace the table in docs/coverage.md.")
def generators(only: tuple[str, ...], engine: str, rounds: int, writes: bool) -> None:
    """Measure how much of what code generators say they generated is captured."""
    if (only or engine != "ebpf") and writes:
        raise click.UsageError("the table is written as a whole, of one engine; leave out --write")
    if os.geteuid() != 0 and engine == "ebpf":
        raise click.ClickException("the benchmarks load a kernel program; run them as root")
    chosen = [one for one in GENERATORS if not only or one.name in only]
    try:
        text = _measure(chosen, rounds, WITH_PTRACE if engine == "ptrace" else MEMORY_TRACER)
    except Error as error:
        raise click.ClickException(str(error)) from error
    click.echo(text, nl=False)
    if writes:
        write(text)


def _measure(chosen: Sequence[Generator], rounds: int, tracer: Tracer) -> str:
    results = [(generator, _rounds(generator, rounds, tracer)) for generator in chosen]
    with tempfile.TemporaryDirectory() as directory:
        facts = machine.describe(Path(directory))
    return render(results, f"{facts['kernel']}; {facts['processor']}; {rounds} rounds.")


def _rounds(generator: Generator, rounds: int, tracer: Tracer) -> list[Round]:
    if not generator.installed:
        click.echo(f"{generator.name} is not installed: skipped", err=True)
        return []
    with tempfile.TemporaryDirectory(prefix="memory-tracer-bench-") as directory:
        subject = Subject(Bench(Path(directory)), generator, tracer)
        for number in range(rounds):
            subject.run_round(number)
            click.echo(f"{generator.name}: round {number + 1} of {rounds}", err=True)
        return subject.rounds

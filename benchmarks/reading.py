"""How long a capture of a million pages takes to be read, beside reading its bytes."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from memory_tracer import Error, open_capture

from . import machine
from .bench import Bench
from .document import section, write_section
from .large import MILLION, write_large
from .samples import Spread, rotated
from .tables import Table
from .tracers import BenchmarkError, Usage, Watcher

_ROUNDS = 3
_PIECE_BYTES = 1 << 20
#: By what it is called here; ``{file}`` is the capture and ``{out}`` a name that is free.
_VIEWS = {
    "report": "report {file}",
    "regions": "regions {file}",
    "events": "events {file}",
    "verify": "verify {file}",
    "scan": "scan {file}",
    "html": "html {file} -o {out}",
    "export, Parquet": "export {file} --format parquet -o {out}",
}
_OPEN = "import sys, memory_tracer; memory_tracer.open_capture(sys.argv[1]).close()"


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading: nanoseconds, and what it took."""

    elapsed_ns: int
    usage: Usage


class Reading:
    """What the views of a capture cost that is larger than most, in time and in memory."""

    title = "Reading a million pages"

    def __init__(self, bench: Bench) -> None:
        """Write the capture."""
        self._bench = bench
        self._file = bench.directory / "large.mtrace"
        started = time.monotonic_ns()
        write_large(self._file, bench.scaled(MILLION))
        written_ns = time.monotonic_ns() - started
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        with open_capture(self._file) as capture:
            facts = (
                f"{len(capture.processes)} processes, {len(capture.regions()):,} regions, "
                f"{capture.event_count:,} events and {capture.page_count:,} pages, "
                f"{capture.unique_pages:,} of them different"
            )

        size, seconds = self._file.stat().st_size, written_ns / 1e9
        self.method = f"""\
`python -m benchmarks capture` makes the capture: it writes what a recording would have sent, through
the writer of recordings. It has {facts}
({size / (1 << 30):.1f} GiB, written in {seconds:.0f} s). Each command is a new process, whose output goes to
/dev/null or to a file; *memory* is its peak. Beside: `read` of the same file in pieces of 1 MiB, with what
the page cache has left of it ({_memory()} of memory). *Open* takes in the index, which is all that is held in
memory; `report`, `regions` and `events` read no page they do not show. `verify` and `scan` read all, and so
does Parquet with its table of contents."""

    def run_round(self, number: int) -> None:
        """Read the file in all ways once."""
        ways: list[tuple[str, Callable[[], Sample]]] = [
            ("read", lambda: Sample(self._read(), Usage())),
            ("open", lambda: self._run([sys.executable, "-c", _OPEN, str(self._file)])),
        ]
        ways += [(name, functools.partial(self._view, words)) for name, words in _VIEWS.items()]
        for name, measure in rotated(ways, number):
            self.samples[name].append(measure())

    def _view(self, words: str) -> Sample:
        with tempfile.TemporaryDirectory(dir=self._bench.directory) as directory:
            values = {"file": str(self._file), "out": str(Path(directory) / "out")}
            arguments = [word.format(**values) for word in words.split()]
            return self._run([sys.executable, "-m", "memory_tracer", *arguments])

    def _run(self, command: list[str]) -> Sample:
        started = time.monotonic_ns()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        watcher = Watcher(process.pid)
        if process.wait():
            raise BenchmarkError(f"a command to be measured failed: {command!r}")
        elapsed = time.monotonic_ns() - started
        watcher.join()
        return Sample(elapsed, watcher.usage)

    def _read(self) -> int:
        piece = bytearray(_PIECE_BYTES)
        started = time.monotonic_ns()
        with self._file.open("rb", buffering=0) as file:
            while file.readinto(piece):
                pass
        return time.monotonic_ns() - started

    def tables(self) -> list[Table]:
        """Return what each way of reading took."""
        table = Table(("what", "elapsed", "of reading", "CPU time", "memory"))
        plain = self.samples["read"]
        for name in ("read", "open", *_VIEWS):
            samples = self.samples[name]
            ratios = (one.elapsed_ns / raw.elapsed_ns for one, raw in zip(samples, plain, strict=True))
            own = name != "read"
            table.add(
                name,
                Spread.of(sample.elapsed_ns for sample in samples).text("s", 1e9),
                Spread.of(ratios).text("") if own else "",
                Spread.of(sample.usage.cpu_ns for sample in samples).text("s", 1e9) if own else "",
                Spread.of(sample.usage.peak_bytes for sample in samples).text("MiB", 1 << 20, digits=0)
                if own
                else "",
            )
        return [table]


def _memory() -> str:
    return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB"


@click.command("reading")
@click.option("--rounds", default=_ROUNDS, show_default=True, type=click.IntRange(1))
@click.option("--quick", is_flag=True, help="A capture of a sixteenth of the pages.")
@click.option("--write", "writes", is_flag=True, help="Also replace the section in docs/benchmarks.md.")
def reading(rounds: int, quick: bool, writes: bool) -> None:
    """Measure how long a capture of a million pages takes to be read; 4 GB of temporary files."""
    if quick and writes:
        raise click.UsageError("a quick run is not exact enough to be written; leave out --quick")
    with tempfile.TemporaryDirectory(prefix="memory-tracer-bench-") as directory:
        try:
            measurement = Reading(Bench(Path(directory), 1 / 16 if quick else 1.0))
            for number in range(rounds):
                measurement.run_round(number)
                click.echo(f"round {number + 1} of {rounds}", err=True)
        except Error as error:
            raise click.ClickException(str(error)) from error
        facts = machine.describe(Path(directory))
        text = section(measurement, f"Measured by itself on {facts['kernel']}, {rounds} rounds.")
    click.echo(text, nl=False)
    if writes:
        write_section(measurement.title, text)

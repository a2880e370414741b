"""Run a generator with and without the tracer, and compare its dump with the capture."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ..bench import Bench
from ..samples import rotated
from ..tracers import UNTRACED, BenchmarkError, Tracer, run
from .compare import Comparison, compare
from .dumps import Code, DumpError
from .programs import PROGRAMS, Generator

#: Tells its PID, works where the dump shall be, and becomes the generator.
_SHELL = 'echo $$ >"$1" && cd "$2" && shift 2 && exec "$@"'


@dataclass(frozen=True, slots=True)
class Round:
    """One run without the tracer and one with it. Times are in nanoseconds, without the tracer's own."""

    plain_ns: int
    traced_ns: int
    same_output: bool
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class _Run:
    nanoseconds: int
    output: bytes
    pid: int
    codes: list[Code]


class Subject:
    """A generator, and a directory of its own to work in."""

    def __init__(self, bench: Bench, generator: Generator, tracer: Tracer) -> None:
        """Compile what has to be. Raises ``BenchmarkError`` when that fails."""
        self.generator = generator
        self.rounds: list[Round] = []
        self._bench, self._tracer = bench, tracer
        self._directory = bench.directory / generator.name.partition(",")[0]
        self._directory.mkdir()
        if generator.prepare:
            done = subprocess.run(self._filled(generator.prepare), check=False, capture_output=True)
            if done.returncode:
                raise BenchmarkError(f"the program for {generator.name} cannot be compiled")

    def run_round(self, number: int) -> None:
        """Run it both ways, in an order that changes from round to round."""
        capture = self._directory / "capture"
        runs = {tracer: self._run(tracer, capture) for tracer in rotated((UNTRACED, self._tracer), number)}
        plain, traced = runs[UNTRACED], runs[self._tracer]
        comparison = compare(capture, traced.pid, traced.codes)
        same = plain.output == traced.output
        self.rounds.append(Round(plain.nanoseconds, traced.nanoseconds, same, comparison))

    def _run(self, tracer: Tracer, capture: Path) -> _Run:
        watch, pid_file = self._directory / "stopwatch.ns", self._directory / "pid"
        command = self._filled(self.generator.command)
        shell = ["sh", "-c", _SHELL, "sh", str(pid_file), str(self._directory), *command]
        target = [self._bench.program("stopwatch"), str(watch), *shell]
        # The capture shall stay, so its tracer is a part of the command.
        done = run(UNTRACED, tracer.command(target, capture), self._directory)
        pid = int(pid_file.read_text())
        return _Run(int(watch.read_text()), done.output, pid, self._take_dump(pid))

    def _take_dump(self, pid: int) -> list[Code]:
        """Read the dump, and remove everything that the generator left."""
        dump, *others = (
            Path(place.format(directory=self._directory, pid=pid))
            for place in (self.generator.dump, *self.generator.leftover)
        )
        try:
            return self.generator.parse(dump.read_bytes())
        except (OSError, DumpError) as error:
            raise BenchmarkError(f"the dump of {self.generator.name} cannot be read: {error}") from error
        finally:
            for path in (dump, *others):
                with contextlib.suppress(OSError):
                    path.unlink()

    def _filled(self, command: tuple[str, ...]) -> list[str]:
        return [part.format(directory=self._directory, programs=PROGRAMS) for part in command]

"""What every measurement is given, and what it gives."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .tables import Chart, Table
from .tracers import BenchmarkError

_SOURCES = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Bench:
    """A private directory to work in, and how large the work is (1: a full run)."""

    directory: Path
    scale: float = 1.0

    def program(self, name: str) -> str:
        """Return the path of a C program, compiled when it is first asked for."""
        program = self.directory / name
        if not program.exists():
            compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
            if compiler is None:
                raise BenchmarkError("the benchmarks need a C compiler; install gcc")
            source = _SOURCES / f"{name}.c"
            warnings = ("-Wall", "-Wextra", "-Werror")
            subprocess.run([compiler, "-std=gnu11", "-O2", *warnings, "-o", program, source], check=True)
        return str(program)

    def script(self, name: str) -> str:
        """Return the path of a script in ``programs``."""
        return str(_SOURCES / "programs" / name)

    def scaled(self, count: int) -> int:
        """Return ``count`` made smaller for a quick run, at least 1."""
        return max(1, round(count * self.scale))


class Measurement(Protocol):
    """One question, asked again in every round."""

    title: str
    method: str

    def run_round(self, number: int) -> None:
        """Measure everything once."""

    def tables(self) -> Sequence[Table | Chart]:
        """Return the answers of all rounds, at least one."""

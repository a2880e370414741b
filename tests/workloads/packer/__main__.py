"""Pack a program, to try things on: ``python -m tests.workloads.packer PROGRAM``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from . import pack


def main() -> None:
    """Pack the program that is named; the result is ``PROGRAM.packed``."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.workloads.packer PROGRAM")
    original = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        packed = pack(original, Path(directory)).path
        shutil.copy(packed, f"{original}.packed")


main()

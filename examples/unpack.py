"""Unpack the bundled self-decrypting sample: compile it, record it, write the decrypted code to a file.

Run as root: python examples/unpack.py [FILE]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import memory_tracer as mt

SOURCE = Path(mt.__file__).parent / "samples" / "self_decrypting.c"


def unpack(source: Path, output: Path) -> None:
    """Record what the program in ``source`` makes executable at run time, and write it to ``output``."""
    with tempfile.TemporaryDirectory() as directory:
        sample = f"{directory}/sample"
        subprocess.run(["cc", "-o", sample, source], check=True)
        with mt.Tracer.spawn([sample]) as tracer:
            pages = [page for page in tracer.pages() if page.event == mt.EventKind.MPROTECT]
        print(f"the sample ended with status {tracer.wait()}")
    for page in pages:
        print(f"{page.address:#x} {page.protection} {len(page.content or b'')} bytes at {page.wall_time}")
    output.write_bytes(b"".join(page.content or b"" for page in pages))


if __name__ == "__main__":
    unpack(SOURCE, Path(sys.argv[1] if len(sys.argv) > 1 else "unpacked.bin"))

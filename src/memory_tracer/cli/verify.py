"""``memory-tracer verify``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..terminal import format_size
from .arguments import capture_argument
from .listing import open_capture
from .notice import note

#: Bytes that take more than about a second to check.
_LONG = 256 << 20


@click.command()
@capture_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(file: Path, as_json: bool) -> int:
    """Check every byte of the capture FILE and print the certificate: complete, or what is missing.

    Exit status 0 means complete: everything that was made executable while recording is in the
    file and undamaged. Exit status 1 means it is not, and the reasons are listed.

    \b
    Example, for scripts:
      memory-tracer verify sample.mtrace && echo evidence is complete
    """
    from ..capture.certificate import verify
    from ..report.certificate import print_certificate

    with open_capture(file) as capture:
        if capture.stored_bytes > _LONG and sys.stderr.isatty():
            note(f"checking {format_size(capture.stored_bytes)}")
        certificate = verify(capture)
        print_certificate(capture, certificate, as_json=as_json)
        return 0 if certificate.complete else 1

"""The completeness certificate in words, or as a JSON object."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..export.objects import line, loss_object
from ..terminal import clean, console, format_count
from .text import describe_loss

if TYPE_CHECKING:
    from ..capture.certificate import Certificate
    from ..capture.reader import Capture


def print_certificate(capture: Capture, certificate: Certificate, *, as_json: bool) -> None:
    """Print the certificate to standard output."""
    if as_json:
        sys.stdout.write(
            line(
                {
                    "type": "certificate",
                    "complete": certificate.complete,
                    "losses": [loss_object(loss) for loss in certificate.losses],
                    "damaged": list(certificate.damaged),
                    "notes": list(certificate.notes),
                    "checked_pages": certificate.checked_pages,
                }
            )
        )
        return
    screen = console(sys.stdout)
    name = clean(str(capture.path))
    if certificate.complete:
        screen.print(f"{name}: COMPLETE", style="bold green")
    else:
        screen.print(f"{name}: INCOMPLETE", style="bold red")
    for sentence in certificate.damaged:
        screen.print(f"  damaged: {clean(sentence)}", style="red")
    for loss in certificate.losses:
        screen.print(f"  {describe_loss(loss)}", style="red")
    for sentence in certificate.notes:
        screen.print(f"  note: {clean(sentence)}", style="dim")
    screen.print(
        f"  checked {format_count(capture.event_count, 'event')}, "
        f"{format_count(capture.page_count, 'page')} and the SHA-256 of all "
        f"{certificate.checked_pages:,} stored contents"
    )

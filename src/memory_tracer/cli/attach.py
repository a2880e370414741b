"""``memory-tracer attach``."""

from __future__ import annotations

from typing import Any

import click

from .recording import (
    capture_owner,
    default_output,
    print_closing_lines,
    recording_options,
    say_engine,
    settings_from,
    stopped_by_signals,
)


@click.command()
@recording_options
@click.argument("pids", metavar="PID...", nargs=-1, required=True, type=int)
def command(pids: tuple[int, ...], **options: Any) -> None:
    """Record running processes until they end, --duration is over, or Ctrl-C.

    What is executable already is recorded first, as a baseline. The processes are not stopped, not
    changed, and go on when the recording ends.

    \b
    Example:
      sudo memory-tracer attach --duration 10 1234
    """
    from ..record.engines import open_session

    output = options["output"] or default_output(f"pid{pids[0]}")
    with open_session(
        options["engine"],
        output,
        settings_from(options, launched=False),
        pids=pids,
        user=capture_owner(None),
        force=options["force"],
        duration=options["duration"],
        say=say_engine,
    ) as session:
        with stopped_by_signals(session):
            session.record()
        if not options["quiet"]:
            print_closing_lines(output)
        session.release_in_background()

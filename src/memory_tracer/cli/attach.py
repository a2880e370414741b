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
from .scopes import scope_name, scope_options, with_scope


@click.command()
@recording_options
@scope_options
@click.argument("pids", metavar="[PID]...", nargs=-1, type=int)
def command(pids: tuple[int, ...], **options: Any) -> None:
    """Record running processes until they end, --duration is over, or Ctrl-C.

    What is executable already is recorded first, as a baseline. The processes are not stopped, not
    changed, and go on when the recording ends.

    Instead of PIDs give a scope: --all, --cgroup, --container, --uid, --comm, --exe. It holds for processes
    that start later, too; of options of one sort one must be true, and of each sort. memory-tracer itself
    is never recorded.

    \b
    Examples:
      sudo memory-tracer attach --duration 10 1234
      sudo memory-tracer attach --all --exclude-comm chrome
      sudo memory-tracer attach --container 4f66ad9a0b2e --uid 1000
    """
    from ..record.engines import open_session

    settings = with_scope(settings_from(options, launched=False), options, pids)
    name = f"pid{pids[0]}" if settings.scope is None else scope_name(settings.scope)
    output = options["output"] or default_output(name)
    with open_session(
        options["engine"],
        output,
        settings,
        pids=pids,
        user=capture_owner(None),
        force=options["force"],
        duration=options["duration"],
        say=say_engine,
    ) as session:
        session.drop_privileges()
        with stopped_by_signals(session):
            session.record()
        if not options["quiet"]:
            print_closing_lines(output)
        session.release_in_background()

"""``memory-tracer run``."""

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


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@recording_options
@click.option("--user", help="Run COMMAND as this user.  [default: who called sudo]")
@click.option("--end-with-command", is_flag=True, help="Do not wait for COMMAND's descendants.")
@click.argument("command_line", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, /, command_line: tuple[str, ...], **options: Any) -> None:
    """Start COMMAND and record the code it makes executable.

    COMMAND is held before its first instruction until everything is attached, runs with your
    terminal, and its descendants are recorded too. The exit status is COMMAND's own (128 and the
    signal's number if a signal ended it).

    \b
    Example:
      sudo memory-tracer run -o sample.mtrace -- ./sample --flag
      memory-tracer report sample.mtrace
    """
    from ..record.engines import open_session
    from ..record.launch import exit_status

    user = capture_owner(options["user"])
    output = options["output"] or default_output(command_line[0])
    with open_session(
        options["engine"],
        output,
        settings_from(options, launched=True),
        command=command_line,
        user=user,
        force=options["force"],
        end_with_command=options["end_with_command"],
        duration=options["duration"],
        say=say_engine,
    ) as session:
        session.drop_privileges()
        with stopped_by_signals(session):
            session.record()
        if not options["quiet"]:
            print_closing_lines(output)
        if session.must_stay:
            say_engine(
                "the recording has ended; the targets cannot do without their tracer, waiting for them"
            )
            session.stay()
        session.release_in_background()
        assert session.command is not None
        status = session.command.poll()
    # A command that outlives the recording has no status yet: the recording went well.
    ctx.exit(exit_status(status) if status is not None else 0)

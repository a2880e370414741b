"""``memory-tracer``: the verbs, and how errors become one sentence and an exit status.

Exit status: 0 when all is well, 1 when the operation failed or a capture is incomplete, 2 for a
wrong command line, 130 after Ctrl-C. ``run`` passes on the status of the command it ran.
"""

from __future__ import annotations

import difflib
import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from ..errors import Error
from ..terminal import clean
from ..version import VERSION
from .notice import note


class Verb(NamedTuple):
    """One line of ``memory-tracer --help``; the command is ``command`` in the module of that name."""

    name: str
    section: str
    summary: str


RECORD = "Record"
READ = "Read a capture"
SYSTEM = "This machine"

#: Summaries stand here and not in the verbs' modules, so that ``--help`` loads none of them.
VERBS: dict[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("run", RECORD, "Start a command and record the code it makes executable."),
        Verb("attach", RECORD, "Record running processes."),
        Verb("record", RECORD, "Record for weeks, as a service."),
        Verb("live", READ, "Watch a capture on the terminal, also while it grows."),
        Verb("report", READ, "Tell the story of a capture on one screen."),
        Verb("events", READ, "List calls, mappings and process steps."),
        Verb("regions", READ, "List memory that was or became executable."),
        Verb("pages", READ, "List every captured or missing page."),
        Verb("show", READ, "Print a region's bytes: hex, instructions or raw."),
        Verb("diff", READ, "Show what changed between two generations of a region."),
        Verb("scan", READ, "Search all code with YARA rules."),
        Verb("html", READ, "Make one page for a browser: timeline, table, instructions."),
        Verb("export", READ, "Write regions or tables as files, or JSON lines."),
        Verb("verify", READ, "Say whether a capture is complete, and what is missing."),
        Verb("doctor", SYSTEM, "Say what this kernel and this user can do."),
        Verb("debug", SYSTEM, "Watch the kernel program at work through tracefs."),
        Verb("completion", SYSTEM, "Print the completion script for your shell."),
    )
}


class LazyGroup(click.Group):
    """Loads a verb's module only when that verb is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module; None when there is no such verb."""
        if cmd_name not in VERBS:
            return None
        command = importlib.import_module(f"{__package__}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest verb when there is none of that name."""
        name = args[0]
        if name not in VERBS and not name.startswith("-") and not ctx.resilient_parsing:
            near = difflib.get_close_matches(name, VERBS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"There is no verb {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs by section."""
        for section in dict.fromkeys(verb.section for verb in VERBS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(verb.name, verb.summary) for verb in VERBS.values() if verb.section == section]
                )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; a deliberate error becomes one sentence, with its detail when asked for."""
        try:
            status = super().invoke(ctx)
            # Here and not at exit, so that click ends quietly when the reader (head, less) has gone.
            sys.stdout.flush()
            return status
        except Error as error:
            note(str(error))
            if error.detail and ctx.params["verbose"]:
                for detail in error.detail.splitlines():
                    click.echo(clean(detail), err=True)
            ctx.exit(error.exit_status)


def _print_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"memory-tracer {VERSION}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: sudo memory-tracer run ./program",
)
@click.option("--verbose", is_flag=True, help="After an error, show everything known about it.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def group(verbose: bool) -> None:
    """Capture every byte of code a program makes executable at run time."""


def _open_closed_streams() -> None:
    """Put /dev/null where a standard stream was closed by the caller.

    Otherwise the next file opened would get its number, and the capture what was meant for a terminal.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            if descriptor != number:
                os.dup2(descriptor, number, inheritable=False)
                os.close(descriptor)
            setattr(sys, name, os.fdopen(number, mode))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    ``arguments`` defaults to those of the process. A verb's integer return value is the status.
    """
    _open_closed_streams()
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        # NumPy's linear algebra, unused here, would start a thread for each CPU, and they spin.
        # Not by os.environ, which is what a command that is recorded gets.
        os.putenv("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A locale that cannot spell a character must not end a listing.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = group.main(args=arguments, prog_name="memory-tracer", standalone_mode=False)
    except click.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        note(f"{where}{error.strerror}")
        return 1
    if arguments is None:
        gc.freeze()  # the interpreter ends now, and need not look through all objects for garbage first
    return status if isinstance(status, int) else 0

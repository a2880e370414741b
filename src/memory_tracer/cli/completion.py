"""``memory-tracer completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ..errors import UnsupportedError

SHELLS = ("bash", "zsh", "fish")
#: Variable by which click's completion script asks the program for candidates.
COMPLETE_VARIABLE = "_MEMORY_TRACER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    Example, for bash, until the shell ends:
      eval "$(memory-tracer completion bash)"
    """
    from .main import group

    completion_class = get_completion_class(shell)
    if completion_class is None:
        raise UnsupportedError(f"this version of click has no completion for {shell}")
    click.echo(completion_class(group, {}, "memory-tracer", COMPLETE_VARIABLE).source())

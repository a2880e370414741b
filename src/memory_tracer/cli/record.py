"""``memory-tracer record``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="What to record, and where to; see docs/service.md.",
)
def command(config: Path) -> None:
    """Record for weeks, as a service: capture after capture, within a budget of disk space.

    SIGHUP reads the configuration again, SIGTERM ends the recording in order. What happens is told on
    standard error, one JSON object a line.

    \b
    Example:
      sudo memory-tracer record --config /etc/memory-tracer.toml
    """
    from ..service.service import Service

    Service(config).run()

"""``memory-tracer doctor``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what this kernel and this user can do, and what would improve it.

    Loads and attaches the real program for a moment, without tracing anybody. The exit status is 0
    when `run` would work with one of the engines, else 1.

    \b
    Example:
      sudo memory-tracer doctor
    """
    from ..record.preflight import can_record, examine
    from ..terminal import Column, print_table

    findings = examine()
    if as_json:
        for finding in findings:
            click.echo(json.dumps(asdict(finding)))
    else:
        rows = [
            ("ok" if finding.ok else "NO", finding.subject, finding.state, finding.remedy or "")
            for finding in findings
        ]
        print_table([Column(""), Column("SUBJECT"), Column("STATE"), Column("TO IMPROVE IT")], rows)
    ctx.exit(0 if can_record(findings) else 1)

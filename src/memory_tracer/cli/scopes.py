"""The options of ``attach`` that say which processes, other than by PID."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..errors import UsageError
from ..record.scope import Criteria, Scope
from ..record.settings import Settings

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UID = click.IntRange(0, 2**32 - 1)

_OPTIONS = (
    click.option("--all", "everything", is_flag=True, help="All processes of the machine, now and later."),
    click.option(
        "--cgroup",
        "cgroups",
        metavar="PATH",
        multiple=True,
        help="Processes in this control group (version 2) or below. Repeatable.",
    ),
    click.option(
        "--container",
        "containers",
        metavar="ID|NAME",
        multiple=True,
        help="Processes of this container (Docker, containerd, Podman, LXC) or Kubernetes pod. Repeatable.",
    ),
    click.option(
        "--exe", "exes", metavar="PATH", multiple=True, help="Processes that execute this file. Repeatable."
    ),
    click.option("--exclude-cgroup", metavar="PATH", multiple=True, help="Not those in this control group."),
    click.option(
        "--exclude-container", metavar="ID|NAME", multiple=True, help="Not those of this container."
    ),
    click.option("--exclude-uid", type=_UID, multiple=True, help="Not those with this user id."),
    click.option("--exclude-comm", metavar="TEXT", multiple=True, help="Not those of this name."),
    click.option("--exclude-exe", metavar="PATH", multiple=True, help="Not those that execute this file."),
    click.option("--exclude-pid", type=click.IntRange(1), multiple=True, help="Not this process."),
)


def scope_options(command: _Command) -> _Command:
    """Add the options to a click command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def with_scope(settings: Settings, options: dict[str, Any], pids: tuple[int, ...]) -> Settings:
    """The settings with the scope that was asked for, if one was.

    Without PIDs, ``--uid`` and ``--comm`` choose processes; with them, the events of these.
    """
    chosen = Criteria(
        cgroups=options["cgroups"],
        containers=options["containers"],
        exes=options["exes"],
        uids=(settings.uid,) if settings.uid is not None else (),
        comms=(settings.comm,) if settings.comm is not None else (),
    )
    excluded = Criteria(
        cgroups=options["exclude_cgroup"],
        containers=options["exclude_container"],
        uids=options["exclude_uid"],
        comms=options["exclude_comm"],
        exes=options["exclude_exe"],
        pids=options["exclude_pid"],
    )
    named = options["everything"] or chosen.cgroups or chosen.containers or chosen.exes
    if pids:
        if named or excluded != Criteria():
            raise UsageError("give the PIDs of processes or a scope, not both")
        return settings
    if not named and chosen == Criteria():
        raise UsageError("say whom to record: PIDs, or --all, --cgroup, --container, --uid, --comm or --exe")
    return dataclasses.replace(settings, uid=None, comm=None, scope=Scope(chosen, excluded))


def scope_name(scope: Scope) -> str:
    """What to call a capture of it."""
    include = scope.include
    for values in (include.containers, include.cgroups, include.exes, include.comms, include.uids):
        if values:
            return str(values[0])
    return "machine"

"""The story of a capture as text for one screen of 80 columns."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ..analyze.places import place
from ..analyze.processes import command_text, describe_wait_status, process_tree
from ..analyze.timeline import start_ns
from ..model import Loss, Process, Protection
from ..show.symbols import Function, SymbolFiles, functions_in
from ..terminal import clean, console, format_count, format_duration, format_seconds, format_size
from .story import Generated, Sight, Story, duration_ns, metadata_text, subject_of

if TYPE_CHECKING:
    from rich.console import Console

    from ..capture.reader import Capture

#: Processes and regions shown unless all are asked for: with everything else, about one screen.
PROCESSES_SHOWN = 8
REGIONS_SHOWN = 6
GROUPS_SHOWN = 4
#: Characters of a command line or path that are shown.
_WORDS_LIMIT = 60
#: Characters of the name of a caller's file that are shown, escapes spelled out.
_NAME_LIMIT = 20
#: Names of generated functions that are shown of a region or a runtime.
_FUNCTIONS_SHOWN = 3
#: Levels of the process tree that are indented; deeper ones stay in line.
_DEEPEST_INDENT = 10


def print_report(
    capture: Capture, story: Story, names: SymbolFiles, *, everything: bool, following: str
) -> None:
    """Print the report to standard output; ``following`` is the command to type next.

    ``names`` are those of generated functions.
    """
    screen = console(sys.stdout)
    _print_summary(screen, capture)
    _print_losses(screen, capture.losses)
    _print_processes(screen, capture, None if everything else PROCESSES_SHOWN)
    _print_regions(screen, capture, story, names, everything)
    screen.print(f"\nNext: {clean(following)}", style="bold")


def _print_summary(screen: Console, capture: Capture) -> None:
    duration = duration_ns(capture)
    length = "not closed in order" if duration is None else format_duration(duration)
    when = capture.wall_time(start_ns(capture)).strftime("%Y-%m-%d %H:%M:%S UTC")
    screen.print(clean(subject_of(capture.metadata), _WORDS_LIMIT), style="bold")
    screen.print(f"  {when}, {length}, {clean(', '.join(_means(capture)), _WORDS_LIMIT)}")
    screen.print(
        f"  {format_count(capture.event_count, 'event')}, {format_count(capture.page_count, 'page')} "
        f"({capture.unique_pages:,} different, {format_size(capture.stored_bytes)})"
    )


def _means(capture: Capture) -> Iterator[str]:
    """Yield with what was recorded, and where: engine, hook, kernel, machine."""
    for keys in (("engine",), ("hook",), ("host", "release"), ("host", "machine")):
        text = metadata_text(capture.metadata, *keys)
        if text:
            yield text


def _print_losses(screen: Console, losses: Sequence[Loss]) -> None:
    if not losses:
        screen.print("  COMPLETE: nothing was lost", style="green")
        return
    screen.print("  INCOMPLETE:", style="bold red")
    for loss in losses:
        screen.print(f"    {describe_loss(loss)}", style="red")


def describe_loss(loss: Loss) -> str:
    """Return one loss as a clean line: reason, how many of what, why."""
    lost = format_count(loss.count, loss.unit.removesuffix("s"))
    return clean(f"{loss.reason}: {lost} ({loss.explanation})")


def _print_processes(screen: Console, capture: Capture, limit: int | None) -> None:
    processes, origin = capture.processes, start_ns(capture)
    screen.print(f"\n{format_count(len(processes), 'process', 'processes')}", style="bold")
    for depth, process in islice(process_tree(processes), limit):
        words = command_text(process)
        indent = "  " * (1 + min(depth, _DEEPEST_INDENT))
        screen.print(
            f"{indent}{_numbers(process)} {clean(process.comm)}  {clean(words, _WORDS_LIMIT)}  "
            f"{_when(process, origin)}  {ending(process, capture)}"
        )
    if limit is not None and len(processes) > limit:
        screen.print(f"  and {len(processes) - limit:,} more; --all shows them", style="dim")


def _numbers(process: Process) -> str:
    """The PID, and the one that the process itself sees, where that is another."""
    inner = process.namespace_pid
    return f"{process.pid}" if inner in (None, process.pid) else f"{process.pid} ({inner} inside)"


def _when(process: Process, origin: int) -> str:
    """Return when the process was first seen, in seconds of the capture, and how long it was there."""
    start = f"at {(process.first_seen_ns - origin) / 10**9:.3f} s"
    length = -1 if process.ended_ns is None else process.ended_ns - process.first_seen_ns
    return f"{start} for {format_duration(length)}" if length >= 0 else start


def ending(process: Process, capture: Capture) -> str:
    """Return in brackets how a process ended, or that it had not when the recording of it ended."""
    if process.wait_status is not None:
        return f"[{describe_wait_status(process.wait_status)}]"
    if process.ended_ns is not None:
        return "[ended]"
    if capture.recording:
        return "[running]"
    return "[running at the end]" if capture.end else "[running when the recording broke off]"


def _print_regions(
    screen: Console, capture: Capture, story: Story, names: SymbolFiles, everything: bool
) -> None:
    of_runtimes = sum(len(group.histories) for group in story.generated)
    count = format_count(len(story.striking) + of_runtimes, "region")
    screen.print(f"\n{count} of code made at run time", style="bold")
    for sight in story.sights:
        _print_sight(screen, sight, start_ns(capture))
        _print_functions(screen, functions_in(capture, names, [sight.history]))
    hidden = len(story.striking) - len(story.sights)
    if hidden > 0:
        screen.print(f"  and {hidden:,} more; --all shows them", style="dim")
    for group in story.generated[: None if everything else GROUPS_SHOWN]:
        _print_generated(screen, group)
        _print_functions(screen, functions_in(capture, names, group.histories))
    if len(story.generated) > GROUPS_SHOWN and not everything:
        screen.print(f"  and {len(story.generated) - GROUPS_SHOWN:,} more runtimes", style="dim")
    if story.plain and not everything:
        mappings = format_count(len(story.plain), "mapping")
        screen.print(f"  and {mappings} of programs and libraries; --all shows them", style="dim")


def _print_generated(screen: Console, group: Generated) -> None:
    histories = group.histories
    writable = ", rwx" if any(history.rwx for history in histories) else ""
    pages = sum(history.pages for history in histories)
    screen.print(
        f"  {group.runtime} in pid {histories[0].pid}: {format_count(len(histories), 'region')}, "
        f"{format_count(pages, 'page')}, {sum(history.flips for history in histories):,} events{writable}",
        style="green",
    )
    screen.print(f"    asked for by {clean(group.path or 'nobody known', _WORDS_LIMIT)}")


def _print_functions(screen: Console, functions: Sequence[Function]) -> None:
    if functions:
        shown = ", ".join(clean(function.name, _NAME_LIMIT * 2) for function in functions[:_FUNCTIONS_SHOWN])
        more = ", ..." if len(functions) > _FUNCTIONS_SHOWN else ""
        screen.print(f"    {format_count(len(functions), 'named function')}: {shown}{more}")


def _print_sight(screen: Console, sight: Sight, origin: int) -> None:
    history = sight.history
    region = history.region
    writable = "rwx " if history.rwx else ""
    screen.print(
        f"  {region.start:#x}-{region.end:#x} {writable}{format_size(region.length)}, pid {history.pid}, "
        f"{', '.join(map(str, history.kinds))} at {format_seconds(history.first_ns - origin)} s",
        style="bold red" if history.rwx else "cyan",
    )
    screen.print(f"    {'; '.join(_traits(sight))}")
    if sight.findings:
        screen.print(f"    {', '.join(sight.findings)}", style="bold yellow")
    if sight.looks_like is not None:
        screen.print(f"    {sight.looks_like}; starts with {sight.first_bytes}")


def _traits(sight: Sight) -> Iterator[str]:
    history, mapping = sight.history, sight.caller
    generations = format_count(history.generations, "generation")
    missing = f", {history.missing:,} missing" if history.missing else ""
    yield f"{format_count(history.pages, 'page')}{missing} in {generations}"
    if history.flips > 1:
        yield format_count(history.flips, "event")
    if history.caller is not None:
        # Its name will do: the line has to fit, and `events --stack` has all of it.
        name = clean(PurePosixPath(mapping.path or "").name) if mapping else ""
        shortened = name if len(name) <= _NAME_LIMIT else name[: _NAME_LIMIT - 1] + "…"
        yield f"called from {place(history.caller, mapping, shortened)}"
    if not history.protection & Protection.EXEC:
        yield f"in the end {history.protection}"
    if history.shared:
        yield "shared"
    if history.unlinked:
        yield "unlinked file"
    if history.region.path is not None:
        yield clean(history.region.path, _WORDS_LIMIT)

"""What ``run`` and ``attach`` have in common: options, signals, the closing lines."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import UsageError
from ..model import EventKind
from ..record.engines import ENGINES
from ..record.launch import User
from ..record.settings import (
    DEFAULT_RING_BYTES,
    DEFAULT_SIZE_LIMIT,
    HOOKS,
    RECENT_SECONDS,
    ProtectionFilter,
    Settings,
    recently,
)
from .arguments import Size

if TYPE_CHECKING:
    from ..record.engines import AnySession

_Command = TypeVar("_Command", bound=Callable[..., Any])

_RECORDED_KINDS = [str(kind) for kind in EventKind if kind >= EventKind.MMAP]


class Requested(click.ParamType[ProtectionFilter]):
    """Which requested protections matter."""

    name = "protection"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> ProtectionFilter:
        """Return the filter."""
        if isinstance(value, ProtectionFilter):
            return value
        try:
            return ProtectionFilter.parse(str(value))
        except UsageError as error:
            self.fail(str(error), param, ctx)


_OPTIONS = (
    click.option(
        "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The capture to write."
    ),
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        envvar="MEMORY_TRACER_ENGINE",
        default="auto",
        show_default=True,
        help="ebpf: seen by nobody, takes root. ptrace: takes no privilege, catches every turn from writing "
        "to executing. auto: ebpf where it is permitted.",
    ),
    click.option("-f", "--force", is_flag=True, help="Replace an existing capture."),
    click.option(
        "--prot",
        type=Requested(),
        default="x",
        show_default=True,
        help="Protections that matter: x, wx (at least these), r-x (exactly), any.",
    ),
    click.option(
        "--event",
        "kinds",
        type=click.Choice(_RECORDED_KINDS),
        multiple=True,
        help="Only this kind. Repeatable.",
    ),
    click.option("--no-follow", is_flag=True, help="Do not trace descendants."),
    click.option("--exclude-file-backed", is_flag=True, help="Leave mappings of files on disk out."),
    click.option(
        "--uid", type=click.IntRange(0, 2**32 - 1), help="Only events of threads with this user id."
    ),
    click.option("--comm", help="Only events of threads with this name."),
    click.option(
        "--duration", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds."
    ),
    click.option(
        "--ring-size",
        type=Size(),
        default=DEFAULT_RING_BYTES,
        help="Kernel buffer, a power of two.  [default: 64M]",
    ),
    click.option(
        "--max-size",
        type=Size(),
        default=DEFAULT_SIZE_LIMIT,
        help="Stop storing bytes (not events) beyond this.  [default: 16G]",
    ),
    click.option(
        "--exact",
        is_flag=True,
        help="Compare every page of every call, however much that slows the target.",
    ),
    click.option(
        "--lossless/--no-lossless",
        default=None,
        help="When the buffer is full, let a call that makes memory executable wait for the recorder "
        "(its CPU does nothing else meanwhile, 5 seconds per call at most) instead of losing pages.  "
        "[default: with run, not with attach]",
    ),
    click.option(
        "--hook",
        type=click.Choice(["auto", *HOOKS]),
        default="auto",
        show_default=True,
        help="By what calls are seen: mm-lock and fexit cost other processes nothing, tracepoint is there "
        "everywhere.",
    ),
    click.option(
        "--file-age",
        type=click.FloatRange(min=0),
        default=RECENT_SECONDS,
        show_default=True,
        help="Copy mapped files that changed within so many seconds before the recording, or during it.",
    ),
    click.option(
        "--sample-rate",
        type=click.IntRange(0, 20000),
        default=Settings().sample_rate,
        show_default=True,
        help="Look at what is executing so many times per second of CPU time. 0: never.",
    ),
    click.option(
        "--pass-rate",
        type=click.IntRange(0, 1000),
        default=Settings().pass_rate,
        show_default=True,
        help="Compare all memory that can change without a call so many times per second. 0: never.",
    ),
    click.option(
        "--all-calls/--no-all-calls",
        default=None,
        help="See all system calls, also those of the 32-bit ABI, and compare memory that can change "
        "without a call before each. Slows the system calls of every process on the machine.  "
        "[default: with run, not with attach]",
    ),
    click.option(
        "--call-share",
        type=click.IntRange(0, 100),
        default=Settings().call_share,
        show_default=True,
        help="Spend at most so many percent of the target's time on that; 100: compare at every call.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="No closing lines."),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=lambda ctx, _, value: ctx.find_root().params.update(verbose=True) if value else None,
        help="After an error, show everything known about it.",
    ),
)


def recording_options(command: _Command) -> _Command:
    """Add the options of a recording to a click command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def settings_from(options: dict[str, Any], *, launched: bool) -> Settings:
    """Turn parsed options into settings; some defaults differ for a command that we ``launched``."""
    return Settings(
        protection=options["prot"],
        kinds=frozenset(EventKind[name.upper()] for name in options["kinds"]) or None,
        follow=not options["no_follow"],
        exclude_file_backed=options["exclude_file_backed"],
        uid=options["uid"],
        comm=options["comm"],
        ring_bytes=options["ring_size"],
        size_limit=options["max_size"],
        exact=options["exact"],
        lossless=launched if options["lossless"] is None else options["lossless"],
        sample_rate=options["sample_rate"],
        pass_rate=options["pass_rate"],
        hook=None if options["hook"] == "auto" else options["hook"],
        all_calls=launched if options["all_calls"] is None else options["all_calls"],
        call_share=options["call_share"],
        files_since_ns=recently(options["file_age"]),
    )


def default_output(name: str) -> Path:
    """A file name made of the command's (only harmless characters) and the time."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name).name).lstrip(".-")[:64] or "capture"
    return Path(f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}.mtrace")


def capture_owner(name: str | None) -> User | None:
    """Whom the command runs as and the capture belongs to: ``--user``, else who called sudo."""
    return User.named(name) if name is not None else User.behind_sudo()


@contextmanager
def stopped_by_signals(session: AnySession) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the recording cleanly; the same signal again ends everything at once.

    A signal we were started to ignore (nohup, a background job) goes on being ignored.
    """

    def stop(number: int, _frame: object) -> None:
        session.stop()
        signal.signal(number, signal.SIG_DFL)

    previous = {
        number: signal.signal(number, stop)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def say_engine(sentence: str) -> None:
    """Print the one line that says why another engine is used."""
    click.echo(f"memory-tracer: {sentence}", err=True)


def print_closing_lines(path: Path) -> None:
    """Say what was captured, what was lost, and what to type next."""
    from ..capture.reader import Capture
    from ..report.text import describe_loss
    from ..terminal import clean, format_count, format_size

    with Capture(path) as capture:
        events, pages, unique = capture.event_count, capture.page_count, capture.unique_pages
        lines = [
            f"Wrote {clean(str(path))}: {format_count(events, 'event')}, {format_count(pages, 'page')} "
            f"({unique:,} different, {format_size(capture.stored_bytes)})"
        ]
        if capture.complete:
            lines.append("Complete: nothing was lost.")
        else:
            lines += [f"Incomplete: {describe_loss(loss)}" for loss in capture.losses]
        lines.append(f"Next: memory-tracer report {shlex.quote(clean(str(path)))}")
    for line in lines:
        click.echo(f"memory-tracer: {line}", err=True)
    sys.stderr.flush()

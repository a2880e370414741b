"""``memory-tracer live``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from ..errors import CaptureError, TargetError, UsageError, require
from ..record.engines import ENGINES
from ..terminal import clean
from .notice import note
from .recording import default_output

#: Lines of what the command wrote that are printed afterwards, and the bytes they are taken from.
_LINES_SHOWN = 20
_BYTES_SHOWN = 1 << 14
#: Seconds between two looks whether the recording has begun.
_PAUSE = 0.05
#: Seconds the recording gets to close its file after the view was left.
_PATIENCE = 30
#: The view gives way to the recording and its target.
_NICE = 10

_COMMAND = "memory_tracer.live.command"


class _LiveCommand(click.Command):
    """Keeps what stands after ``--`` apart: a command, and not the name of a capture."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            ctx.meta[_COMMAND] = tuple(args[place + 1 :])
            args = args[:place]
        return super().parse_args(ctx, args)


@click.command(cls=_LiveCommand, options_metavar="[OPTIONS]", epilog="live -- COMMAND... starts COMMAND.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("-p", "--pid", "pids", type=click.IntRange(1, 2**31 - 1), multiple=True, help="Attach to PID.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The capture to write.")
@click.option("-f", "--force", is_flag=True, help="Replace an existing capture.")
@click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True, help="As of run.")
@click.pass_context
def command(
    ctx: click.Context,
    file: Path | None,
    pids: tuple[int, ...],
    output: Path | None,
    force: bool,
    engine: str,
) -> None:
    """Watch a capture on the terminal: FILE, growing or finished, or a recording started here.

    The recording is a process of its own, as with run and attach, and the view reads the file it
    writes. Leaving the view ends a recording that was started here; the capture stays.

    \b
    Example:
      sudo memory-tracer live -o sample.mtrace -- ./sample --flag
      memory-tracer live sample.mtrace
    """
    words: tuple[str, ...] = ctx.meta.get(_COMMAND, ())
    if (file is not None) + bool(pids) + bool(words) != 1:
        raise UsageError("live takes one of: FILE, --pid PID, or -- COMMAND")
    # Textual draws on standard error.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("live needs a terminal; memory-tracer report prints to files and pipes")
    require("textual", "terminal views", "live")
    if file is not None:
        _view(file)
        return
    path = output or default_output(words[0] if words else f"pid{pids[0]}")
    options = ["-q", "-o", str(path), "--engine", engine, *(["--force"] if force else [])]
    arguments = ["run", *options, "--", *words] if words else ["attach", *options, *map(str, pids)]
    if path.exists() and not force:
        raise UsageError(f"{path} exists; give --force to replace it")
    with _recording(arguments, path):
        _view(path)
    click.echo(f"memory-tracer: Next: memory-tracer report {clean(str(path))}", err=True)


def _view(path: Path) -> None:
    from ..live.app import LiveApp
    from ..live.watch import Watch

    watch = Watch(path)
    os.nice(_NICE)
    try:
        LiveApp(watch, path.name).run()
    finally:
        watch.close()


@contextmanager
def _recording(arguments: Sequence[str], path: Path) -> Iterator[None]:
    """Record in another process until the block ends; what it and the command wrote is printed then."""
    before = path.stat().st_ino if path.exists() else None
    # -P: a module of ours is not to be found in the working directory.
    words = [sys.executable, "-P", "-m", "memory_tracer", *arguments]
    with tempfile.TemporaryFile() as written:
        recorder = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=written, stderr=written, start_new_session=True
        )
        try:
            _await_capture(recorder, path, before)
            yield
        finally:
            _end(recorder)
            _print_last_lines(written)


def _await_capture(recorder: subprocess.Popen[bytes], path: Path, before: int | None) -> None:
    from ..capture.reader import Capture

    while True:
        ended = recorder.poll() is not None
        if path.exists() and (ended or path.stat().st_ino != before):
            try:
                Capture(path).close()
                return
            except CaptureError:
                if ended:
                    raise
        if ended:
            raise TargetError("the recording did not begin; what it said is above")
        time.sleep(_PAUSE)


def _end(recorder: subprocess.Popen[bytes]) -> None:
    if recorder.poll() is None:
        recorder.send_signal(signal.SIGINT)
    try:
        recorder.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        note(f"the recording has not ended yet: process {recorder.pid}")


def _print_last_lines(written: IO[bytes]) -> None:
    size = written.seek(0, os.SEEK_END)
    written.seek(max(0, size - _BYTES_SHOWN))
    text = written.read(_BYTES_SHOWN).decode(errors="surrogateescape")
    for line in text.splitlines()[-_LINES_SHOWN:]:
        click.echo(clean(line), err=True)

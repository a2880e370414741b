"""``memory-tracer debug``."""

from __future__ import annotations

import contextlib
import signal

import click

from ..errors import UsageError


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--syscall", "syscalls", multiple=True, help="Show entry and exit of this system call. Repeatable."
)
@click.option("--all-syscalls", is_flag=True, help="Show every system call of the machine.")
@click.option(
    "--pid", "pids", type=int, multiple=True, help="Trace this process with the program. Repeatable."
)
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds.")
@click.argument("command_line", metavar="[COMMAND]...", nargs=-1, type=click.UNPROCESSED)
def command(
    syscalls: tuple[str, ...],
    all_syscalls: bool,
    pids: tuple[int, ...],
    duration: float | None,
    command_line: tuple[str, ...],
) -> None:
    """Watch the kernel program at work, and the system calls it hooks, through trace_pipe.

    Loads the program with its debug switch on: each mprotect of a target prints
    `PROT: 0x... | PID: ...` (bpf_printk). With --syscall or --all-syscalls the kernel's own trace
    events under events/syscalls are enabled as well. Everything that was switched on is switched
    off again at the end: when COMMAND ends, after --duration, or on Ctrl-C.

    \b
    Example:
      sudo memory-tracer debug --syscall mprotect -- ./sample
    """
    from ..record import process
    from ..record.kernel import Kernel
    from ..record.launch import LaunchedProcess, User
    from ..record.loader import Program
    from ..record.settings import ProtectionFilter, Settings
    from ..record.tracefs import TraceEvents
    from ..terminal import clean

    if not (command_line or pids or syscalls or all_syscalls):
        raise UsageError("there is nothing to watch; give a COMMAND, --pid or --syscall")
    for number in (signal.SIGTERM, signal.SIGHUP):  # like Ctrl-C: the switches must be turned back
        signal.signal(number, signal.default_int_handler)
    kernel = Kernel()
    with contextlib.ExitStack() as stack:
        events = stack.enter_context(TraceEvents(kernel))
        program = Program(Settings(debug=True, protection=ProtectionFilter.parse("any")), kernel)
        stack.callback(program.close)
        launched = LaunchedProcess(command_line, user=User.behind_sudo()) if command_line else None
        if launched is not None:
            stack.callback(launched.abandon)
        program.attach()
        for pid in pids:
            process.check_traceable(pid)
            program.add_target(pid)
        for name in syscalls:
            events.enable(f"syscalls/sys_enter_{name}")
            events.enable(f"syscalls/sys_exit_{name}")
        if all_syscalls:
            events.enable("syscalls")
        if launched is not None:
            program.add_target(launched.pid, waits_for_exec=True)
            launched.release()
        for line in events.lines(duration, lambda: launched is None or launched.poll() is None):
            click.echo(clean(line))

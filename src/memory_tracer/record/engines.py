"""Which engine records: the kernel program, or ptrace where that is not permitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from ..errors import Error, LoadError, PrivilegeError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from .launch import User
    from .ptrace.session import PtraceSession
    from .recorder import Observer
    from .session import Session
    from .settings import Settings

    AnySession = Session | PtraceSession

#: What ``--engine`` takes.
ENGINES = ("auto", "ebpf", "ptrace")

#: With these the kernel program cannot be used here at all.
_NOT_HERE = (PrivilegeError, UnsupportedError, LoadError)


class _Options(TypedDict, total=False):
    """What both kinds of session take."""

    command: Sequence[str] | None
    pids: Sequence[int]
    user: User | None
    environment: Mapping[str, str] | None
    force: bool
    end_with_command: bool
    duration: float | None
    observer: Observer | None


def open_session(
    engine: str,
    output: Path,
    settings: Settings,
    *,
    say: Callable[[str], None] | None = None,
    **options: Unpack[_Options],
) -> AnySession:
    """Prepare a recording with ``engine``; ``say`` is told when ``auto`` takes another than eBPF."""
    if engine not in ENGINES:
        raise UsageError(f"{engine!r} is not an engine; there are {', '.join(ENGINES)}")
    if settings.scope is not None:
        if engine == "ptrace":
            raise UsageError("the ptrace engine records processes by PID only; a scope takes --engine ebpf")
        engine = "ebpf"
    if engine == "ptrace":
        return _ptrace_session(output, settings, **options)
    from .session import Session

    try:
        return Session(output, settings, **options)
    except _NOT_HERE as refused:
        if engine == "ebpf":
            raise
        try:
            session = _ptrace_session(output, settings, **options)
        except Error as error:
            if isinstance(error, UnsupportedError):
                raise refused from error
            raise
        if say is not None:
            say(f"using the ptrace engine, because {refused}")
        return session


def _ptrace_session(output: Path, settings: Settings, **options: Unpack[_Options]) -> PtraceSession:
    """Prepare a recording by ptrace, whose modules take a while to import."""
    from .ptrace.session import PtraceSession

    return PtraceSession(output, settings, **options)

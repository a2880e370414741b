"""Counters in Prometheus's text format, on a Unix socket or a port that only this machine reaches."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, Self

from ..errors import OutputError, UsageError

_PREFIX = "memory_tracer_"
_LABEL_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
#: Who asks gets so long, and may say so much (seconds, bytes).
_PATIENCE, _MAX_REQUEST = 2.0, 4096


class Sample(NamedTuple):
    """One number, and what Prometheus calls it. ``kind`` is ``counter`` or ``gauge``."""

    name: str
    kind: str
    help: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


def render(samples: Iterable[Sample]) -> str:
    """The text of ``samples``; those of one name must follow each other."""
    lines: list[str] = []
    last = None
    for sample in samples:
        name = _PREFIX + sample.name
        if name != last:
            lines += [f"# HELP {name} {sample.help}", f"# TYPE {name} {sample.kind}"]
            last = name
        labels = ",".join(f'{key}="{value.translate(_LABEL_ESCAPES)}"' for key, value in sample.labels)
        lines.append(f"{name}{{{labels}}} {sample.value}" if labels else f"{name} {sample.value}")
    return "\n".join(lines) + "\n"


class MetricsServer:
    """Answers every request with the numbers as they are then, one after the other. A context manager."""

    def __init__(self, listen: str, samples: Callable[[], Iterable[Sample]]) -> None:
        """Listen on ``unix:/PATH`` or ``ADDRESS:PORT``. Raises UsageError or OutputError."""
        self._samples = samples
        self._path: Path | None = None
        try:
            self._socket = self._listen(listen)
        except OSError as error:
            raise OutputError(f"metrics cannot be offered on {listen}: {error.strerror}") from error
        self._thread = threading.Thread(target=self._serve, name="memory-tracer-metrics", daemon=True)
        self._thread.start()

    def _listen(self, listen: str) -> socket.socket:
        if listen.startswith("unix:"):
            path = Path(listen.removeprefix("unix:"))
            if not path.is_absolute():
                raise UsageError(f"{listen!r} is no absolute path; write unix:/run/memory-tracer/metrics")
            _remove_stale(path)
            found = _bound(socket.AF_UNIX, str(path))
            self._path = path
            return found
        host, port = _loopback(listen)
        return _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))

    @property
    def address(self) -> str:
        """Where it listens, the port that was chosen included."""
        return str(self._path) if self._path is not None else "{}:{}".format(*self._socket.getsockname()[:2])

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_PATIENCE)
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request and len(request) < _MAX_REQUEST:
            piece = connection.recv(_MAX_REQUEST)
            if not piece:
                return
            request += piece
        if not re.match(rb"GET /(metrics)? HTTP/1\.[01]\r\n", request):
            connection.sendall(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        body = render(self._samples()).encode()
        head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def close(self) -> None:
        """Answer no more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()


def _bound(family: int, address: str | tuple[str, int]) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)  # for a socket in the file system
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen()
    except OSError:
        found.close()
        raise
    finally:
        os.umask(before)
    return found


def _loopback(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        raise UsageError(f"{listen!r} is no port of this machine alone; write 127.0.0.1:9464 or unix:/PATH")
    return host, int(port)


def _remove_stale(path: Path) -> None:
    """Remove what is left of a service that was killed; nothing else."""
    with contextlib.suppress(FileNotFoundError):
        status = path.lstat()
        if stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid():
            path.unlink()

"""The service: capture after capture, a budget, signals, metrics, and the rights it has."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from memory_tracer import open_capture
from memory_tracer.model import Missing
from memory_tracer.record.privileges import EFFECTIVE, PERMITTED
from tests.workloads import PAGE_SIZE, Executable, Workloads, parse

from .recording import TOOL, await_that, end_of, line_from, running

pytestmark = pytest.mark.privileged

SEED = 49979687
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


class Running:
    """A service that runs, and what it said so far."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.process = process
        self._directory = directory
        self.said: list[dict[str, Any]] = []
        self.await_said("started")

    def await_said(self, event: str) -> dict[str, Any]:
        """Read what it says until it says that."""
        assert self.process.stderr is not None
        while True:
            line = self.process.stderr.readline()
            assert line, f"it ended without saying {event}: {self.said}"
            self.said.append(json.loads(line))
            if self.said[-1]["event"] == event:
                return self.said[-1]

    @property
    def captures(self) -> list[Path]:
        return sorted((self._directory / "captures").iterdir())


@contextmanager
def serving(directory: Path, text: str, *before: str) -> Iterator[Running]:
    path = directory / "service.toml"
    path.write_text(f'[capture]\ndirectory = "{directory}/captures"\n{text}')
    with running(*before, *TOOL, "record", "--config", path) as process:
        yield Running(process, directory)
        process.send_signal(signal.SIGTERM)
        ran = end_of(process)
        assert ran.status == 0, ran.err
        assert ran.err.splitlines()[-1] == '{"event": "stopped"}'


def flip(process: subprocess.Popen[bytes], seed: int) -> Executable:
    """Have the workload on_command make a page executable."""
    assert process.stdin is not None
    process.stdin.write(f"f {seed}\n".encode())
    process.stdin.flush()
    (step,) = parse([line_from(process)])
    assert isinstance(step, Executable)
    return step


def holds(path: Path, step: Executable) -> bool:
    (address, content), *_ = step.pages.items()
    with open_capture(path) as capture:
        pages = capture.pages(pid=step.pid, start=address, end=address + PAGE_SIZE)
        return any(page.content == content for page in pages)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that another user may use, too."""
    with tempfile.TemporaryDirectory() as path:
        os.chown(path, NOBODY, NOBODY)
        yield Path(path)
        os.chown(path, os.getuid(), os.getgid())


def scope_of(uid: int) -> str:
    return f"[record]\nfile-age = 0\n[scope.include]\nuids = [{uid}]\n"


def target(workloads: Workloads, directory: Path, uid: int) -> tuple[str, ...]:
    """A program, and how to start it as another user."""
    directory.chmod(0o711)
    program = shutil.copy(workloads.path("on_command"), directory / "program")
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", str(program))


def test_each_capture_stands_for_itself_and_nothing_falls_between(
    workloads: Workloads, directory: Path
) -> None:
    uid = NOBODY - 1
    with running(*target(workloads, directory, uid)) as process:
        line_from(process)
        before = flip(process, SEED)
        with serving(directory, f'rotate-age = "1s"\n{scope_of(uid)}') as service:
            steps: list[Executable] = []
            while len(service.captures) < 3:
                steps.append(flip(process, SEED + 1 + len(steps) % 1000))
            last = flip(process, SEED + 2000)
        paths = service.captures
    assert all(holds(path, before) for path in paths)  # in the baseline of each
    assert holds(paths[-1], last)
    contents = [content for step in steps for content in step.pages.values()]
    with_contents = set()
    for path in paths:
        with open_capture(path) as capture:
            assert capture.end is not None
            assert capture.end["reason"] == "interrupted"
            with_contents |= {page.content for page in capture.pages()}
    assert set(contents) <= with_contents


def test_budget_stops_content_before_metadata(workloads: Workloads, directory: Path) -> None:
    uid = NOBODY - 1
    with running(*target(workloads, directory, uid)) as process:
        line_from(process)
        with serving(directory, f'budget = "64K"\n{scope_of(uid)}') as service:
            steps = [flip(process, SEED + number) for number in range(40)]
        (path,) = service.captures
    with open_capture(path) as capture:
        pages = [
            page
            for step in steps
            for page in capture.pages(pid=step.pid, start=step.address, end=step.address + PAGE_SIZE)
        ]
        assert {page.address for page in pages} == {step.address for step in steps}  # each has its event
        reasons = {page.missing for page in pages}
        assert capture.unique_pages * PAGE_SIZE <= 64 << 10
    assert reasons == {None, Missing.LIMIT}


def test_oldest_captures_are_removed_for_the_next_one_if_asked(directory: Path) -> None:
    captures = directory / "captures"
    captures.mkdir(mode=0o700)
    old = captures / "20200101-000000-001.mtrace"
    old.write_bytes(bytes(900 << 10))
    text = f'budget = "1M"\nrotate-size = "512K"\nremove-oldest = true\n{scope_of(NOBODY - 1)}'
    with serving(directory, text) as service:
        assert {"event": "removed", "capture": old.name} in service.said
        assert old not in service.captures
        assert len(service.captures) == 1


def test_reload_changes_the_scope_and_a_wrong_configuration_nothing(
    workloads: Workloads, directory: Path
) -> None:
    uid = NOBODY - 1
    configuration = directory / "service.toml"
    with running(*target(workloads, directory, uid)) as process:
        line_from(process)
        with serving(directory, scope_of(NOBODY - 2)) as service:
            unseen = flip(process, SEED)
            text = configuration.read_text()
            for wrong in (text + "[scope.exclude]\nexes = ['/no/such/program']\n", "nonsense"):
                configuration.write_text(wrong)
                service.process.send_signal(signal.SIGHUP)
                service.await_said("reload-failed")
            configuration.write_text(text.replace(f"[{NOBODY - 2}]", f"[{uid}]"))
            service.process.send_signal(signal.SIGHUP)
            service.await_said("reloaded")
            seen = flip(process, SEED + 1)
            (path,) = service.captures
            await_that(lambda: holds(path, seen), "the target is recorded")
            configuration.write_text(configuration.read_text().replace("file-age = 0", "file-age = 1"))
            service.process.send_signal(signal.SIGHUP)
            service.await_said("reloaded")
            assert len(service.captures) == 2  # what cannot be changed, begins anew
    with open_capture(path) as capture:
        (address, content), *_ = unseen.pages.items()
        calls = capture.events(pid=unseen.pid, start=address, end=address + PAGE_SIZE)
        assert "mprotect" not in {str(event.kind) for event in calls}
        assert content  # it may be in the baseline


def ask(path: Path) -> dict[str, float]:
    """The metrics, by name and labels."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    _, _, body = answer.decode().partition("\r\n\r\n")
    lines = (line.rpartition(" ") for line in body.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_metrics_say_what_is_recorded_and_what_is_lost(
    workloads: Workloads, directory: Path, tmp_path: Path
) -> None:
    uid = NOBODY - 1
    listen = tmp_path / "metrics"
    with running(*target(workloads, directory, uid)) as process:
        line_from(process)
        with serving(directory, f'{scope_of(uid)}[metrics]\nlisten = "unix:{listen}"\n'):
            first = ask(listen)
            flip(process, SEED)
            events = 'memory_tracer_kernel_total{counter="events",loss="false"}'
            await_that(lambda: ask(listen)[events] > first[events], "an event is counted")
            assert first["memory_tracer_up"] == 1
            assert first["memory_tracer_captures_total"] == 1
            assert first['memory_tracer_kernel_total{counter="lost_pages",loss="true"}'] == 0
    assert not listen.exists()


def test_user_with_the_capabilities_of_the_unit_can_record_everybody(
    workloads: Workloads, directory: Path
) -> None:
    uid = NOBODY - 1
    capabilities = ",".join(f"+{capability.name.lower()}" for capability in PERMITTED)
    confined = (*AS_NOBODY, f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", "--no-new-privs")
    with running(*target(workloads, directory, uid)) as process:
        line_from(process)
        before = flip(process, SEED)
        with serving(directory, scope_of(uid), *confined) as service:
            status = Path(f"/proc/{service.process.pid}/status").read_text()
            fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            (path,) = service.captures
            await_that(lambda: holds(path, before), "the baseline")
            seen = flip(process, SEED + 1)
    assert fields["Uid"].split() == [str(NOBODY)] * 4
    assert int(fields["CapEff"], 16) == sum(1 << capability for capability in EFFECTIVE)
    assert int(fields["CapPrm"], 16) == sum(1 << capability for capability in PERMITTED)
    assert int(fields["CapAmb"], 16) == 0
    assert holds(path, seen)
    assert path.stat().st_mode & 0o777 == 0o600

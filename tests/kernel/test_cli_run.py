"""``memory-tracer run`` as its users meet it: streams, exit status, users, signals, ends, last lines."""

from __future__ import annotations

import os
import pwd
import re
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from memory_tracer import EventKind, open_capture
from memory_tracer.cli.recording import stopped_by_signals
from memory_tracer.record.recorder import EndReason
from memory_tracer.record.session import Session
from memory_tracer.record.settings import Settings
from tests.workloads import TIME_LIMIT_SECONDS, Workloads, parse

from .recording import (
    ENVIRONMENT,
    TOOL,
    Recorder,
    await_that,
    end_of,
    execute,
    line_from,
    line_to,
    recorded,
    running,
    said,
    tool,
)

pytestmark = pytest.mark.privileged

SEED = 32452843
NOBODY = pwd.getpwnam("nobody")

#: Says its PID, waits for a line, says another.
PATIENT = "echo $$; read line; echo done"


def ended_because(path: Path) -> str:
    with open_capture(path) as capture:
        assert capture.end is not None
        reason = capture.end["reason"]
        assert isinstance(reason, str)
        return reason


# ---- streams and status ----------------------------------------------------------------------


def test_standard_input_and_output_are_the_targets_own(recorder: Recorder) -> None:
    data = os.urandom(1 << 18)
    recording = recorder.command("cat", stdin=data)
    assert recording.ran.status == 0
    assert recording.ran.out == data


def test_quiet_leaves_standard_error_to_the_target(recorder: Recorder) -> None:
    recording = recorder.command("sh", "-c", "echo out; echo err >&2", options=["-q"])
    assert (recording.ran.out, recording.ran.err) == (b"out\n", "err\n")


def test_last_lines_say_what_there_is_and_what_to_type_next(recorder: Recorder) -> None:
    recording = recorder.workload("pages16", SEED)
    wrote, complete, following = recording.ran.err.splitlines()
    with recording.open() as capture:
        counts = f"{capture.event_count} events, {capture.page_count} pages"
    assert wrote.startswith(f"memory-tracer: Wrote {recording.path}: {counts} (16 different, ")
    assert complete == "memory-tracer: Complete: nothing was lost."
    assert following == f"memory-tracer: Next: memory-tracer report {recording.path}"
    report = tool("report", recording.path)
    assert report.status == 0
    assert "pages16" in report.out.decode()


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 77", 77),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + signal.SIGTERM),
        ("kill -SEGV $$", 128 + signal.SIGSEGV),
    ],
)
def test_exit_status_is_the_targets(recorder: Recorder, script: str, status: int) -> None:
    recording = recorder.command("sh", "-c", script)
    assert recording.ran.status == status
    with recording.open() as capture:
        assert capture.complete


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error_and_end_up_in_no_file(recorder: Recorder, closed: str) -> None:
    path = recorder.new_path()
    ran = execute(["sh", "-c", f'exec "$@" {closed}', "sh", *TOOL, "run", "-o", path, "--", "true"])
    assert ran.status == 0
    assert "Traceback" not in ran.err
    ran = execute(["sh", "-c", f'exec "$@" {closed}', "sh", *TOOL, "verify", path])
    assert ran.status == 0
    assert "Traceback" not in ran.err


def test_default_output_is_named_after_the_command_and_the_time(tmp_path: Path, workloads: Workloads) -> None:
    command = tmp_path / "-odd name;\x1b[31m"
    command.symlink_to(workloads.path("pages16"))
    directory = tmp_path / "here"
    directory.mkdir()
    ran = tool("run", "--", command, SEED, cwd=directory)
    assert ran.status == 0
    (path,) = directory.iterdir()
    assert re.fullmatch(r"odd_name_31m-\d{8}-\d{6}\.mtrace", path.name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_target_runs_in_the_callers_directory_and_environment(recorder: Recorder, tmp_path: Path) -> None:
    path = recorder.new_path()
    shell = ("sh", "-c", "pwd; echo $FRUIT")
    ran = tool("run", "-q", "-o", path, "--", *shell, cwd=tmp_path, variables={"FRUIT": "fig"})
    assert ran.out.decode() == f"{tmp_path}\nfig\n"


def test_target_gets_no_variable_that_its_caller_did_not_set(recorder: Recorder) -> None:
    given = set(execute(["env", "-0"]).out.split(b"\0"))
    seen = set(tool("run", "-q", "-o", recorder.new_path(), "--", "env", "-0").out.split(b"\0"))
    assert b"" in given
    assert seen - given == set()


# ---- users -----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["sudo", "--user NAME", "--user UID"])
def test_target_runs_as_the_user_and_the_capture_is_theirs_alone(recorder: Recorder, way: str) -> None:
    script = 'id -u; id -g; id -G; echo "$HOME $USER $LOGNAME"'
    sudo = {"SUDO_UID": str(NOBODY.pw_uid), "SUDO_GID": str(NOBODY.pw_gid), "SUDO_USER": NOBODY.pw_name}
    user = NOBODY.pw_name if way == "--user NAME" else NOBODY.pw_uid
    recording = recorder.command(
        "sh",
        "-c",
        script,
        options=[] if way == "sudo" else ["--user", user],
        variables=sudo if way == "sudo" else None,
    )
    groups = " ".join(map(str, os.getgrouplist(NOBODY.pw_name, NOBODY.pw_gid)))
    assert recording.ran.out.decode().splitlines() == [
        str(NOBODY.pw_uid),
        str(NOBODY.pw_gid),
        groups,
        f"{NOBODY.pw_dir} nobody nobody",
    ]
    status = recording.path.stat()
    assert (status.st_uid, status.st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
    assert stat.S_IMODE(status.st_mode) == 0o600
    with recording.open() as capture:
        assert {process.uid for process in capture.processes} == {NOBODY.pw_uid}


def test_forced_output_belongs_to_the_user_whoever_had_it_before(recorder: Recorder) -> None:
    path = recorder.new_path()
    path.write_text("root's")
    path.chmod(0o644)
    sudo = {"SUDO_UID": str(NOBODY.pw_uid), "SUDO_GID": str(NOBODY.pw_gid)}
    assert tool("run", "--force", "-o", path, "true", variables=sudo).status == 0
    assert path.stat().st_uid == NOBODY.pw_uid
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# ---- ends ------------------------------------------------------------------------------------


def test_ctrl_c_ends_the_recording_and_not_a_target_that_ignores_it(
    recorder: Recorder, workloads: Workloads
) -> None:
    path = recorder.new_path()
    script = f"trap '' INT; {workloads.path('pages16')} {SEED}; {PATIENT}"
    with subprocess.Popen(
        [*TOOL, "run", "-o", path, "--", "sh", "-c", script],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
        process_group=0,
    ) as process:
        flip = line_from(process)
        target = int(line_from(process))
        # WHEN Ctrl-C is typed, which the terminal sends to the whole group
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(TIME_LIMIT_SECONDS) == 0
        # THEN the target goes on
        assert Path(f"/proc/{target}").exists()
        line_to(process)
        assert line_from(process) == b"done\n"
    assert ended_because(path) == "interrupted"
    with open_capture(path) as capture:
        assert recorded(capture) == said(parse([flip]))
        assert capture.complete


def test_second_signal_is_not_held_back(recorder: Recorder) -> None:
    settings = Settings(ring_bytes=1 << 20)
    with Session(recorder.new_path(), settings, command=["cat", "/dev/null"]) as session:
        before = signal.getsignal(signal.SIGINT)
        with stopped_by_signals(session):
            signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
            assert session.record() is EndReason.INTERRUPTED
        assert signal.getsignal(signal.SIGINT) is before


def test_signal_that_was_ignored_when_it_started_stays_ignored(recorder: Recorder) -> None:
    path = recorder.new_path()
    start = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *TOOL)
    with running(*start, "run", "-o", path, "--", "sh", "-c", PATIENT) as process:
        line_from(process)
        status = Path(f"/proc/{process.pid}/status").read_text()
        ignored = int(re.findall(r"SigIgn:\s*(\w+)", status)[0], 16)
        assert ignored & 1 << signal.SIGHUP - 1
        process.send_signal(signal.SIGHUP)
        line_to(process)
        assert end_of(process).status == 0
    assert ended_because(path) == "targets-ended"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_closes_the_capture_in_order(recorder: Recorder, number: signal.Signals) -> None:
    path = recorder.new_path()
    with running(*TOOL, "run", "-o", path, "--", "sh", "-c", PATIENT) as process:
        line_from(process)
        process.send_signal(number)
        assert process.wait(TIME_LIMIT_SECONDS) == 0
    assert ended_because(path) == "interrupted"
    assert tool("verify", path).status == 0


def test_duration_ends_the_recording_and_not_the_target(recorder: Recorder) -> None:
    path = recorder.new_path()
    with running(*TOOL, "run", "--duration", "0.05", "-o", path, "--", "sh", "-c", PATIENT) as process:
        target = int(line_from(process))
        assert process.wait(TIME_LIMIT_SECONDS) == 0
        assert Path(f"/proc/{target}").exists()
        line_to(process)
        assert line_from(process) == b"done\n"
    assert ended_because(path) == "duration"


def test_end_with_command_does_not_wait_for_descendants(recorder: Recorder) -> None:
    path = recorder.new_path()
    script = f"exec 3<&0; ({PATIENT}) <&3 & exit 9"
    with running(*TOOL, "run", "--end-with-command", "-o", path, "--", "sh", "-c", script) as process:
        assert process.wait(TIME_LIMIT_SECONDS) == 9
        assert int(line_from(process)) > 0
        line_to(process)
        assert line_from(process) == b"done\n"
    assert ended_because(path) == "command-ended"


def test_two_recordings_at_once_do_not_see_each_other(recorder: Recorder, workloads: Workloads) -> None:
    first, second = recorder.new_path(), recorder.new_path()
    script = f"{PATIENT}; exec {workloads.path('pages16')} {SEED}"
    with (
        running(*TOOL, "run", "-o", first, "--", "sh", "-c", script) as one,
        running(*TOOL, "run", "-o", second, "--", "sh", "-c", script) as other,
    ):
        for process in (one, other):
            line_from(process)
        for process in (one, other):
            line_to(process)
        outputs = [end_of(process).out.splitlines()[1:] for process in (one, other)]
    for path, output in zip((first, second), outputs, strict=True):
        with open_capture(path) as capture:
            assert recorded(capture) == said(parse(output))
            assert len(capture.processes) == 1
            assert capture.complete


def test_capture_can_be_read_while_it_grows(recorder: Recorder, workloads: Workloads) -> None:
    path = recorder.new_path()
    script = f"{workloads.path('pages16')} {SEED}; {PATIENT}"
    with running(*TOOL, "run", "-o", path, "--", "sh", "-c", script) as process:
        flip = line_from(process)
        line_from(process)
        with open_capture(path) as capture:

            def arrived() -> bool:
                capture.refresh()
                return any(capture.events(kinds={EventKind.EXIT}))

            await_that(arrived, "the first process's end is in the file")
            assert recorded(capture) == said(parse([flip]))
            assert capture.end is None
        line_to(process)
        assert end_of(process).status == 0

"""Whatever cannot work gives one clear sentence, the right exit status, and no traceback or file."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memory_tracer.record.loader import OBJECT_PATH
from tests.workloads import PAGE_SIZE

from .recording import (
    TOOL,
    Argument,
    Ran,
    Recorder,
    await_end,
    end_of,
    execute,
    line_from,
    running,
    tool,
)

pytestmark = pytest.mark.privileged

NOBODY = 65534
#: PID_MAX_LIMIT of 64-bit kernels is 2^22; no process has this PID.
NO_PID = 1 << 22

#: A user without privilege, except that this test's own files may be read wherever they lie.
_CAPABILITIES = "-all,+dac_read_search"
UNPRIVILEGED: tuple[Argument, ...] = (
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    f"--inh-caps={_CAPABILITIES}",
    f"--ambient-caps={_CAPABILITIES}",
    f"--bounding-set={_CAPABILITIES}",
)


def refused(ran: Ran, status: int = 1) -> str:
    """Return the sentence of a command that failed as it should."""
    assert ran.status == status
    assert ran.out == b""
    return ran.sentence


def rejected(ran: Ran) -> str:
    """Return the message of a command line that was not understood; usage stands before it."""
    assert (ran.status, ran.out) == (2, b"")
    assert "Traceback" not in ran.err
    assert ran.err.startswith("Usage: memory-tracer ")
    (sentence,) = (line for line in ran.err.splitlines() if line.startswith("Error: "))
    return sentence


def in_mount_namespace(preparation: str, *arguments: Argument) -> Ran:
    """Run memory-tracer where ``preparation`` has changed mounts that nobody else sees."""
    command = " ".join(map(str, (*TOOL, *arguments)))
    return execute(["unshare", "--mount", "sh", "-ec", f"{preparation}; exec {command}"])


# ---- whom to trace ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pid", "status", "words"),
    [
        pytest.param(0, 2, "0 is not the PID of a process", id="zero"),
        pytest.param(-1, 2, "-1 is not the PID of a process", id="negative"),
        pytest.param(2, 1, "kernel thread", id="kernel thread"),
        pytest.param(NO_PID, 1, "no process", id="never existed"),
        pytest.param(1 << 32 | 1, 1, "no process", id="more than 32 bits"),
        pytest.param(10**30, 1, "no process", id="more than 64 bits"),
    ],
)
def test_pid_of_no_user_process_is_refused(recorder: Recorder, pid: int, status: int, words: str) -> None:
    path = recorder.new_path()
    assert words in refused(tool("attach", "-o", path, "--", pid), status)
    assert not path.exists()


def test_process_that_has_ended_is_refused(recorder: Recorder) -> None:
    with running("true") as process:
        assert end_of(process).status == 0
        assert "no process" in refused(tool("attach", "-o", recorder.new_path(), process.pid))


def test_zombie_is_refused(recorder: Recorder) -> None:
    with running("true") as process:
        await_end(process.pid)
        assert "ended already" in refused(tool("attach", "-o", recorder.new_path(), process.pid))


def test_thread_is_refused_and_its_process_named(recorder: Recorder) -> None:
    script = (
        "import threading; thread = threading.Thread(target=input);"
        "thread.start(); print(thread.native_id, flush=True)"
    )
    with running(sys.executable, "-c", script) as process:
        tid = int(line_from(process))
        assert tid != process.pid
        sentence = refused(tool("attach", "-o", recorder.new_path(), tid))
        assert f"{tid} is a thread" in sentence
        assert str(process.pid) in sentence
        end_of(process)


def test_one_bad_pid_among_good_ones_starts_nothing(recorder: Recorder) -> None:
    path = recorder.new_path()
    assert "no process" in refused(tool("attach", "-o", path, os.getpid(), NO_PID))
    assert not path.exists()


def test_word_instead_of_a_pid_is_a_usage_error() -> None:
    assert "PID" in rejected(tool("attach", "firefox"))


# ---- rights and the system -------------------------------------------------------------------


@pytest.mark.parametrize(
    "verb",
    [("run", "--engine", "ebpf", "true"), ("attach", os.getpid()), ("debug", "true")],
    ids=lambda v: v[0],
)
def test_user_without_privilege_is_told_what_to_do(tmp_path: Path, verb: tuple[Argument, ...]) -> None:
    ran = execute((*UNPRIVILEGED, *TOOL, *verb), cwd=tmp_path)
    assert "run as root" in refused(ran) or "run with sudo" in ran.sentence
    assert list(tmp_path.iterdir()) == []


def test_root_without_capabilities_is_told_what_to_do(recorder: Recorder) -> None:
    command = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", *TOOL)
    path = recorder.new_path()
    sentence = refused(execute((*command, "run", "--engine", "ebpf", "-o", path, "true")))
    assert "CAP_BPF" in sentence
    assert not path.exists()


def test_doctor_says_to_an_unprivileged_user_what_is_missing_and_what_works_all_the_same() -> None:
    ran = execute((*UNPRIVILEGED, *TOOL, "doctor"))
    assert ran.status == 0
    assert "Traceback" not in ran.err
    lines = ran.out.decode().splitlines()
    (ptrace,) = (line for line in lines if " ptrace " in line)
    assert ptrace.startswith("ok")
    (line,) = (line for line in lines if " privilege " in line)
    assert line.startswith("NO")
    assert "run with sudo" in line


def test_kernel_without_type_information_is_named(recorder: Recorder) -> None:
    hidden = "mount -t tmpfs none /sys/kernel/btf"
    ran = in_mount_namespace(hidden, "run", "--engine", "ebpf", "-o", recorder.new_path(), "true")
    sentence = refused(ran)
    assert "/sys/kernel/btf/vmlinux" in sentence
    assert "CONFIG_DEBUG_INFO_BTF" in sentence


def test_verifiers_reason_is_told_when_asked_for(recorder: Recorder, tmp_path: Path) -> None:
    refused_object = tmp_path / "memory_tracer.bpf.o"
    refused_object.write_bytes(OBJECT_PATH.read_bytes().replace(b"GPL\0", b"???\0"))
    hidden = f"mount --bind {refused_object} {OBJECT_PATH}"
    path = recorder.new_path()
    sentence = refused(in_mount_namespace(hidden, "run", "--engine", "ebpf", "-o", path, "true"))
    assert "did not accept the BPF program" in sentence
    assert "--verbose" in sentence
    ran = in_mount_namespace(hidden, "--verbose", "run", "--engine", "ebpf", "-o", path, "true")
    assert ran.status == 1
    assert "non-GPL compatible program" in ran.err
    assert not path.exists()


def _libbpf() -> Path:
    for line in execute(["/sbin/ldconfig", "-p"]).out.decode().splitlines():
        if "libbpf.so.1 " in line:
            return Path(line.rpartition(" => ")[2]).resolve()
    pytest.fail("libbpf is not installed")


@pytest.mark.parametrize("verb", ["run", "doctor"])
def test_missing_libbpf_is_named_with_its_package(recorder: Recorder, verb: str) -> None:
    hidden = f"mount --bind /dev/null {_libbpf()}"
    if verb == "run":
        ran = in_mount_namespace(hidden, "run", "--engine", "ebpf", "-o", recorder.new_path(), "true")
        assert "libbpf1" in refused(ran)
    else:
        ran = in_mount_namespace(hidden, "doctor")
        assert "libbpf1" in ran.out.decode()


def test_pid_namespace_is_refused_because_its_pids_mean_others(recorder: Recorder) -> None:
    path = recorder.new_path()
    command = ("unshare", "--pid", "--fork", "--mount-proc", *TOOL)
    assert "--pid=host" in refused(execute((*command, "run", "--engine", "ebpf", "-o", path, "true")))
    assert not path.exists()


# ---- the command -----------------------------------------------------------------------------


def test_command_that_is_not_there_is_named(recorder: Recorder) -> None:
    path = recorder.new_path()
    assert "'no-such-command'" in refused(tool("run", "-o", path, "no-such-command"))
    assert "No such file" in refused(tool("run", "-o", path, "/no/such/file"))
    assert not path.exists()


@pytest.mark.parametrize("kind", ["without permission", "directory", "not a program"])
def test_command_that_cannot_be_executed_is_named(recorder: Recorder, kind: str) -> None:
    command, path = recorder.directory / "command", recorder.new_path()
    if kind == "directory":
        command.mkdir()
    else:
        command.write_bytes(b"\x7fELF" + bytes(PAGE_SIZE))
        command.chmod(0o600 if kind == "without permission" else 0o700)
    sentence = refused(tool("run", "-o", path, command))
    assert str(command) in sentence
    assert "cannot be executed" in sentence
    assert not path.exists()


def test_hostile_command_name_does_not_reach_the_terminal(recorder: Recorder) -> None:
    ran = tool("run", "-o", recorder.new_path(), "\x1b[31mred\nline\x07")
    assert ran.sentence.isprintable()


@pytest.mark.parametrize("arguments", [(), ("--",)], ids=["nothing", "only the separator"])
def test_run_without_a_command_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert "COMMAND" in rejected(tool("run", *arguments))


def test_empty_command_is_a_usage_error(recorder: Recorder) -> None:
    assert "no command" in refused(tool("run", "-o", recorder.new_path(), "--", ""), 2)


def test_user_that_does_not_exist_is_a_usage_error(recorder: Recorder) -> None:
    assert "'nobody-at-all'" in refused(
        tool("run", "--user", "nobody-at-all", "-o", recorder.new_path(), "true"), 2
    )


@pytest.mark.parametrize(
    "option",
    [
        ("--prot", "q"),
        ("--event", "explosion"),
        ("--duration", "-1"),
        ("--duration", "soon"),
        ("--ring-size", "large"),
        ("--max-size", "-1"),
        ("--uid", "root"),
        ("--no-such-option",),
    ],
    ids=" ".join,
)
def test_wrong_option_is_a_usage_error(option: tuple[str, ...]) -> None:
    assert rejected(tool("run", *option, "true"))


def test_name_too_long_for_a_process_is_a_usage_error() -> None:
    assert "at most 15 bytes" in refused(tool("run", "--comm", "x" * 16, "true"), 2)


# ---- the output ------------------------------------------------------------------------------


@pytest.fixture(params=["link to nothing", "link to a file", "pipe", "socket", "device"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Something that is there already and is no regular file."""
    path = tmp_path / "special"
    if request.param == "link to nothing":
        path.symlink_to(tmp_path / "nothing")
    elif request.param == "link to a file":
        (tmp_path / "file").write_text("precious")
        path.symlink_to(tmp_path / "file")
    elif request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    else:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    yield path
    # Nothing was written through it, and it is still what it was.
    assert not (tmp_path / "nothing").exists()
    assert not (tmp_path / "file").exists() or (tmp_path / "file").read_text() == "precious"
    assert not path.is_file() or path.is_symlink()


def test_output_that_is_no_regular_file_is_refused_even_by_force(special: Path) -> None:
    assert "--force" in refused(tool("run", "-o", special, "true"))
    assert "not a regular file" in refused(tool("run", "--force", "-o", special, "true"))


def test_existing_output_is_kept_unless_forced(recorder: Recorder) -> None:
    path = recorder.new_path()
    path.write_text("precious")
    assert "--force" in refused(tool("run", "-o", path, "true"))
    assert path.read_text() == "precious"
    assert tool("run", "--force", "-q", "-o", path, "true").status == 0
    assert tool("verify", path).status == 0


def test_output_in_no_directory_or_in_its_place_is_refused(tmp_path: Path) -> None:
    assert "No such file or directory" in refused(tool("run", "-o", tmp_path / "no" / "file", "true"))
    assert "is a directory" in rejected(tool("run", "-o", tmp_path, "true"))
    (tmp_path / "file").touch()
    assert "Not a directory" in refused(tool("run", "-o", tmp_path / "file" / "x", "true"))


def test_output_on_a_read_only_file_system_is_refused(tmp_path: Path) -> None:
    ran = in_mount_namespace(f"mount -t tmpfs -o ro none {tmp_path}", "run", "-o", tmp_path / "x", "true")
    assert "Read-only file system" in refused(ran)


def test_command_does_not_run_when_the_output_cannot_be_made(tmp_path: Path) -> None:
    refused(tool("run", "-o", tmp_path / "no" / "file", "touch", tmp_path / "ran"))
    assert not (tmp_path / "ran").exists()

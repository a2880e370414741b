"""Recording whoever is in a scope: by user, name, program, control group, container, and without some."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from memory_tracer import Criteria, EventKind, Scope, Settings, TargetError, Tracer, UsageError, open_capture
from memory_tracer.errors import UnsupportedError
from memory_tracer.record.cgroups import hierarchy
from memory_tracer.record.kernel import Kernel
from memory_tracer.record.launch import LaunchedProcess
from memory_tracer.record.loader import Program
from memory_tracer.record.settings import PAGE_LOOPS
from tests.workloads import PAGE_SIZE, Executable, Workloads, parse

from .machine import hooks
from .recording import (
    TOOL,
    Argument,
    Recorder,
    await_that,
    end_of,
    execute,
    line_from,
    losses_of,
    old_files,
    running,
    tool,
)

pytestmark = pytest.mark.privileged

SEED = 15487469
NOBODY = 65534
SETTINGS = replace(old_files(), all_calls=False, lossless=False)


class Obedient:
    """The workload on_command: it makes code executable, and becomes something else, when told to."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid
        line_from(process)  # it is ready

    def tell(self, command: str) -> None:
        """Have it do something else than make code, and wait until it has."""
        self._write(command)
        line_from(self.process)

    def flip(self, seed: int) -> Executable:
        """Have it make a page executable, and wait until it has."""
        self._write(f"f {seed}")
        (step,) = parse([line_from(self.process)])
        assert isinstance(step, Executable)
        return step

    def _write(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        self.process.stdin.flush()


@contextmanager
def obedient(program: Path, *before: Argument) -> Iterator[Obedient]:
    """Start it, as the argument of another command if there is one; end it by itself."""
    with running(*before, program) as process:
        yield Obedient(process)
        assert end_of(process).status == 0


@dataclass
class Group:
    """A control group of the test's own."""

    path: Path

    def take(self, pid: int) -> None:
        """Move a process into it."""
        (self.path / "cgroup.procs").write_text(str(pid))

    @property
    def command(self) -> tuple[Argument, ...]:
        """What to put before a command so that it starts in the group."""
        return ("sh", "-c", f'echo $$ > {self.path}/cgroup.procs; exec "$0" "$@"')


@contextmanager
def group(name: str = "") -> Iterator[Group]:
    """Make a control group; skip where that cannot be."""
    try:
        path = hierarchy() / (name or f"memory-tracer-{secrets.token_hex(6)}")
        path.mkdir()
    except (UnsupportedError, OSError) as error:
        pytest.skip(f"no control group (version 2) can be made here: {error}")
    try:
        yield Group(path)
    finally:
        for below in (*path.glob("*/"), path):
            await_that(functools.partial(_removed, below), f"{below} is empty")


def _removed(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:
        return False
    return True


@pytest.fixture
def program(workloads: Workloads) -> Iterator[Path]:
    """A copy of the workload that nobody else executes, and that every user may."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(shutil.copy(workloads.path("on_command"), Path(directory, "program")))


def holds(path: Path, pid: int, step: Executable, kind: EventKind | None = None) -> bool:
    """Whether what a target said it made executable is in a capture, for the process of that PID."""
    (address, content), *_ = step.pages.items()
    with open_capture(path) as capture:
        return any(
            page.content == content
            for page in capture.pages(pid=pid, start=address, end=address + PAGE_SIZE)
            if kind is None or page.event is kind
        )


def recorded_pids(path: Path) -> set[int]:
    with open_capture(path) as capture:
        return {process.pid for process in capture.processes}


@contextmanager
def scoped(recorder: Recorder, scope: Scope, settings: Settings = SETTINGS) -> Iterator[Tracer]:
    with Tracer.attach(scope=scope, settings=settings, output=recorder.new_path()) as tracer:
        await_that(lambda: tracer.path.exists() and tracer.path.stat().st_size > 0, "the capture is begun")
        yield tracer


def await_baseline(tracer: Tracer, pid: int, step: Executable) -> None:
    """Wait until what was executable before is in the capture: from then on the process is in the scope."""
    await_that(lambda: holds(tracer.path, pid, step, EventKind.BASELINE), f"the baseline of {pid}")


def as_user(uid: int) -> tuple[Argument, ...]:
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")


Started = tuple[Scope, tuple[Argument, ...]]


@pytest.fixture(params=["uid", "comm", "exe", "cgroup", "cgroup above"])
def start(request: pytest.FixtureRequest, program: Path) -> Iterator[Started]:
    """A scope, and how to start a program that is in it; others are not."""
    with group() as own:
        below = own.path / "below"
        below.mkdir()
        starts: dict[str, Started] = {
            "uid": (Scope(Criteria(uids=(NOBODY,))), (*as_user(NOBODY), program)),
            "comm": (Scope(Criteria(comms=("inside",))), (program.with_name("inside"),)),
            "exe": (Scope(Criteria(exes=(program.with_name("inside"),))), (program.with_name("inside"),)),
            "cgroup": (Scope(Criteria(cgroups=(own.path,))), (*own.command, program)),
            "cgroup above": (Scope(Criteria(cgroups=(own.path,))), (*Group(below).command, program)),
        }
        shutil.copy(program, program.with_name("inside"))
        yield starts[request.param]


@pytest.mark.may_skip
def test_who_runs_already_is_recorded_if_it_is_in_the_scope(
    recorder: Recorder, program: Path, start: Started
) -> None:
    scope, command = start
    with obedient(program) as outside, obedient(Path(str(command[-1])), *command[:-1]) as inside:
        unseen, before = outside.flip(SEED), inside.flip(SEED + 1)
        with scoped(recorder, scope) as tracer:
            await_baseline(tracer, inside.pid, before)
            also_unseen, seen = outside.flip(SEED + 2), inside.flip(SEED + 3)
    assert holds(tracer.path, inside.pid, seen, EventKind.MPROTECT)
    assert not holds(tracer.path, outside.pid, unseen)
    assert not holds(tracer.path, outside.pid, also_unseen)
    assert outside.pid not in recorded_pids(tracer.path)


@pytest.mark.may_skip
def test_who_starts_later_is_recorded_from_its_first_instruction(
    recorder: Recorder, program: Path, start: Started
) -> None:
    scope, command = start
    with obedient(program) as witness:
        before = witness.flip(SEED)
        # The witness tells when the scope is in force.
        both = Scope(Criteria(pids=(witness.pid,)))
        with scoped(recorder, both) as tracer:
            await_baseline(tracer, witness.pid, before)
            tracer.change_scope(scope)
            with obedient(program) as outside, obedient(Path(str(command[-1])), *command[:-1]) as inside:
                seen, unseen = inside.flip(SEED + 1), outside.flip(SEED + 2)
                forgotten = witness.flip(SEED + 3)
    with open_capture(tracer.path) as capture:
        kinds = {event.kind for event in capture.events(pid=inside.pid)}
        assert capture.counters["recorder"]["scope_changes"] == 1
    assert {EventKind.EXEC, EventKind.EXEC_MAPPING, EventKind.EXIT} <= kinds
    assert holds(tracer.path, inside.pid, seen, EventKind.MPROTECT)
    assert not holds(tracer.path, outside.pid, unseen)
    assert not holds(tracer.path, witness.pid, forgotten)


def _variants() -> list[tuple[str, str | None]]:
    """The hooks of this kernel, and with the one that is there everywhere all page loops."""
    try:
        loops = PAGE_LOOPS[PAGE_LOOPS.index(Kernel().page_loop) :]
    except UnsupportedError:  # no BTF: the tests will be skipped for that reason
        loops = ()
    return [(hook, loop) for hook in hooks() for loop in (loops if hook == "tracepoint" else (None,))]


@pytest.mark.emulated
@pytest.mark.parametrize(("hook", "page_loop"), _variants())
def test_scope_is_decided_by_all_variants_of_the_program(
    recorder: Recorder, program: Path, hook: str, page_loop: str | None
) -> None:
    settings = replace(SETTINGS, hook=hook, page_loop=page_loop)
    with obedient(program) as outside, obedient(program, *as_user(NOBODY)) as inside:
        before = inside.flip(SEED)
        with scoped(recorder, Scope(Criteria(uids=(NOBODY,))), settings) as tracer:
            await_baseline(tracer, inside.pid, before)
            inside.tell("c")
            seen, unseen = inside.flip(SEED + 1), outside.flip(SEED + 2)
    assert holds(tracer.path, seen.pid, seen, EventKind.MPROTECT)
    assert not holds(tracer.path, outside.pid, unseen)
    assert outside.pid not in recorded_pids(tracer.path)


def _become_user(target: Obedient, _group: Group) -> None:
    target.tell(f"u {NOBODY}")


def _become_named(target: Obedient, _group: Group) -> None:
    target.tell("n inside")


def _become_grouped(target: Obedient, own: Group) -> None:
    own.take(target.pid)


@pytest.mark.may_skip
@pytest.mark.parametrize("follow", [True, False], ids=["follow", "no-follow"])
@pytest.mark.parametrize(
    ("become", "criterion"),
    [
        (_become_user, lambda _: Criteria(uids=(NOBODY,))),
        (_become_named, lambda _: Criteria(comms=("inside",))),
        (_become_grouped, lambda own: Criteria(cgroups=(own.path,))),
    ],
    ids=["user", "name", "group"],
)
def test_who_comes_into_the_scope_while_it_runs_is_recorded(
    recorder: Recorder,
    program: Path,
    become: Callable[[Obedient, Group], None],
    criterion: Callable[[Group], Criteria],
    follow: bool,
) -> None:
    with group() as own, obedient(program) as witness, obedient(program) as target:
        before, first = witness.flip(SEED), target.flip(SEED + 1)
        own.take(witness.pid)
        both = Scope(Criteria(pids=(witness.pid,)))
        with scoped(recorder, both, replace(SETTINGS, follow=follow)) as tracer:
            await_baseline(tracer, witness.pid, before)
            tracer.change_scope(Scope(criterion(own)))
            unseen = target.flip(SEED + 2)
            assert not holds(tracer.path, target.pid, unseen)
            become(target, own)
            seen = target.flip(SEED + 3)
            # What it made before it came is read from outside.
            await_baseline(tracer, target.pid, first)
    assert holds(tracer.path, target.pid, seen, EventKind.MPROTECT)
    assert not holds(tracer.path, target.pid, unseen, EventKind.MPROTECT)


@pytest.mark.parametrize("follow", [True, False], ids=["follow", "no-follow"])
def test_what_a_process_in_the_scope_becomes_and_starts_is_followed(
    recorder: Recorder, program: Path, follow: bool
) -> None:
    other = shutil.copy(program, program.with_name("other"))
    with obedient(program) as target:
        before = target.flip(SEED)
        scope = Scope(Criteria(exes=(program,)))
        with scoped(recorder, scope, replace(SETTINGS, follow=follow)) as tracer:
            await_baseline(tracer, target.pid, before)
            target.tell("c")
            of_child = target.flip(SEED + 1)
            target.tell(f"x {other}")
            of_other = target.flip(SEED + 2)
    assert of_child.pid == of_other.pid != target.pid
    assert holds(tracer.path, of_child.pid, of_child)
    assert holds(tracer.path, of_other.pid, of_other) == follow


def test_exclusion_wins_over_everything(recorder: Recorder, program: Path) -> None:
    with (
        obedient(program, *as_user(NOBODY)) as inside,
        obedient(program, *as_user(NOBODY)) as outside,
    ):
        before = inside.flip(SEED)
        scope = Scope(
            Criteria(uids=(NOBODY,), exes=(program,)),
            exclude=Criteria(pids=(outside.pid,), comms=("secret",)),
        )
        with scoped(recorder, scope) as tracer:
            await_baseline(tracer, inside.pid, before)
            unseen, seen = outside.flip(SEED + 1), inside.flip(SEED + 2)
            inside.tell("n secret")
            secret = inside.flip(SEED + 3)
    assert holds(tracer.path, inside.pid, seen)
    assert not holds(tracer.path, inside.pid, secret)
    assert not holds(tracer.path, outside.pid, unseen)


def test_one_criterion_of_each_sort_must_be_true(recorder: Recorder, program: Path) -> None:
    with obedient(program) as of_root, obedient(program, *as_user(NOBODY)) as of_nobody:
        of_nobody.tell("n inside")
        before = of_nobody.flip(SEED)
        of_root.tell("n inside")
        scope = Scope(Criteria(uids=(NOBODY, NOBODY - 1), comms=("else", "inside")))
        with scoped(recorder, scope) as tracer:
            await_baseline(tracer, of_nobody.pid, before)
            of_nobody.flip(SEED + 1)
            of_root.flip(SEED + 2)
    assert recorded_pids(tracer.path) == {of_nobody.pid}


def test_whole_machine_is_recorded_but_for_the_recorder(recorder: Recorder, program: Path) -> None:
    path = recorder.new_path()
    with (
        obedient(program, *as_user(NOBODY)) as target,
        running(*TOOL, "attach", "--all", *("--file-age", "0"), "-o", path) as process,
    ):
        before = target.flip(SEED)
        await_that(lambda: path.exists() and path.stat().st_size > 0, "the capture is begun")
        await_that(lambda: holds(path, target.pid, before), "the target's code")
        with obedient(program) as later:
            seen = later.flip(SEED + 1)
        process.send_signal(signal.SIGINT)
        ran = end_of(process)
    assert ran.status == 0, ran.err
    assert holds(path, later.pid, seen)
    pids = recorded_pids(path)
    assert {target.pid, later.pid, os.getpid()} <= pids
    assert process.pid not in pids
    report = tool("report", path).out.decode()
    assert report.startswith("attached to all processes\n")


def test_scope_that_names_what_is_not_there_is_refused_and_the_old_one_holds(
    recorder: Recorder, program: Path
) -> None:
    with obedient(program) as target:
        before = target.flip(SEED)
        with scoped(recorder, Scope(Criteria(pids=(target.pid,)))) as tracer:
            await_baseline(tracer, target.pid, before)
            for absent in (
                Criteria(cgroups=("/no/such/group",)),
                Criteria(containers=("no-such-container",)),
                Criteria(exes=("/no/such/program",)),
            ):
                with pytest.raises((TargetError, UnsupportedError)):
                    tracer.change_scope(Scope(absent))
            seen = target.flip(SEED + 1)
    assert holds(tracer.path, target.pid, seen)


def test_scope_of_a_recording_by_pid_cannot_be_changed(recorder: Recorder, program: Path) -> None:
    with (
        obedient(program) as target,
        Tracer.attach(target.pid, output=recorder.new_path()) as tracer,
        pytest.raises(UsageError, match="begun with a scope"),
    ):
        tracer.change_scope(Scope())


@pytest.mark.parametrize("hook", hooks())
def test_every_one_of_many_short_processes_is_recorded(recorder: Recorder, program: Path, hook: str) -> None:
    count = 211
    script = f"i=0; while [ $i -lt {count} ]; do /bin/true; i=$((i+1)); done"
    with obedient(program, *as_user(NOBODY)) as witness:
        before = witness.flip(SEED)
        scope = Scope(Criteria(uids=(NOBODY,)))
        with scoped(recorder, scope, replace(SETTINGS, hook=hook)) as tracer:
            await_baseline(tracer, witness.pid, before)
            ran = execute((*as_user(NOBODY), "sh", "-c", script))
            assert ran.status == 0, ran.err
    with open_capture(tracer.path) as capture:
        ended = Counter(event.kind for event in capture.events(kinds={EventKind.EXEC, EventKind.EXIT}))
        assert ended == {EventKind.EXEC: count + 1, EventKind.EXIT: count + 1}
        assert losses_of(capture) == frozenset()


@pytest.mark.parametrize("hook", hooks())
def test_processes_outside_leave_nothing_behind_when_they_end(hook: str) -> None:
    program = Program(Settings(hook=hook, scope=Scope()), Kernel())
    try:
        program.attach()
        program.set_scope(Scope(Criteria(uids=(NOBODY,))))
        ended = {subprocess.Popen(command) for command in (["true"], ["sh", "-c", "true & wait"]) * 20}
        pids = {process.pid for process in ended if process.wait() == 0}
        assert len(pids) == len(ended)
        assert not pids & program.decided()
        assert os.getpid() in program.decided()
        assert program.counters()["events"] == 0
    finally:
        program.close()


@pytest.mark.parametrize("hook", hooks())
def test_child_of_the_recorder_is_recorded_only_once_it_executes_a_program(hook: str) -> None:
    program = Program(Settings(hook=hook, scope=Scope()), Kernel())
    try:
        program.attach()
        program.set_scope(Scope())
        command = LaunchedProcess(["sleep", "1000"])
        assert command.pid in program.decided()
        assert not {command.pid, os.getpid()} & set(program.targets())
        command.release()
        await_that(lambda: command.pid in program.targets(), "it has executed a program")
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
        command.close()
    finally:
        program.close()


# ---- namespaces and containers -------------------------------------------------------------------

#: A container made by hand: namespaces of its own for PIDs, mounts and users.
UNSHARE = (
    "unshare",
    "--pid",
    "--fork",
    "--mount",
    "--mount-proc",
    "--user",
    "--map-root-user",
    "--kill-child",
)


@pytest.mark.may_skip
@pytest.mark.parametrize(
    "name",
    ["docker-{}.scope", "cri-containerd-{}.scope", "libpod-{}.scope", "crio-{}", "lxc.payload.{}"],
)
def test_container_is_found_by_its_group_and_its_pids_are_shown_from_both_sides(
    recorder: Recorder, program: Path, name: str
) -> None:
    identifier = secrets.token_hex(32)
    with group(name.format(identifier)) as own, obedient(program) as outside:
        path = recorder.new_path()
        shortened = identifier if name.startswith("lxc") else identifier[:12]
        with obedient(program, *own.command, *UNSHARE) as inside:
            before = inside.flip(SEED)
            with running(
                *TOOL, "attach", *("--file-age", "0"), "--container", shortened, "-o", path
            ) as process:
                await_that(lambda: path.exists() and path.stat().st_size > 0, "the capture is begun")
                (child,) = Path(f"/proc/{inside.pid}/task/{inside.pid}/children").read_text().split()
                await_that(lambda: holds(path, int(child), before, EventKind.BASELINE), "the baseline")
                seen, unseen = inside.flip(SEED + 1), outside.flip(SEED + 2)
                process.send_signal(signal.SIGTERM)
                ran = end_of(process)
            assert ran.status == 0, ran.err
    assert before.pid == seen.pid == 1
    assert holds(path, int(child), seen, EventKind.MPROTECT)
    assert not holds(path, outside.pid, unseen)
    with open_capture(path) as capture:
        (found,) = (process for process in capture.processes if process.pid == int(child))
        assert found.namespace_pid == 1
        assert found.uid == 0  # root of its own user namespace, and here by mapping
    assert f"  {child} (1 inside) program" in tool("report", path).out.decode()


def test_user_ids_are_those_of_the_host(recorder: Recorder, program: Path) -> None:
    with obedient(program, *as_user(NOBODY), *UNSHARE) as inside:
        before = inside.flip(SEED)
        (child,) = Path(f"/proc/{inside.pid}/task/{inside.pid}/children").read_text().split()
        with scoped(recorder, Scope(Criteria(uids=(NOBODY,)))) as tracer:
            await_baseline(tracer, int(child), before)
            seen = inside.flip(SEED + 1)
    assert holds(tracer.path, int(child), seen, EventKind.MPROTECT)
    with open_capture(tracer.path) as capture:
        assert {event.uid for event in capture.events(pid=int(child), kinds={EventKind.MPROTECT})} == {NOBODY}


@pytest.mark.may_skip
def test_name_that_stands_for_two_containers_is_refused(recorder: Recorder) -> None:
    shared = secrets.token_hex(8)
    with (
        group(f"docker-{shared}{secrets.token_hex(24)}.scope"),
        group(f"docker-{shared}{secrets.token_hex(24)}.scope"),
    ):
        ran = tool("attach", "--container", shared, "-o", recorder.new_path())
    assert ran.status == 1
    assert "stands for 2 containers" in ran.sentence


# ---- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say whom to record"),
        (("--all", "1"), "not both"),
        (("--exclude-uid", "7", "1"), "not both"),
        (("--exclude-uid", "7"), "say whom to record"),
        (("--all", "--engine", "ptrace"), "by PID only"),
        (("--cgroup", "/no/such/group"), "no control group"),
        (("--exe", "/no/such/program"), "cannot be opened"),
        (("--exe", "/proc"), "is no program"),
        (("--all", "--exclude-comm", "sixteen letters!"), "never matches"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_scope_that_makes_no_sense_is_refused_in_one_sentence(
    recorder: Recorder, arguments: tuple[str, ...], words: str
) -> None:
    path = recorder.new_path()
    ran = tool("attach", "-o", path, *arguments)
    assert ran.status in (1, 2)
    assert words in ran.sentence
    assert not path.exists()

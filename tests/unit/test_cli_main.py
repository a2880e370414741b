"""The command line's frame: help, errors, exit statuses, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

import memory_tracer
from memory_tracer.cli.main import READ, VERBS, LazyGroup, Verb, group
from memory_tracer.errors import LoadError

from .builders import write_capture
from .scenario import CommandLine, whole_scenario

SOURCE = Path(memory_tracer.__path__[0]).parent


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | environment,
    )


def test_help_lists_every_verb_under_its_section(cli: CommandLine) -> None:
    ran = cli("--help")
    assert ran.status == 0
    for verb in VERBS.values():
        assert verb.summary in ran.out
        assert ran.out.index(verb.section) < ran.out.index(verb.summary)


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from memory_tracer.cli.main import main; main(['--help']);"
        "print([name for name in ('numpy', 'rich', 'capstone') if name in sys.modules], file=sys.stderr)"
    )
    ran = run_python("-c", script)
    assert (ran.returncode, ran.stderr) == (0, "[]\n")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example(cli: CommandLine, verb: str) -> None:
    ran = cli(verb, "--help")
    assert ran.status == 0
    assert "Example" in ran.out
    assert f"memory-tracer {verb}" in ran.out.split("Example", 1)[1]


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_loads_anything_heavy_before_it_runs(verb: str) -> None:
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    script = (
        f"import sys, memory_tracer.cli.{verb};"
        "print([name for name in ('numpy', 'rich', 'capstone') if name in sys.modules])"
    )
    assert run_python("-c", script).stdout == "[]\n"


def test_unknown_verb_is_a_usage_error_with_a_suggestion(cli: CommandLine) -> None:
    ran = cli("evnts", "x.mtrace")
    assert ran.status == 2
    assert "Did you mean 'events'?" in ran.err


def test_version_is_printed(cli: CommandLine) -> None:
    ran = cli("--version")
    assert ran.status == 0
    assert ran.out.startswith("memory-tracer ")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "empty"), (b"hello", "not start like a capture"), (None, "No such file")],
    ids=["empty", "text", "absent"],
)
def test_what_is_no_capture_gives_one_sentence(
    cli: CommandLine, tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    path = tmp_path / "x.mtrace"
    if content is not None:
        path.write_bytes(content)
    ran = cli("report", path)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("memory-tracer: ")
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException]:
    """A verb ``fail`` that raises what the test puts under "error"."""
    raised: dict[str, BaseException] = {}

    @click.command()
    def command() -> None:
        raise raised["error"]

    module = ModuleType("memory_tracer.cli.fail")
    vars(module)["command"] = command
    monkeypatch.setitem(sys.modules, "memory_tracer.cli.fail", module)
    monkeypatch.setitem(VERBS, "fail", Verb("fail", READ, "Fail."))
    return raised


def test_detail_of_an_error_is_shown_only_when_asked_for(
    cli: CommandLine, failing: dict[str, BaseException]
) -> None:
    failing["error"] = LoadError("the kernel refused \x1b[31m", detail="line 1\n\x1b[2J")
    assert cli("fail").err == "memory-tracer: the kernel refused \\x1b[31m\n"
    ran = cli("--verbose", "fail")
    assert ran.status == 1
    assert ran.err == "memory-tracer: the kernel refused \\x1b[31m\nline 1\n\\x1b[2J\n"


def test_interrupt_exits_with_130(cli: CommandLine, failing: dict[str, BaseException]) -> None:
    failing["error"] = KeyboardInterrupt()
    assert cli("fail").status == 130


def test_operating_system_error_is_one_sentence(cli: CommandLine, failing: dict[str, BaseException]) -> None:
    failing["error"] = OSError(28, "No space left on device")
    ran = cli("fail")
    assert (ran.status, ran.err) == (1, "memory-tracer: No space left on device\n")


def test_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "x.mtrace", whole_scenario())
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(
        [sys.executable, "-m", "memory_tracer", "events", capture],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, "")


def test_locale_that_cannot_spell_a_name_does_not_end_a_listing(tmp_path: Path) -> None:
    stream = whole_scenario()
    stream.comm = "日本".encode()
    stream.event()
    capture = write_capture(tmp_path / "x.mtrace", stream)
    ran = run_python("-m", "memory_tracer", "events", str(capture), PYTHONIOENCODING="ascii")
    assert ran.returncode == 0
    assert r"\u65e5\u672c" in ran.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_program(cli: CommandLine, shell: str) -> None:
    ran = cli("completion", shell)
    assert ran.status == 0
    assert "memory-tracer" in ran.out
    assert "_MEMORY_TRACER_COMPLETE" in ran.out


def test_shell_gets_the_verbs_that_fit() -> None:
    environment = {
        "_MEMORY_TRACER_COMPLETE": "bash_complete",
        "COMP_WORDS": "memory-tracer re",
        "COMP_CWORD": "1",
    }
    ran = run_python("-m", "memory_tracer", **environment)
    assert sorted(ran.stdout.split()) == ["plain,record", "plain,regions", "plain,report"]


def test_verbs_are_listed_in_the_order_of_the_help() -> None:
    assert isinstance(group, LazyGroup)
    assert group.list_commands(click.Context(group)) == list(VERBS)

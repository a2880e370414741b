"""The documentation against the code: paths, links, commands, options and names in it exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import memory_tracer
from memory_tracer.capture.losses import RECORDER_LOSSES
from memory_tracer.cli.main import VERBS, group
from memory_tracer.model import EventKind, Missing, Status
from memory_tracer.wire.layout import LOSS_COUNTERS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "memory_tracer"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
#: Where a path in the documents may start.
BASES = (ROOT, ROOT / "docs", ROOT / "benchmarks", PACKAGE, PACKAGE / "bpf")
#: Named in the documents, and made by a build.
BUILD_PRODUCTS = {"vmlinux.h"}
#: Options of other programs of ours than memory-tracer.
OTHER_OPTIONS = {"--strict", "--pytest"}

LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE_SPAN = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"(?!/)[\w./-]+(/|\.(py|md|c|h|svg|toml))")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text())


def blocks(path: Path, language: str) -> Iterator[str]:
    return (block for found, block in FENCE.findall(path.read_text()) if found == language)


def anchors(path: Path) -> set[str]:
    """What GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tool_commands(path: Path) -> Iterator[list[str]]:
    """The words after ``memory-tracer`` of every command shown as typed or named in the text."""
    lines = [line for block in blocks(path, "console") for line in block.splitlines()]
    typed = [line[2:] for line in lines if line.startswith(("$ ", "# "))]
    for text in [*typed, *CODE_SPAN.findall(prose(path))]:
        words = shlex.split(text, comments=True)
        if words[:1] == ["sudo"]:
            del words[0]
        if words and Path(words[0]).name == "memory-tracer":
            yield words[1:]


def options_of(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


def all_options() -> set[str]:
    context = click.Context(group)
    commands = [group, *(group.get_command(context, verb) for verb in VERBS)]
    return {"--help"}.union(*(options_of(command) for command in commands if command is not None))


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_links_lead_to_files_and_headings_that_exist(document: Path) -> None:
    for link in LINK.findall(prose(document)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} leads to no heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_paths_in_the_text_exist(document: Path) -> None:
    paths = [span for span in CODE_SPAN.findall(prose(document)) if PATH.fullmatch(span)]
    dead = [path for path in paths if not any((base / path).exists() for base in BASES)]
    assert set(dead) <= BUILD_PRODUCTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_commands_in_the_text_have_existing_verbs_and_options(document: Path) -> None:
    for words in tool_commands(document):
        command: click.Command = group
        for word in words:
            if word in ("--", "|", ">"):
                break
            if word.startswith("-"):
                known = options_of(command) | {"-h", "--help"}
                assert word.partition("=")[0] in known, f"{shlex.join(words)}: no option {word}"
            elif command is group:
                found = group.get_command(click.Context(group), word)
                assert found is not None, f"{shlex.join(words)}: no verb {word}"
                command = found


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_options_named_in_the_text_exist(document: Path) -> None:
    spans = CODE_SPAN.findall(prose(document))
    options = {match[0] for span in spans if (match := re.match(r"--[a-z][a-z-]*", span))}
    assert options <= all_options() | OTHER_OPTIONS


def test_readme_shows_the_help_as_it_is() -> None:
    shown = [block for block in blocks(ROOT / "README.md", "console") if "--help" in block.partition("\n")[0]]
    printed = CliRunner().invoke(group, ["--help"], prog_name="memory-tracer", terminal_width=80).output
    assert shown == [f"$ memory-tracer --help\n{printed}"]


def test_readme_python_uses_public_names_only() -> None:
    programs = list(blocks(ROOT / "README.md", "python"))
    assert programs
    for program in programs:
        ast.parse(program)
        assert set(re.findall(r"\bmt\.(\w+)", program)) <= set(memory_tracer.__all__)


def test_every_way_to_lose_something_is_in_the_limitations() -> None:
    text = (ROOT / "docs" / "limitations.md").read_text()
    counted = {name.replace("_", "-") for name in (*LOSS_COUNTERS, *RECORDER_LOSSES)}
    # What did not fit the ring buffer is among the counters; nothing is missing of what is absent.
    others = (Missing.UNKNOWN, Missing.DAMAGED, Missing.RING_FULL, Missing.ABSENT)
    reasons = {str(reason) for reason in Missing if reason not in others}
    assert {name for name in counted | reasons if f"`{name}`" not in text} == set()


def test_every_map_and_program_is_in_the_description_of_the_kernel_program() -> None:
    sources = "".join(path.read_text() for path in (PACKAGE / "bpf").glob("*.bpf.[ch]"))
    maps = set(re.findall(r'^\} (\w+) SEC\("\.maps"\);', sources, re.MULTILINE))
    programs = re.findall(r'SEC\("\?[^"]*"\)[ \t\\]*\n\s*int (\w+)\(', sources)
    programs += re.findall(r'SEC\("\?[^"]*"\)[ \t\\]*\n\s*int (\w+)__##suffix\(', sources)
    text = (ROOT / "docs" / "ebpf.md").read_text()
    names = maps | {program.partition("__")[0] for program in programs}
    assert {"events", "exit_call"} <= names
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_every_kind_of_event_is_explained() -> None:
    text = (ROOT / "docs" / "ebpf.md").read_text()
    assert {str(kind) for kind in EventKind if f"`{kind}`" not in text} == set()


def test_every_status_of_an_event_is_named() -> None:
    text = (ROOT / "docs" / "json.md").read_text()
    assert {status.name for status in Status if f"`{str(status.name).lower()}`" not in text} == set()

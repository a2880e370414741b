"""What an ordinary user can record where BPF is refused: the demo, and everything after it."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import memory_tracer as mt
from memory_tracer.model import EventKind
from memory_tracer.record.ptrace.preflight import forbidden_by_yama
from tests.workloads import PAGE_SIZE, compile_c

from .recording import OLD_FILES, TOOL, Argument, Ran, execute

NOBODY = 65534
#: Without any right, but to read this test's own files wherever they lie.
_CAPABILITIES = "-all,+dac_read_search"
AS_NOBODY: tuple[Argument, ...] = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
    *(f"--inh-caps={_CAPABILITIES}", f"--ambient-caps={_CAPABILITIES}", f"--bounding-set={_CAPABILITIES}"),
)
#: What a container without privilege is made of: its root is nobody outside.
IN_CONTAINER: tuple[Argument, ...] = ("unshare", "-U", "-r", "-m", "-p", "-f", "--mount-proc")
PRINTED = "This code was never in the file.\n"


@pytest.fixture(params=["user", "container"])
def ordinary(request: pytest.FixtureRequest) -> tuple[Argument, ...]:
    """A command that executes another without privilege."""
    prefix = AS_NOBODY if os.geteuid() == 0 else ()
    if prefix and shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv, to give up what root may do")
    if request.param == "container":
        prefix = (*prefix, *IN_CONTAINER)
        if execute((*prefix, "true")).status:
            pytest.skip("namespaces are not permitted to users here")
        if execute((*prefix, sys.executable, "-c", "pass")).status:
            pytest.skip("this Python lies where ordinary users may not go")
    return prefix


@pytest.fixture
def theirs(sample_source: Path) -> Iterator[Path]:
    """A directory of the ordinary user, with the sample in it."""
    with tempfile.TemporaryDirectory() as directory:
        compile_c(sample_source, Path(directory) / "sample")
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
        yield Path(directory)


def done(ran: Ran) -> str:
    assert ran.status == 0, ran.err
    return ran.out.decode()


def test_demo_shows_what_the_sample_hid(ordinary: tuple[Argument, ...], theirs: Path) -> None:
    # WHEN an ordinary user does what `./dev demo` does
    path = theirs / "demo.mtrace"
    ran = execute((*ordinary, *TOOL, "run", "-o", path, *OLD_FILES, "--", theirs / "sample"))
    assert done(ran) == PRINTED
    assert ran.err.startswith("memory-tracer: using the ptrace engine, because ")
    listed = done(
        execute((*ordinary, *TOOL, "regions", path, "--event", "mprotect", "--exclude-file-backed", "--json"))
    )
    start = json.loads(listed)["region"]["start"]
    shown = done(execute((*ordinary, *TOOL, "show", path, start, "--disasm")))

    # THEN the code is there, as it was executed, and nothing is missing
    assert "mov eax, 0x2a" in shown
    assert "syscall" in shown
    report = done(execute((*ordinary, *TOOL, "report", path)))
    assert "COMPLETE: nothing was lost" in report
    with mt.open_capture(path) as capture:
        assert capture.metadata["engine"] == "ptrace"
        assert capture.complete
        (page,) = [
            page for page in capture.pages(kinds={EventKind.MPROTECT}) if page.address == int(start, 16)
        ]
    assert page.content is not None
    assert len(page.content) == PAGE_SIZE
    assert PRINTED.encode() in page.content


def test_doctor_says_that_ptrace_works(ordinary: tuple[Argument, ...]) -> None:
    ran = execute((*ordinary, *TOOL, "doctor", "--json"))
    findings = {finding["subject"]: finding for finding in map(json.loads, done(ran).splitlines())}
    assert findings["ptrace"]["ok"]
    assert not findings["BPF program"]["ok"]
    assert findings["engine"]["state"] == "ptrace"


@pytest.mark.parametrize(
    ("scope", "launched", "words"),
    [
        (0, False, None),
        (0, True, None),
        (1, True, None),
        (1, False, "start the program with `memory-tracer run`"),
        (2, True, "run with sudo"),
        (2, False, "run with sudo"),
        (3, True, "until the next boot"),
        (3, False, "until the next boot"),
    ],
)
def test_yama_is_named_with_what_helps_against_it(scope: int, launched: bool, words: str | None) -> None:
    sentence = forbidden_by_yama(scope, launched=launched)
    assert (sentence is None) == (words is None)
    if sentence is not None and words is not None:
        assert words in sentence
        assert f"kernel.yama.ptrace_scope is {scope}" in sentence

"""What is said about privileges, against the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import memory_tracer
from memory_tracer.record.privileges import EFFECTIVE, PERMITTED

PACKAGE = Path(memory_tracer.__path__[0])
DOCUMENT = Path(__file__).parents[2] / "docs" / "privileges.md"

#: Compiles the kernel program, for developers and when the package is built; never when recording.
BUILDERS = {PACKAGE / "bpf" / "build.py"}
#: The one place where a program is executed: the command to be recorded, in a child that is to become it.
LAUNCHER = PACKAGE / "record" / "launch.py"
#: The view starts a recorder, which is this program again.
VIEW = PACKAGE / "cli" / "live.py"
EXECUTES = {LAUNCHER: {"execvpe"}, VIEW: {"subprocess"}}
MODULES = sorted(set(PACKAGE.rglob("*.py")) - BUILDERS)


def test_list_of_capabilities_is_that_of_the_code() -> None:
    listed = set(re.findall(r"^\| `CAP_(\w+)`", DOCUMENT.read_text(), re.MULTILINE))
    assert listed == {capability.name for capability in PERMITTED}
    assert {capability.name for capability in PERMITTED - EFFECTIVE} == {"DAC_OVERRIDE"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_executes_a_program(module: Path) -> None:
    executing: set[str | None] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            executing |= {alias.name for alias in node.names} & {"subprocess", "pty"}
        elif isinstance(node, ast.ImportFrom):
            executing |= {node.module} & {"subprocess", "pty"}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            executing |= set(re.findall(r"^(?:system|popen|exec\w+|(?:posix_)?spawn\w+)$", node.attr))
    assert executing == EXECUTES.get(module, set())

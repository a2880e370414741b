"""Data flows one way, imports go the other, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import memory_tracer

PACKAGE = Path(memory_tracer.__path__[0])

#: What each part may import from; nothing else. ("" is the modules at the top.)
ALLOWED = {
    "wire": {"wire", "errors", "model"},
    "record": {"record", "wire", "capture", "errors", "model", "version"},
    "service": {"service", "record", "wire", "capture", "errors", "model"},
    "capture": {"capture", "analyze", "wire", "errors", "model", "notebook"},
    "analyze": {"analyze", "capture", "errors", "model", "notebook"},
    # Views may share: the JSON objects are export's, a region's images are show's.
    "report": {"report", "show", "export", "analyze", "capture", "errors", "model", "terminal"},
    "show": {"show", "analyze", "capture", "errors", "model", "terminal"},
    "diff": {"diff", "show", "analyze", "capture", "errors", "model", "terminal"},
    "export": {"export", "show", "analyze", "capture", "errors", "model", "terminal"},
    "scan": {"scan", "export", "analyze", "capture", "errors", "model", "terminal"},
    "html": {"html", "report", "show", "export", "analyze", "capture", "errors", "model", "terminal"},
    "live": {"live", "report", "show", "analyze", "capture", "errors", "model", "terminal"},
    "bpf": {"bpf"},
    "model": {"notebook"},
    "notebook": set(),
    "errors": set(),
    "version": set(),
    "terminal": {"errors"},
}

HEAVY = (
    "numpy",
    "rich",
    "capstone",
    "yara_x",
    "textual",
    "pyarrow",
    "memory_tracer.record.libbpf",
    "memory_tracer.capture.reader",
)


def imports() -> Iterator[tuple[str, str, str]]:
    """Yield (file, the part it belongs to, the part of memory_tracer it imports from)."""
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = [*relative.parts[: len(relative.parts) - node.level], *(node.module or "").split(".")]
            names = base if base[0] else [node.names[0].name]
            yield str(relative), part, names[0]


def test_no_import_runs_back_up() -> None:
    found = list(imports())
    assert len(found) > 100
    wrong = [(file, to) for file, part, to in found if part in ALLOWED and to not in ALLOWED[part]]
    assert wrong == []


def test_only_what_records_needs_the_recorder() -> None:
    users = {part for _, part, to in imports() if to == "record"} - {"record"}
    assert users == {"cli", "service", "tracer", "__init__"}


@pytest.mark.parametrize(
    "statement", ["import memory_tracer", "from memory_tracer.cli.main import main; main(['--help'])"]
)
def test_nothing_heavy_is_loaded_for(statement: str) -> None:
    script = f"import sys\n{statement}\nprint(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    loaded = set(done.stderr.split())
    assert "memory_tracer" in loaded
    assert not loaded & set(HEAVY)

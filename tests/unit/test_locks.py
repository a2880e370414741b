"""What is pinned is what pyproject.toml asks for, and each file of it by its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from memory_tracer.bpf.build import ZIG_REQUIREMENT

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "packaging"

pytestmark = pytest.mark.skipif(not LOCKS.is_dir(), reason="installed without its sources")


def pinned(name: str) -> dict[str, str]:
    """Return the versions that a lock file names, by package."""
    lines = (LOCKS / name).read_text().splitlines()
    return dict(line.split(" ")[0].split("==") for line in lines if re.match(r"\w", line))


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [Requirement(text) for group in groups for text in group]
    return [one for one in requirements if one.name != project["name"]]


def test_every_requirement_is_pinned_to_a_version_that_satisfies_it() -> None:
    versions = pinned("dev.lock")
    for requirement in wanted():
        assert requirement.specifier.contains(versions[requirement.name]), f"{requirement}: run ./dev lock"
    compiler = Requirement(ZIG_REQUIREMENT)
    assert compiler.specifier.contains(pinned("compiler.lock")[compiler.name])


@pytest.mark.parametrize("name", ["dev.lock", "compiler.lock"])
def test_every_pinned_package_has_hashes_and_no_origin(name: str) -> None:
    text = (LOCKS / name).read_text()
    assert "://" not in text
    assert not re.search(r"^--", text, re.MULTILINE)  # no option such as another index
    entries = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]

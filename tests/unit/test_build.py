"""Compiling the kernel program: from any directory, reproducibly, with one sentence when it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memory_tracer.bpf import build

pytestmark = pytest.mark.skipif(
    not build.VMLINUX_H.exists(), reason="no vmlinux.h here: python -m memory_tracer.bpf.build makes it"
)


def copy_sources(destination: Path, *, header: bool = True) -> Path:
    """Copy the sources, without what is built from them, and return the copied build script."""
    ignored = [build.OBJECT.name, "__pycache__", ".build-*", *([] if header else [build.VMLINUX_H.name])]
    shutil.copytree(build.DIRECTORY, destination, ignore=shutil.ignore_patterns(*ignored))
    return destination / "build.py"


def run_script(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


def test_two_builds_in_different_directories_are_identical(tmp_path: Path) -> None:
    if not build.has_clang():
        pytest.skip("clang is not installed; ziglang's order of types depends on where it runs")
    first, second = copy_sources(tmp_path / "a"), copy_sources(tmp_path / "a much longer name")
    for script in (first, second):
        done = run_script(script)
        assert done.returncode == 0, done.stderr
    objects = [script.with_name(build.OBJECT.name).read_bytes() for script in (first, second)]
    assert objects[0] == objects[1]
    assert os.fsencode(tmp_path) not in objects[0]
    assert objects[0][:4] == b"\x7fELF"


def test_the_program_compiles_without_any_option_but_the_include_path(tmp_path: Path) -> None:
    if not build.has_clang():
        pytest.skip("clang is not installed")
    source = copy_sources(tmp_path / "bpf").with_name("memory_tracer.bpf.c")
    command = ["clang", "-g", "-O2", "-target", "bpf", "-I", "libbpf", "-c", source.name]
    done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_failed_compilation_keeps_the_object_there_was_and_leaves_nothing_behind(tmp_path: Path) -> None:
    script = copy_sources(tmp_path / "bpf")
    script.with_name("memory_tracer.bpf.c").write_text("this is not C\n")
    script.with_name(build.OBJECT.name).write_bytes(b"the old object")
    before = sorted(script.parent.iterdir())
    done = run_script(script)
    assert done.returncode == 1
    assert "memory-tracer: the kernel program did not compile" in done.stderr
    assert "Traceback" not in done.stderr
    assert script.with_name(build.OBJECT.name).read_bytes() == b"the old object"
    assert sorted(script.parent.iterdir()) == before


def test_a_ready_header_is_used_instead_of_the_kernels_types(tmp_path: Path) -> None:
    script = copy_sources(tmp_path / "bpf", header=False)
    done = run_script(script, MEMORY_TRACER_VMLINUX_H=str(build.VMLINUX_H))
    assert done.returncode == 0, done.stderr
    assert script.with_name(build.VMLINUX_H.name).read_bytes() == build.VMLINUX_H.read_bytes()


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [
        pytest.param("MEMORY_TRACER_VMLINUX_BTF", "the kernel's types cannot be read from", id="BTF"),
        pytest.param("MEMORY_TRACER_VMLINUX_H", "names a header that cannot be read", id="header"),
    ],
)
def test_absent_kernel_types_are_one_sentence(tmp_path: Path, variable: str, sentence: str) -> None:
    script = copy_sources(tmp_path / "bpf", header=False)
    done = run_script(script, **{variable: str(tmp_path / "absent")})
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not script.with_name(build.VMLINUX_H.name).exists()


def test_a_file_that_is_not_btf_is_one_sentence(tmp_path: Path) -> None:
    script = copy_sources(tmp_path / "bpf", header=False)
    rubbish = tmp_path / "rubbish"
    rubbish.write_bytes(os.urandom(4096))
    done = run_script(script, MEMORY_TRACER_VMLINUX_BTF=str(rubbish))
    assert done.returncode == 1
    assert done.stderr == f"memory-tracer: {rubbish} holds no kernel types (BTF)\n"


@pytest.mark.skipif(not Path("/sys/kernel/btf/vmlinux").exists(), reason="this kernel has no BTF")
def test_types_written_by_libbpf_compile_like_those_of_bpftool(tmp_path: Path) -> None:
    header = tmp_path / "vmlinux.h"
    build._dump_with_libbpf(Path("/sys/kernel/btf/vmlinux"), header)
    script = copy_sources(tmp_path / "bpf", header=False)
    done = run_script(script, "--strict", MEMORY_TRACER_VMLINUX_H=str(header))
    assert done.returncode == 0, done.stderr

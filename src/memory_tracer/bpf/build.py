"""Compile the kernel program: ``python -m memory_tracer.bpf.build [--strict]``.

The package's build hook loads this file by its path before anything is installed, so it imports
nothing but the standard library. Two things are made beside the sources: ``vmlinux.h``, the
kernel's types as C, and ``memory_tracer.bpf.o``. Neither is tracked by git.

The object is portable (CO-RE): it may be built against one kernel's types and run on another.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DIRECTORY: Final = Path(__file__).resolve().parent
OBJECT: Final = DIRECTORY / "memory_tracer.bpf.o"
VMLINUX_H: Final = DIRECTORY / "vmlinux.h"

#: What has to be installed where there is no clang: a wheel that carries the compiler.
ZIG_REQUIREMENT: Final = "ziglang>=0.15"

_KERNEL_BTF: Final = Path("/sys/kernel/btf/vmlinux")
_BTF_VARIABLE: Final = "MEMORY_TRACER_VMLINUX_BTF"
_HEADER_VARIABLE: Final = "MEMORY_TRACER_VMLINUX_H"

#: ``uname -m`` to the name that libbpf's headers know the machine by.
_MACHINES: Final = {"x86_64": "x86", "aarch64": "arm64"}

_WARNINGS: Final = (
    "-Wall",
    "-Wextra",
    # Callbacks have the parameters their caller gives, used or not.
    "-Wno-unused-parameter",
    # libbpf's BPF_CORE_READ declares a variable of the field's own type, const where that is. Clang 21.
    "-Wno-default-const-init-var-unsafe",
    "-Wno-unknown-warning-option",
)

#: Clang records every access to a type declared in here, and libbpf adjusts it to the running kernel.
_HEADER_START: Final = """\
#ifndef __VMLINUX_H__
#define __VMLINUX_H__

#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)

"""
_HEADER_END: Final = """
#pragma clang attribute pop

#endif
"""


class BuildError(Exception):
    """The kernel program cannot be built here. The message is one sentence that says why."""


def build(*, strict: bool = False) -> Path:
    """Compile the kernel program in place, generating ``vmlinux.h`` if it is not there.

    ``strict`` turns warnings into errors; installing does not, lest a newer compiler's new warning
    stop it. Returns the object's path. Raises BuildError.
    """
    if not VMLINUX_H.exists():
        with _replacing(VMLINUX_H) as header:
            _write_vmlinux(header)
    with _replacing(OBJECT) as result:
        _compile(result, strict=strict)
    return OBJECT


def has_clang() -> bool:
    """Whether a clang is on the PATH; without one the ziglang wheel is needed."""
    return shutil.which("clang") is not None


def _compiler() -> list[str]:
    if has_clang():
        return ["clang", "-target", "bpf"]
    if importlib.util.find_spec("ziglang") is None:
        raise BuildError(f"there is no BPF compiler; install clang, or run: pip install '{ZIG_REQUIREMENT}'")
    # Zig would add unwind tables, whose relocations libbpf does not know.
    zig = [sys.executable, "-m", "ziglang", "cc"]
    return [*zig, "-target", "bpfel-freestanding", "-fno-asynchronous-unwind-tables"]


def _compile(result: Path, *, strict: bool) -> None:
    machine = platform.machine()
    if machine not in _MACHINES:
        raise BuildError(f"the kernel program supports {' and '.join(_MACHINES)}, not {machine}")
    command = [
        *_compiler(),
        "-g",
        "-O2",
        f"-D__TARGET_ARCH_{_MACHINES[machine]}",
        "-isystem",
        "libbpf",
        # Where it was built must not show in the object, which would differ from machine to machine.
        f"-ffile-prefix-map={DIRECTORY}=.",
        *_WARNINGS,
        *(["-Werror"] if strict else []),
        "-c",
        "memory_tracer.bpf.c",
        "-o",
        str(result),
    ]
    try:
        subprocess.run(command, check=True, cwd=DIRECTORY)
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError("the kernel program did not compile; the compiler's messages say why") from error


def _write_vmlinux(header: Path) -> None:
    """Write the kernel's types as C: from the environment's header or BTF file, else this kernel's."""
    given = os.environ.get(_HEADER_VARIABLE)
    if given:
        try:
            shutil.copyfile(given, header)
        except OSError as error:
            raise BuildError(f"{_HEADER_VARIABLE} names a header that cannot be read: {error}") from error
        return
    btf = Path(os.environ.get(_BTF_VARIABLE, _KERNEL_BTF))
    if not os.access(btf, os.R_OK):
        raise BuildError(
            f"the kernel's types cannot be read from {btf}: build on a kernel with CONFIG_DEBUG_INFO_BTF, "
            f"or set {_BTF_VARIABLE} to a BTF file or {_HEADER_VARIABLE} to a ready vmlinux.h"
        )
    if not _dump_with_bpftool(btf, header):
        _dump_with_libbpf(btf, header)


def _dump_with_bpftool(btf: Path, header: Path) -> bool:
    # Debian keeps it in /usr/sbin; Ubuntu's is a wrapper that fails without the kernel's own tools.
    bpftool = shutil.which("bpftool", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if bpftool is None:
        return False
    with header.open("wb") as output:
        command = [bpftool, "btf", "dump", "file", str(btf), "format", "c"]
        return subprocess.run(command, stdout=output, stderr=subprocess.DEVNULL, check=False).returncode == 0


def _dump_with_libbpf(btf: Path, header: Path) -> None:
    """Do what ``bpftool btf dump`` does (tools/bpf/bpftool/btf.c, dump_btf_c), which is not always there."""
    try:
        libbpf = ctypes.CDLL("libbpf.so.1")
    except OSError as error:
        raise BuildError(
            "generating vmlinux.h needs bpftool or libbpf.so.1 (Debian, Ubuntu: apt install libbpf1)"
        ) from error
    libbpf.libbpf_set_print(None)  # what goes wrong is said in one sentence below
    libc = ctypes.CDLL(None)
    for function in (libbpf.btf__parse, libbpf.btf_dump__new, libc.fopen):
        function.restype = ctypes.c_void_p
    parsed = libbpf.btf__parse(os.fsencode(btf), None)
    if not parsed:
        raise BuildError(f"{btf} holds no kernel types (BTF)")
    header.write_text(_HEADER_START)
    stream = libc.fopen(os.fsencode(header), b"a")
    # The callback's type, void (*)(void *, const char *, va_list), is that of vfprintf.
    print_function = ctypes.cast(libc.vfprintf, ctypes.c_void_p)
    dump = libbpf.btf_dump__new(ctypes.c_void_p(parsed), print_function, ctypes.c_void_p(stream), None)
    failed = not dump or any(
        libbpf.btf_dump__dump_type(ctypes.c_void_p(dump), number)
        for number in range(1, libbpf.btf__type_cnt(ctypes.c_void_p(parsed)))
    )
    failed = libc.fclose(ctypes.c_void_p(stream)) != 0 or failed
    libbpf.btf_dump__free(ctypes.c_void_p(dump))
    libbpf.btf__free(ctypes.c_void_p(parsed))
    if failed:
        raise BuildError(f"the types in {btf} could not be written to {header.parent} as C")
    with header.open("a") as output:
        output.write(_HEADER_END)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``path`` in one step, if all goes well."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as directory:
        temporary = Path(directory) / path.name
        yield temporary
        temporary.replace(path)


def main() -> int:
    """Build in place and say where the object is; the exit status is 1 when that failed."""
    parser = argparse.ArgumentParser(description="Compile the kernel program.")
    parser.add_argument("--strict", action="store_true", help="treat warnings as errors")
    try:
        print(build(strict=parser.parse_args().strict))
    except (BuildError, OSError) as error:
        print(f"memory-tracer: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

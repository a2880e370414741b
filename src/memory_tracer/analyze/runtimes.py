"""Who generates code at run time by trade: known runtimes, recognised by the file that asked for memory.

A name is no proof. Whoever can name a file can call it ``libjvm.so``, so views show the path beside the
name, and put such code last but never leave it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from ..model import Region

#: File names that are a runtime's own, first match first.
_RUNTIMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"node|nodejs|deno|chrom(e|ium)|electron|lib(node|v8\w*)\.so.*", "V8"),
        (r"libjvm\.so", "HotSpot"),
        (r"luajit[\d.-]*|libluajit.*\.so.*", "LuaJIT"),
        (r"ruby[\d.]*|libruby.*\.so.*", "YJIT"),
        (r"opcache\.so|php[\d.]*|php-(cgi|fpm)[\d.]*|libphp[\d.]*\.so", "PHP"),
        (r"pypy[\d.]*|libpypy.*\.so.*", "PyPy"),
        (r"lib(coreclr|clrjit)\.so", ".NET"),
        (r"mono(-sgen)?[\d.]*|libmono.*\.so.*", "Mono"),
        (r"beam(\.smp)?", "BEAM"),
        (r"libmozjs.*\.so.*|firefox(-esr|-bin)?|libxul\.so|gjs(-console)?", "SpiderMonkey"),
        (r"lib(java)?scriptcoregtk.*\.so.*|jsc", "JavaScriptCore"),
        (r"libLLVM.*\.so.*|libllvmlite\.so", "LLVM"),
        (r"_?libwasmtime\.so", "Wasmtime"),
        (r"libpcre2?-.*\.so.*", "PCRE"),
        (r"qemu-.+", "QEMU"),
        (r"sbcl", "SBCL"),
        (r"guile[\d.]*|libguile.*\.so.*", "Guile"),
    )
)
#: Libraries that make system calls for others: who called them is the one that asked.
_GO_BETWEENS = re.compile(r"(libc|libpthread|ld-linux[\w-]*|ld-musl[\w-]*)([.-].*)?\.so.*")
#: A file that perf(1) reads, which a JIT compiler maps executable to announce it.
_JITDUMP = re.compile(r"jit-\d+\.dump")


def name_of(path: str | None) -> str | None:
    """Return the name of the runtime that the file at ``path`` belongs to."""
    name = PurePosixPath(path or "").name
    return next((runtime for pattern, runtime in _RUNTIMES if pattern.fullmatch(name)), None)


def is_jitdump(region: Region) -> bool:
    """Tell whether a mapping announces that its process writes a jitdump file for perf(1)."""
    return _JITDUMP.fullmatch(PurePosixPath(region.path or "").name) is not None


def asked_by(frames: Iterable[Region | None]) -> Region | None:
    """Return the mapping that asked for memory: that of the innermost frame outside the C library.

    None where it is not known. Only that one counts: a module that a runtime has loaded is not the runtime.
    """
    for mapping in frames:
        if mapping is None or not _GO_BETWEENS.fullmatch(PurePosixPath(mapping.path or "").name):
            return mapping
    return None

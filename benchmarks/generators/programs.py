"""The code generators that are measured: how each is started, and where it says what it generated."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import dumps

PROGRAMS = Path(__file__).parents[1] / "programs"
#: PHP and Erlang know no other place.
_JITDUMP_IN_TMP = "/tmp/jit-{pid}.dump"  # noqa: S108


@dataclass(frozen=True, slots=True)
class Generator:
    """A program that generates code, and what it writes about it.

    In ``command``, ``prepare`` and ``dump``, ``{programs}`` is where our scripts are and ``{directory}``
    one to write to; in ``dump`` and ``leftover`` also ``{pid}`` is the process's. ``oracle`` is the
    dump's name for readers, ``package`` a Python package that it needs.
    """

    name: str
    command: tuple[str, ...]
    version: tuple[str, ...]
    oracle: str
    dump: str
    parse: Callable[[bytes], list[dumps.Code]]
    prepare: tuple[str, ...] = ()
    leftover: tuple[str, ...] = ()
    package: str | None = None

    @property
    def installed(self) -> bool:
        """Whether everything that is started is there."""
        if self.package and importlib.util.find_spec(self.package) is None:
            return False
        return all(shutil.which(program) for program in (self.program, self.version[0], *self.prepare[:1]))

    @property
    def program(self) -> str:
        """The command's own name, without the variables that it is started with."""
        words = [word for word in self.command if word != "env" and "=" not in word]
        return words[0]

    def release(self) -> str:
        """Return the version that the program itself tells."""
        done = subprocess.run(self.version, check=True, capture_output=True, text=True)
        words = f"{done.stdout} {done.stderr}".replace('"', " ").split()
        return next(word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit())


_OPCACHE = {
    "enable_cli": "1",
    "file_update_protection": "0",
    "jit_buffer_size": "32M",
    "jit": "tracing",
}
_PHP = ("php", *(f"-dopcache.{name}={value}" for name, value in _OPCACHE.items()))
#: ZEND_JIT_DEBUG_PERF_DUMP
_PHP_JITDUMP = "-dopcache.jit_debug=32"
_HOTSPOT = (
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:+PrintAssembly",
    "-XX:+PrintStubCode",
    "-XX:+PrintInterpreter",
    "-XX:+PrintAdapterHandlers",
    "-XX:+LogVMOutput",
    "-XX:-DisplayVMOutput",
    "-XX:LogFile={directory}/dump",
)
_ERLANG_VERSION = (
    *("erl", "-noshell", "-eval"),
    "io:put_chars(erlang:system_info(otp_release)), halt().",
)
_PACKAGE_VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"

GENERATORS = (
    Generator(
        name="Node",
        command=("node", "--perf-prof", "{programs}/functions.js", "1000"),
        version=("node", "--version"),
        oracle="jitdump",
        dump="{directory}/jit-{pid}.dump",
        parse=dumps.jitdump,
    ),
    Generator(
        name="JavaScriptCore",
        command=(
            *("env", "JSC_useJITDump=1", "JSC_jitDumpDirectory={directory}"),
            *("jsc", "{programs}/functions_jsc.js", "--", "1000"),
        ),
        # Its shell does not tell its version.
        version=("dpkg-query", "--show", "libjavascriptcoregtk-4.0-bin"),
        oracle="jitdump",
        dump="{directory}/jit-{pid}.dump",
        parse=dumps.jitdump,
    ),
    Generator(
        name="gjs, SpiderMonkey",
        command=("gjs", "{programs}/functions_gjs.js", "1000", "{directory}/dump"),
        version=("gjs", "--version"),
        oracle="its memory, every 100 functions",
        dump="{directory}/dump",
        parse=dumps.snapshots,
    ),
    Generator(
        name="LuaJIT",
        command=("luajit", "{programs}/dump.lua", "{programs}/functions.lua", "{directory}/dump", "3000"),
        version=("luajit", "-v"),
        oracle="`jit.util`, at each trace",
        dump="{directory}/dump",
        parse=dumps.plain,
    ),
    Generator(
        name="PHP, JIT",
        command=(
            *("env", "DUMP={directory}/dump"),
            *(*_PHP, "-dauto_append_file={programs}/dump_memory.php"),
            *("{programs}/functions.php", "1000", "{directory}"),
        ),
        version=("php", "--version"),
        oracle="its memory, at its end",
        dump="{directory}/dump",
        parse=dumps.snapshots,
    ),
    Generator(
        name="PHP, JIT, writing a jitdump",
        command=(*_PHP, _PHP_JITDUMP, "{programs}/functions.php", "1000", "{directory}"),
        version=("php", "--version"),
        oracle="jitdump",
        dump=_JITDUMP_IN_TMP,
        parse=dumps.jitdump,
        leftover=("/tmp/perf-{pid}.map",),  # noqa: S108
    ),
    Generator(
        name="Ruby, YJIT",
        command=(
            *("env", "DUMP={directory}/dump", "ruby", "--yjit"),
            *("-r", "{programs}/dump_memory.rb", "{programs}/functions.rb", "300"),
        ),
        version=("ruby", "--version"),
        oracle="its memory, every 10 methods",
        dump="{directory}/dump",
        parse=dumps.snapshots,
    ),
    Generator(
        name="HotSpot",
        command=("java", *_HOTSPOT, "{programs}/Functions.java", "20000"),
        version=("java", "--version"),
        oracle="`PrintAssembly`",
        dump="{directory}/dump",
        parse=dumps.machcode,
    ),
    Generator(
        name="PyPy",
        command=(
            *("env", "PYPYLOG=jit-backend-dump:{directory}/dump"),
            *("pypy3", "{programs}/functions.py", "300"),
        ),
        version=("pypy3", "-c", "import sys; print('%d.%d.%d' % sys.pypy_version_info[:3])"),
        oracle="`jit-backend-dump`",
        dump="{directory}/dump",
        parse=dumps.code_dump,
    ),
    Generator(
        name="Erlang",
        command=("escript", "{programs}/functions.erl", "300", "{directory}/dump"),
        version=_ERLANG_VERSION,
        oracle="its memory, every 10 modules",
        dump="{directory}/dump",
        parse=dumps.snapshots,
    ),
    Generator(
        name="Erlang, writing a jitdump",
        command=("env", "ERL_FLAGS=+JPperf dump", "escript", "{programs}/functions.erl", "300"),
        version=_ERLANG_VERSION,
        oracle="jitdump",
        dump=_JITDUMP_IN_TMP,
        parse=dumps.jitdump,
    ),
    Generator(
        name="SBCL",
        command=(
            *("sbcl", "--noinform", "--no-sysinit", "--no-userinit"),
            *("--eval", '(defparameter *arguments* (list "{directory}/dump" 1000))'),
            *("--load", "{programs}/functions.lisp", "--quit"),
        ),
        version=("sbcl", "--version"),
        oracle="the program, at each function",
        dump="{directory}/dump",
        parse=dumps.plain,
    ),
    Generator(
        name="Numba",
        command=(sys.executable, "{programs}/functions_numba.py", "60", "{directory}/dump"),
        version=(sys.executable, "-c", _PACKAGE_VERSION, "numba"),
        oracle="the program, at each function",
        dump="{directory}/dump",
        parse=dumps.plain,
        package="numba",
    ),
    Generator(
        name="Wasmtime",
        command=(sys.executable, "{programs}/functions_wasmtime.py", "300"),
        version=(sys.executable, "-c", _PACKAGE_VERSION, "wasmtime"),
        oracle="jitdump",
        dump="{directory}/jit-{pid}.dump",
        parse=dumps.jitdump,
        package="wasmtime",
    ),
    Generator(
        name="Mono",
        command=("mono", "{directory}/functions.exe", "2000", "{directory}/dump"),
        version=("mono", "--version"),
        oracle="its memory, at its end",
        dump="{directory}/dump",
        parse=dumps.snapshots,
        prepare=("mcs", "-out:{directory}/functions.exe", "{programs}/Functions.cs"),
    ),
    Generator(
        name="qemu-user",
        command=(
            *("qemu-x86_64", "-d", "out_asm", "-D", "{directory}/dump"),
            *("/bin/sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; echo $i"),
        ),
        version=("qemu-x86_64", "--version"),
        oracle="`-d out_asm`",
        dump="{directory}/dump",
        parse=dumps.out_asm,
    ),
)

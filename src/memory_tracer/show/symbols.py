"""Names of generated functions: what a runtime wrote for perf(1), as a perf map or a jitdump.

Both are written by the target, or by whoever could make a file of that name in /tmp. So nothing in them is
believed but names and addresses, files are read only when somebody names them, and only regular ones up to a
limit. An address has the name that was given last.
"""

from __future__ import annotations

import bisect
import os
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..analyze.processes import identity
from ..errors import UsageError
from ..model import ADDRESS_END
from ..terminal import clean

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture
    from .disassembly import Disassembler

#: Bytes of a file and functions of all files that are taken in.
_FILE_LIMIT, _FUNCTION_LIMIT = 256 << 20, 1 << 20
#: Characters of a name that are kept.
_NAME_LIMIT = 120

#: linux/tools/perf/Documentation/jitdump-specification.txt
_JITDUMP_MAGIC = struct.pack("<I", 0x4A695444)
_JITDUMP_HEADER = struct.Struct("<IIIIIIQQ")
_RECORD_HEADER = struct.Struct("<IIQ")
_CODE_LOAD = struct.Struct("<IIQQQQ")
_JIT_CODE_LOAD = 0

#: linux/tools/perf/Documentation/jit-interface.txt
_MAP_LINE = re.compile(rb"(?:0x)?([0-9a-fA-F]{1,16}) (?:0x)?([0-9a-fA-F]{1,16}) (.+)")
_FILE_NAME = re.compile(r"(?:perf-(\d{1,10})\.map|jit-(\d{1,10})\.dump)")
#: An instruction that goes to an address.
_BRANCH = re.compile(r"(?:call|j\w+|b|bl) (?:#)?(0x[0-9a-f]+)")


class Function(NamedTuple):
    """A named range of addresses. The name is as the file has it: not yet clean."""

    start: int
    size: int
    name: str


class Symbols:
    """The functions of one process, by address."""

    def __init__(self, functions: Iterable[Function] = ()) -> None:
        self._named = {function.start: function for function in functions}
        self._starts = sorted(self._named)

    def __len__(self) -> int:
        return len(self._starts)

    def at(self, address: int) -> Function | None:
        """Return the function that begins at ``address``."""
        return self._named.get(address)

    def around(self, address: int) -> Function | None:
        """Return the function that holds ``address``: of several the one that begins last."""
        number = bisect.bisect_right(self._starts, address) - 1
        if number < 0:
            return None
        function = self._named[self._starts[number]]
        return function if address < function.start + function.size else None

    def within(self, start: int, end: int) -> list[Function]:
        """Return the functions that begin in [start, end), by address."""
        first, last = bisect.bisect_left(self._starts, start), bisect.bisect_left(self._starts, end)
        return [self._named[address] for address in self._starts[first:last]]


class SymbolFiles:
    """The files somebody named, of which each is about one process or, where it does not say, about all."""

    def __init__(self, paths: Iterable[Path]) -> None:
        """Read the files. Raises ``UsageError`` for what is none, is too large, or cannot be read."""
        self._files = [_read(path) for path in paths]
        if sum(len(functions) for _, functions in self._files) > _FUNCTION_LIMIT:
            raise UsageError(f"the symbol files name more than {_FUNCTION_LIMIT:,} functions")
        self._of: dict[frozenset[int | None], Symbols] = {}

    def __bool__(self) -> bool:
        return bool(self._files)

    def of(self, *pids: int | None) -> Symbols:
        """Return the functions of a process that is known by any of ``pids``: ours, and its own."""
        key = frozenset(pids)
        if key not in self._of:
            chosen = (functions for pid, functions in self._files if pid is None or pid in key)
            self._of[key] = Symbols(function for functions in chosen for function in functions)
        return self._of[key]


def pids_of(capture: Capture, history: RegionHistory) -> tuple[int, int | None]:
    """Return the PID of a region's process, and the one it has in its own PID namespace."""
    who = identity(history.pid, history.process_start_ns)
    inner = (one.namespace_pid for one in capture.processes if identity(one.pid, one.start_time_ns) == who)
    return history.pid, next(inner, None)


def functions_in(capture: Capture, files: SymbolFiles, histories: Iterable[RegionHistory]) -> list[Function]:
    """Return the named functions that begin in any of ``histories``, by address."""
    if not files:
        return []
    found: set[Function] = set()
    for history in histories:
        found.update(files.of(*pids_of(capture, history)).within(history.region.start, history.region.end))
    return sorted(found)


def named_lines(disassembler: Disassembler, symbols: Symbols) -> Callable[[bytes, int], Iterator[str]]:
    """Return what turns bytes into instructions, with the names of functions and of where branches go."""

    def lines(content: bytes, address: int) -> Iterator[str]:
        for instruction in disassembler.instructions(content, address):
            if function := symbols.at(instruction.address):
                yield f"{clean(function.name)}:"
            branch = _BRANCH.fullmatch(instruction.text)
            target = symbols.around(int(branch[1], 16)) if branch else None
            yield (
                f"{instruction}  ; {_place(target, int(branch[1], 16))}"
                if branch and target
                else str(instruction)
            )

    return lines


def _place(function: Function, address: int) -> str:
    offset = address - function.start
    return f"{clean(function.name)}+{offset:#x}" if offset else clean(function.name)


def _read(path: Path) -> tuple[int | None, list[Function]]:
    """Return the process a file is about, and its functions."""
    content = _content(path)
    named = _FILE_NAME.fullmatch(path.name)
    pid = int(named[1] or named[2]) if named else None
    if content.startswith(_JITDUMP_MAGIC) and len(content) >= _JITDUMP_HEADER.size:
        header = _JITDUMP_HEADER.unpack_from(content)
        return header[5] if pid is None else pid, list(_of_jitdump(content, header[2]))
    functions = list(_of_map(content))
    if content and not functions:
        raise UsageError(f"{clean(str(path))} is neither a perf map nor a jitdump")
    return pid, functions


def _content(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{clean(str(path))} cannot be read (links are not followed): {reason}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{clean(str(path))} is not a regular file")
        if status.st_size > _FILE_LIMIT:
            raise UsageError(f"{clean(str(path))} is larger than {_FILE_LIMIT >> 20} MiB")
        return file.read(_FILE_LIMIT)


def _of_map(content: bytes) -> Iterator[Function]:
    """Yield the functions of a perf map; lines that are none are passed over, as perf does."""
    for line in content.splitlines():
        if match := _MAP_LINE.fullmatch(line):
            yield from _function(int(match[1], 16), int(match[2], 16), match[3])


def _of_jitdump(content: bytes, position: int) -> Iterator[Function]:
    """Yield the functions of a jitdump, as far as it is whole."""
    while _JITDUMP_HEADER.size <= position <= len(content) - _RECORD_HEADER.size:
        kind, size, _ = _RECORD_HEADER.unpack_from(content, position)
        end = position + size
        if size < _RECORD_HEADER.size or end > len(content):
            return
        name_at = position + _RECORD_HEADER.size + _CODE_LOAD.size
        if kind == _JIT_CODE_LOAD and name_at < end:
            *_, address, length, _ = _CODE_LOAD.unpack_from(content, position + _RECORD_HEADER.size)
            name = content[name_at : min(end, name_at + _NAME_LIMIT)].partition(b"\0")[0]
            yield from _function(address, length, name)
        position = end


def _function(start: int, size: int, name: bytes) -> Iterator[Function]:
    if 0 < size <= ADDRESS_END - start:
        yield Function(start, size, name[:_NAME_LIMIT].decode(errors="surrogateescape"))

"""Reading another process's memory from user space, without changing it.

What is in the page tables is read from the process. What is not, but belongs to a file, is read
from the file behind the mapping, so that looking at a page does not make the process larger.
Anonymous pages nobody touched are zeros and are not read at all.

Sources: proc(5), Documentation/admin-guide/mm/pagemap.rst, process_vm_readv(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ..model import PAGE_SIZE, Protection
from .filesystems import FileSystems
from .process import has_ended, living_thread

#: Pages looked at and read at a time.
CHUNK_PAGES = 256

_PRESENT, _SWAPPED, _OF_FILE = 1 << 63, 1 << 62, 1 << 61
_WHERE = _PRESENT | _SWAPPED | _OF_FILE
_DELETED = b" (deleted)"

_LINE = re.compile(
    rb"([0-9a-f]+)-([0-9a-f]+) ([r-][w-][x-])([sp]) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)"
)


_PROTECTIONS = {str(protection).encode(): protection for protection in map(Protection, range(8))}


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps."""

    start: int
    end: int
    protection: Protection
    shared: bool
    offset: int
    device: int
    inode: int
    name: bytes

    @property
    def unlinked(self) -> bool:
        """Backed by a memfd, a System V segment or a deleted file: nothing can be looked up later."""
        return self.inode != 0 and self.name.endswith(_DELETED)

    @property
    def path(self) -> bytes:
        """The name without what the kernel adds to it."""
        return self.name.removesuffix(_DELETED) if self.unlinked else self.name

    @property
    def linked(self) -> bool:
        """Backed by a file that can be looked up later."""
        return self.inode != 0 and not self.unlinked

    @property
    def special(self) -> bool:
        """The kernel's own, such as the vDSO, whose bytes are the kernel's."""
        return self.inode == 0 and self.name.startswith(b"[v")

    @property
    def anonymous(self) -> bool:
        """Private memory without a file: untouched, it is zeros."""
        return self.inode == 0 and not self.shared and not self.special


class Source(enum.Enum):
    """Where the bytes of a page are."""

    PROCESS = enum.auto()  # in its page tables or in swap
    MAPPING = enum.auto()  # in a file that nobody can look up later, or not as it is now
    FILE = enum.auto()  # in a file that can be looked up, or the kernel's own: not read
    NOWHERE = enum.auto()  # anonymous and never touched: zeros, not read


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent pages with the same fate. ``content`` is that of all of them, None where it was not read."""

    address: int
    pages: int
    content: bytes | None
    source: Source = Source.PROCESS


def _source(mapping: Mapping, entry: int, *, recent: bool) -> Source:
    """Tell from a page's pagemap entry where to read it."""
    here = entry & (_PRESENT | _SWAPPED) != 0
    if (mapping.linked and not recent) or mapping.special:
        # Of a private mapping the process has copies of the pages it (or a debugger) wrote to.
        return Source.PROCESS if here and not entry & _OF_FILE else Source.FILE
    if here:
        return Source.PROCESS
    return Source.NOWHERE if mapping.anonymous else Source.MAPPING


def parse_mapping(line: bytes) -> Mapping | None:
    """Read one line of /proc/PID/maps; None for one that is not of its form."""
    match = _LINE.match(line)
    if match is None:
        return None
    start, end, protection, sharing, offset, major, minor, inode, name = match.groups()
    return Mapping(
        int(start, 16),
        int(end, 16),
        _PROTECTIONS[protection],
        sharing == b"s",
        int(offset, 16),
        int(major, 16) << 20 | int(minor, 16),
        int(inode),
        name,
    )


class ProcessMemory:
    """The memory of process ``pid``, as long as it lives. A context manager."""

    def __init__(self, pid: int, *, files_since_ns: int, stopped: bool = False) -> None:
        """Open the process's files under /proc; raises OSError when it is gone or not ours to read.

        Files that changed since ``files_since_ns`` (since epoch) are read, others only named.
        Of a process that is ``stopped`` by us files are read through its own mappings.
        """
        self._stopped = stopped
        self._files_since_ns = files_since_ns
        self._recent: dict[tuple[int, int], bool] = {}
        self._task = living_thread(pid)
        self._directory = Path(f"/proc/{self._task}")
        self._pagemap = os.open(self._directory / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._file_systems = FileSystems(self._directory)
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> ProcessMemory:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        os.close(self._pagemap)

    @property
    def gone(self) -> bool:
        """Whether the process ended or executed another program: then pagemap_read says nothing at all."""
        return not os.pread(self._pagemap, 8, 0)

    def command_line(self) -> bytes:
        """The NUL-separated arguments; raises OSError when the process is gone."""
        return (self._directory / "cmdline").read_bytes()

    def mappings(self) -> list[Mapping]:
        """All mappings at this moment, none for a process that has ended; raises OSError when refused."""
        try:
            lines = (self._directory / "maps").read_bytes().split(b"\n")
        except OSError as error:
            if has_ended(error):
                return []
            raise
        return [mapping for line in lines if (mapping := parse_mapping(line))]

    def details(self) -> list[bytes]:
        """The lines of /proc/PID/smaps; none when it cannot be read."""
        try:
            return (self._directory / "smaps").read_bytes().split(b"\n")
        except OSError:
            return []

    def read(self, mapping: Mapping, start: int, end: int) -> Iterator[Run]:
        """What the pages from ``start`` to ``end`` (both inside ``mapping``) hold, in order."""
        for chunk in range(start, end, CHUNK_PAGES * PAGE_SIZE):
            yield from self._read_chunk(mapping, chunk, min(end, chunk + CHUNK_PAGES * PAGE_SIZE))

    def _read_chunk(self, mapping: Mapping, start: int, end: int) -> Iterator[Run]:
        position = start
        recent = mapping.linked and self.is_recent(mapping)
        bits = [entry & _WHERE for entry in self._entries(start, end)]
        sources = {where: _source(mapping, where, recent=recent) for where in set(bits)}
        for source, group in groupby([sources[where] for where in bits]):
            pages = len(list(group))
            if source is Source.PROCESS or (source is Source.MAPPING and self._stopped):
                yield from self._each(position, pages, self._read_process)
            elif source is Source.MAPPING:
                yield from self._each(position, pages, lambda a, n: self._read_file(mapping, a, n))
            else:
                yield Run(position, pages, None, source)
            position += pages * PAGE_SIZE

    def is_recent(self, mapping: Mapping) -> bool:
        """Whether the file behind ``mapping`` changed lately, its inode included (stat(2): ctime)."""
        file = mapping.device, mapping.inode
        if file not in self._recent:
            self._recent[file] = self._change_time(mapping) >= self._files_since_ns
        return self._recent[file]

    def _change_time(self, mapping: Mapping) -> int:
        if self._file_systems.can_be_read(mapping.device):
            for name in (self._link(mapping), self._directory / "root" / os.fsdecode(mapping.path[1:])):
                with contextlib.suppress(OSError, ValueError):
                    found = name.stat()  # the first takes a privilege, the second can be another file
                    if found.st_ino == mapping.inode:
                        return found.st_ctime_ns
        return 0

    def _link(self, mapping: Mapping) -> Path:
        """The file behind ``mapping``, wherever its name is."""
        return self._directory / "map_files" / f"{mapping.start:x}-{mapping.end:x}"

    def _entries(self, start: int, end: int) -> list[int]:
        """The pagemap entry of each page; one that cannot be read counts as present and never written to."""
        count = (end - start) // PAGE_SIZE
        try:
            raw = os.pread(self._pagemap, count * 8, start // PAGE_SIZE * 8)
        except OSError:
            raw = b""
        entries = memoryview(raw[: len(raw) // 8 * 8]).cast("Q").tolist()
        return entries + [_PRESENT | _OF_FILE] * (count - len(entries))

    @staticmethod
    def _each(address: int, pages: int, read: Callable[[int, int], bytes]) -> Iterator[Run]:
        """Read as much as possible at once; a page that cannot be read costs only itself."""
        while pages:
            content = read(address, pages)
            whole = len(content) // PAGE_SIZE
            if whole:
                yield Run(address, whole, content[: whole * PAGE_SIZE])
            else:
                yield Run(address, 1, None)
                whole = 1
            address += whole * PAGE_SIZE
            pages -= whole

    def _read_process(self, address: int, pages: int) -> bytes:
        length = pages * PAGE_SIZE
        buffer = ctypes.create_string_buffer(length)
        local = _IoVector(ctypes.addressof(buffer), length)
        remote = _IoVector(address, length)
        result = self._libc.process_vm_readv(
            self._task,
            ctypes.byref(local),
            ctypes.c_ulong(1),
            ctypes.byref(remote),
            ctypes.c_ulong(1),
            ctypes.c_ulong(0),
        )
        if result > 0:
            return ctypes.string_at(buffer, result)
        # Execute-only pages refuse process_vm_readv; /proc/PID/mem reads them for whoever may ptrace.
        try:
            with open(self._directory / "mem", "rb", buffering=0) as memory:
                return os.pread(memory.fileno(), length, address)
        except (OSError, OverflowError):
            return b""

    def _read_file(self, mapping: Mapping, address: int, pages: int) -> bytes:
        """Read from the file behind ``mapping``, even a deleted one, without faulting pages in."""
        if not self._file_systems.can_be_read(mapping.device):
            return b""
        name = self._link(mapping)
        try:
            if not stat.S_ISREG(name.stat().st_mode):
                return self._read_process(address, pages)  # opening a device may act on it
            descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return self._read_process(address, pages)
        try:
            return os.pread(descriptor, pages * PAGE_SIZE, mapping.offset + address - mapping.start)
        except OSError:
            return b""
        finally:
            os.close(descriptor)


class _IoVector(ctypes.Structure):
    """``struct iovec`` (readv(2))."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

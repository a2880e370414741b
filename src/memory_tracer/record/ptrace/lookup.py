"""What /proc says about the memory of a target."""

from __future__ import annotations

import re
from collections.abc import Mapping as Mapping_
from pathlib import Path
from typing import TYPE_CHECKING

from ...model import PAGE_SIZE, Protection
from ..memory import Mapping, ProcessMemory
from .calls import (
    Request,
)
from .tracees import AddressSpace, Task

if TYPE_CHECKING:
    pass

_MEMORY_FILE = re.compile(r"/proc/(?:\d+/task/)?(\d+)/mem")


def mappings_in(space: AddressSpace, start: int, end: int) -> list[Mapping]:
    """What is mapped in [start, end), without asking the kernel where calls have told."""
    pieces = list(space.known.within(start, end))
    covered = sum(last - first for first, last, _ in pieces) == end - start
    if covered and all(backed.lasts for _, _, backed in pieces):
        return [backed.mapping(first, last) for first, last, backed in pieces]
    if space.memory is None:
        return []
    return [each for each in space.memory.mappings() if each.start < end and start < each.end]


def mapping_at(space: AddressSpace, address: int) -> Mapping | None:
    """The mapping that holds ``address``, as the kernel has it now."""
    if space.memory is None:
        return None
    for mapping in space.memory.mappings():
        if mapping.start <= address < mapping.end:
            return mapping
    return None


def page_size(space: AddressSpace, mapping: Mapping) -> int:
    """What of a mapping can be protected by itself: a huge page where it has huge pages."""
    if space.memory is None:
        return PAGE_SIZE
    file = mapping.device, mapping.inode
    if file not in space.page_sizes:
        space.page_sizes[file] = _page_size(space.memory, mapping)
    return space.page_sizes[file]


def _page_size(memory: ProcessMemory, mapping: Mapping) -> int:
    lines = iter(memory.details())
    head = f"{mapping.start:08x}-".encode()
    for line in lines:
        if line.startswith(head):
            size = next((each for each in lines if each.startswith(b"KernelPageSize:")), b"")
            found = re.search(rb"\d+", size)
            return int(found[0]) * 1024 if found else PAGE_SIZE
    return PAGE_SIZE


def memory_written_to(tasks: Mapping_[int, Task], task: Task, request: Request) -> Task | None:
    """A thread whose memory a write to /proc/PID/mem goes to, if it is one."""
    try:
        link = str(Path(f"/proc/{task.tid}/fd/{request.arguments[0] & 0xFFFFFFFF}").readlink())
    except OSError:
        return None
    found = _MEMORY_FILE.fullmatch(link)
    return tasks.get(int(found[1])) if found else None


def anonymous(start: int, end: int, protection: Protection) -> Mapping:
    """A mapping of private memory without a file."""
    return Mapping(start, end, protection, False, 0, 0, 0, b"")

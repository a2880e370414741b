"""The memory of a process at one moment as an ELF core file, for gdb and everything that reads cores.

Captured pages become PT_LOAD segments. Of the registers only the instruction pointers are known, from
where the threads made their last recorded calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from ..analyze.processes import identity
from ..analyze.wordsize import word_bits
from ..capture.filters import FilterOptions
from ..capture.reader import Capture
from ..capture.snapshot import Span, snapshot, spans
from ..errors import NotCapturedError, UsageError
from ..model import ADDRESS_END, PAGE_SIZE, EventKind, Process, Region
from .core_notes import Subject, Thread, notes
from .elf_format import (
    EM_386,
    EM_X86_64,
    ET_CORE,
    PF_R,
    PF_W,
    PF_X,
    PN_XNUM,
    PT_LOAD,
    PT_NOTE,
    FileHeader,
    Layout,
    ProgramHeader,
    SectionHeader,
)

#: PROT_READ, PROT_WRITE, PROT_EXEC as flags of a segment.
_FLAGS = ((1, PF_R), (2, PF_W), (4, PF_X))
_X86 = frozenset({"x86_64", "i386", "i486", "i586", "i686"})
#: Pages written at once.
_BLOCK = 256


class Core(NamedTuple):
    """A core to be written: of ``process``, with ``spans`` of its pages."""

    process: Process
    bits: int
    spans: Sequence[Span]
    threads: Sequence[Thread]
    files: Sequence[Region]

    @property
    def pages(self) -> int:
        """How many pages it has."""
        return sum(len(span.rows) for span in self.spans)


def plan_core(capture: Capture, filters: FilterOptions, at_ns: int | None) -> Core:
    """Choose what goes into the core: the process ``filters`` choose, at ``at_ns`` (the end when None).

    Raises ``UsageError`` when that are several, ``NotCapturedError`` when nothing is known of any.
    """
    machine = capture.metadata.get("host")
    if isinstance(machine, dict) and machine.get("machine", "x86_64") not in _X86:
        raise UsageError("core files are written for x86 only; use --format raw")
    chosen = capture.row_numbers(**filters)
    relations = capture.relations
    candidates = {
        int(process): spans(relations, rows)
        for process in np.unique(relations.row_process[chosen])
        if len(rows := snapshot(relations, int(process), chosen, at_ns))
    }
    if not candidates:
        raise NotCapturedError(
            "nothing that was in memory at that time is in the capture; choose another with --at"
        )
    processes = {identity(item.pid, item.start_time_ns): item for item in capture.processes}
    found = {
        number: processes[identity(int(row["pid"]), int(row["start_time_ns"]))]
        for number in candidates
        for row in [relations.processes[number]]
    }
    pids = {process.pid for process in found.values()}
    if len(pids) > 1:
        raise UsageError(f"a core is of one process; choose with --pid: {', '.join(map(str, sorted(pids)))}")
    number = max(found)
    process, held = found[number], candidates[number]
    low = held[-1].address + held[-1].size <= 1 << 32
    bits = word_bits(capture, process.pid, process.start_time_ns, held[0].address) if low else None
    return Core(process, bits or 64, held, _threads(capture, number, at_ns), _files(capture, number, at_ns))


def write_core(capture: Capture, core: Core, stream: BinaryIO) -> Iterator[int]:
    """Write ``core`` to ``stream``; yield after each block how many of its pages were damaged."""
    layout = Layout(core.bits)
    count = len(core.spans) + 1
    note = notes(layout, _subject(core.process), core.threads, core.files)
    headers_at = layout.header_size
    # The number of program headers may not fit its field: then it is in a section header.
    section_at = headers_at + count * layout.program_header_size
    many = count >= PN_XNUM
    note_at = section_at + (layout.section_header_size if many else 0)
    offset = _page_end(note_at + len(note))
    header = FileHeader(
        core.bits,
        ET_CORE,
        EM_X86_64 if core.bits == 64 else EM_386,
        0,
        headers_at,
        count,
        section_at if many else 0,
        1 if many else 0,
    )
    stream.write(layout.pack_header(header))
    stream.write(layout.pack_program(ProgramHeader(PT_NOTE, 0, note_at, 0, len(note), 0, 4)))
    start = offset
    for span in core.spans:
        flags = sum(flag for bit, flag in _FLAGS if span.protection & bit)
        stream.write(
            layout.pack_program(
                ProgramHeader(PT_LOAD, flags, offset, span.address, span.size, span.size, PAGE_SIZE)
            )
        )
        offset += span.size
    if many:
        stream.write(layout.pack_section(SectionHeader(0, 0, 0, 0, 0, 0, info=count, alignment=0)))
    stream.write(note + bytes(start - note_at - len(note)))
    for span in core.spans:
        yield from _write_span(capture, span, stream)


def _write_span(capture: Capture, span: Span, stream: BinaryIO) -> Iterator[int]:
    numbers = capture.relations.rows["content"][span.rows].tolist()
    for start in range(0, len(numbers), _BLOCK):
        pages = list(capture.index.contents.pages(numbers[start : start + _BLOCK]))
        stream.writelines(bytes(PAGE_SIZE) if page is None else page.content for page in pages)
        yield sum(page is None for page in pages)


def _threads(capture: Capture, process: int, at_ns: int | None) -> Sequence[Thread]:
    """Return the threads that had not ended, and where they made their last calls; the first one first."""
    relations = capture.relations
    own = (relations.event_process == process) & ~relations.foreign
    events = relations.events[own]
    if at_ns is not None:
        events = events[events["timestamp_ns"] <= at_ns]
    pid = int(relations.processes["pid"][process])
    places = {pid: 0}
    columns = (events[name].tolist() for name in ("tid", "kind", "caller_ip"))
    for tid, kind, caller in zip(*columns, strict=True):
        if kind == EventKind.THREAD_EXIT and tid != pid:
            places.pop(tid, None)
        elif caller or tid not in places:
            places[tid] = caller
    return [Thread(pid, places.pop(pid)), *(Thread(tid, at) for tid, at in sorted(places.items()))]


def _files(capture: Capture, process: int, at_ns: int | None) -> Sequence[Region]:
    """Return the mappings of files known at that time."""
    relations = capture.relations
    own = np.flatnonzero((relations.event_process == process) & ~relations.foreign)
    own = own[own < relations.recorded_count]
    if not len(own):
        return ()
    events = relations.events[own]
    later = np.flatnonzero(events["timestamp_ns"] > (ADDRESS_END - 1 if at_ns is None else at_ns))
    # What is known right before the next event is what was known then.
    event = events[later[0]] if len(later) else events[-1]
    return [region for region in capture.mappings_at(int(event["ordinal"])) if region.file_backed]


def _subject(process: Process) -> Subject:
    words = " ".join(process.command_line)
    return Subject(
        process.pid,
        process.parent_pid or 0,
        process.uid,
        process.comm.encode(errors="surrogateescape"),
        words.encode(errors="surrogateescape"),
    )


def _page_end(offset: int) -> int:
    return offset + -offset % PAGE_SIZE

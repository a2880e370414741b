"""Programs and libraries in memory: their ELF headers, and which captured page belongs where in the file.

An image lives from when its header's page was last mapped before the header was seen, to when it is
mapped anew or unmapped. Of its pages in that time, code counts as it last was while executable, and
data as it was first seen, before the program changed it; with a given time, all is as it was then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..analyze.wordsize import word_bits
from ..capture.decode import missing_reason
from ..capture.numbering import Numbers
from ..model import ADDRESS_END, PAGE_SIZE, Missing, Protection
from .elf_format import (
    EM_386,
    EM_X86_64,
    ET_EXEC,
    MAGIC,
    PF_R,
    PF_X,
    PT_DYNAMIC,
    PT_LOAD,
    FileHeader,
    Layout,
    ProgramHeader,
    bits_of,
)
from .elf_pages import ALWAYS, Life, ProcessPages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture

#: Larger files, and segments of which nothing can be there, are lies of the header.
_FILE_LIMIT = 1 << 30
_HEADERS_LIMIT = 256
#: No process has memory from here on (Documentation/arch/x86/x86_64/5level-paging.rst).
_MEMORY_END = 1 << 56
_NO_ROW = -1


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes of the file that are not in the capture; ``missing`` is why, None where that is not known."""

    address: int
    size: int
    missing: Missing | None


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of the file that was in memory at ``address``, and its pages that are known.

    ``rows`` has for each page the row of the page table, or -1.
    """

    header: ProgramHeader
    address: int
    rows: Numbers
    holes: Sequence[Hole]

    @property
    def first_page(self) -> int:
        """Address of the first page."""
        return self.address - self.address % PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Image:
    """An ELF file to be written. ``found`` is the row of its header, None when it had none."""

    process: int
    address: int
    header: FileHeader
    segments: Sequence[Segment]
    found: int | None
    dynamic: ProgramHeader | None = None
    skipped: Sequence[ProgramHeader] = field(default=())

    @property
    def holes(self) -> list[Hole]:
        """What is missing of all segments."""
        return [hole for segment in self.segments for hole in segment.holes]

    @property
    def complete(self) -> bool:
        """True when every byte of the file that was loaded is known."""
        return self.found is not None and not self.holes and not self.skipped


class Images:
    """Finds the images among the pages ``chosen`` of a capture."""

    def __init__(self, capture: Capture, chosen: Numbers, at_ns: int | None) -> None:
        self._capture = capture
        self._relations = capture.relations
        self._at_ns = at_ns
        rows = self._relations.rows
        stored = chosen[self._relations.row_stored[chosen]]
        if at_ns is not None:
            stored = stored[rows["timestamp_ns"][stored] <= at_ns]
        self._stored = stored
        #: Per process, address ranges of the images found and their lives.
        self._found: dict[int, list[tuple[int, int, Life]]] = {}
        self._by_process: dict[int, ProcessPages] = {}

    def with_header(self) -> Iterator[Image]:
        """Yield the images whose header is in the capture, in order of its appearance."""
        contents = self._capture.index.contents
        rows = self._relations.rows
        candidates = np.fromiter(contents.starting_with(MAGIC), np.uint64)
        numbers = self._stored[np.isin(rows["content"][self._stored], candidates)]
        seen: set[tuple[int, int, int, int]] = set()
        for number in numbers.tolist():
            process, address = int(self._relations.row_process[number]), int(rows["address"][number])
            begin, end = self._of_process(process).life(address, int(rows["ordinal"][number]))
            key = (process, address, begin, int(rows["content"][number]))
            page = contents.page(int(rows["content"][number])) if key not in seen else None
            seen.add(key)
            image = self._image(number, process, address, (begin, end), page.content) if page else None
            if image:
                yield image

    def code_alone(self, history: RegionHistory) -> Iterator[Image]:
        """Yield the executable bytes of a region that are no image's, one for each time it was mapped."""
        process = self._relations.process_number(history.pid, history.process_start_ns)
        pages, region = self._of_process(process), history.region
        start = region.start - region.start % PAGE_SIZE
        for life in pages.lives(start, region.end):
            numbers = pages.rows(start, region.end, life)
            numbers = self._of_no_image(process, numbers[self._executable(numbers)])
            if len(numbers):
                yield from self._code(process, history, self._last(numbers))

    def _code(self, process: int, history: RegionHistory, numbers: Numbers) -> Iterator[Image]:
        addresses = self._relations.rows["address"][numbers]
        first, stop = int(addresses[0]), int(addresses[-1]) + PAGE_SIZE
        size = stop - first
        if size > _FILE_LIMIT:
            return
        low = stop <= 1 << 32
        bits = word_bits(self._capture, history.pid, history.process_start_ns, first) if low else None
        layout = Layout(bits or 64)
        program = ProgramHeader(PT_LOAD, PF_R | PF_X, PAGE_SIZE, first, size, size, PAGE_SIZE)
        machine = EM_X86_64 if layout.bits == 64 else EM_386
        header = FileHeader(layout.bits, ET_EXEC, machine, 0, layout.header_size, 1)
        yield Image(process, first, header, [self._segment(process, program, first, numbers)], None)

    def _image(self, found: int, process: int, address: int, life: Life, page: bytes) -> Image | None:
        bits = bits_of(page)
        if bits is None:
            return None
        layout = Layout(bits)
        header = layout.unpack_header(page)
        end = header.program_headers + header.program_header_count * layout.program_header_size
        if not 0 < header.program_header_count <= _HEADERS_LIMIT or end > len(page):
            return None
        size = layout.program_header_size
        places = range(header.program_headers, end, size)
        programs = [layout.unpack_program(page[place : place + size]) for place in places]
        loads = [program for program in programs if program.type == PT_LOAD]
        first = next((program for program in loads if program.offset < PAGE_SIZE), None)
        if first is None:
            return None
        base = address - (first.address - first.offset)
        wanted = [program for program in loads if _plausible(program, base)]
        if sum(program.file_size for program in wanted) > _FILE_LIMIT:
            return None
        segments = [
            self._segment(
                process,
                program,
                base + program.address,
                self._pages(process, program, base, life),
                life,
            )
            for program in wanted
        ]
        if not segments:
            return None
        ranges = self._found.setdefault(process, [])
        for segment in segments:
            ranges.append((segment.first_page, segment.address + segment.header.memory_size, life))
        skipped = [program for program in loads if program not in wanted]
        dynamic = next((program for program in programs if program.type == PT_DYNAMIC), None)
        return Image(process, address, header, segments, found, dynamic, skipped)

    def _pages(self, process: int, program: ProgramHeader, base: int, life: Life) -> Numbers:
        """Return the rows of a segment's pages, one for each known page, by address."""
        start = base + program.address
        numbers = self._of_process(process).rows(start - start % PAGE_SIZE, start + program.file_size, life)
        if self._at_ns is not None:
            return self._last(numbers)
        first = self._last(numbers[::-1])
        if not program.flags & PF_X:
            return first
        code = self._last(numbers[self._executable(numbers)])
        both = np.concatenate([first, code])
        return self._last(both)

    def _segment(
        self,
        process: int,
        program: ProgramHeader,
        address: int,
        numbers: Numbers,
        life: Life = ALWAYS,
    ) -> Segment:
        start = address - address % PAGE_SIZE
        count = -(-(address + program.file_size - start) // PAGE_SIZE)
        rows = np.full(count, _NO_ROW, np.int64)
        places = (self._relations.rows["address"][numbers] - np.uint64(start)) // np.uint64(PAGE_SIZE)
        rows[places.astype(np.int64)] = numbers
        return Segment(program, address, rows, list(self._holes(process, start, rows, life)))

    def _holes(self, process: int, start: int, rows: Numbers, life: Life) -> Iterator[Hole]:
        """Yield what is neither known nor zeros."""
        unknown = np.flatnonzero(rows == _NO_ROW)
        if not len(unknown):
            return
        reasons: dict[int, Missing] = {}
        for first, stop, missing in self._said_of(process, start, len(rows), life):
            inside = unknown[(unknown >= first) & (unknown < stop)]
            reasons.update(dict.fromkeys(inside.tolist(), missing))
        kept = [place for place in unknown.tolist() if reasons.get(place) is not Missing.ABSENT]
        begin = 0
        for index, place in enumerate(kept):
            following = kept[index + 1] if index + 1 < len(kept) else None
            if following != place + 1 or reasons.get(following) is not reasons.get(place):
                size = (place - kept[begin] + 1) * PAGE_SIZE
                yield Hole(start + kept[begin] * PAGE_SIZE, size, reasons.get(place))
                begin = index + 1

    def _said_of(
        self, process: int, start: int, pages: int, life: Life
    ) -> Iterator[tuple[int, int, Missing]]:
        """Yield what was said of pages that were missing or zeros, in pages from ``start``."""
        relations, end = self._relations, start + pages * PAGE_SIZE
        tables = ((relations.zeros, relations.zero_process), (relations.runs, relations.run_process))
        for table, processes in tables:
            near = (processes == process) & (table["address"] < min(end, ADDRESS_END - 1))
            columns = (table[near][name].tolist() for name in ("ordinal", "address", "pages", "reason"))
            for ordinal, address, count, reason in zip(*columns, strict=True):
                first = (address - start) // PAGE_SIZE
                if life[0] <= ordinal < life[1] and first + count > 0:
                    yield first, first + count, missing_reason(reason)

    def _of_process(self, process: int) -> ProcessPages:
        if process not in self._by_process:
            own = self._stored[self._relations.row_process[self._stored] == process]
            self._by_process[process] = ProcessPages(self._relations, process, own)
        return self._by_process[process]

    def _of_no_image(self, process: int, numbers: Numbers) -> Numbers:
        rows = self._relations.rows
        for start, end, life in self._found.get(process, ()):
            addresses, ordinals = rows["address"][numbers], rows["ordinal"][numbers]
            inside = (addresses >= start) & (addresses < end)
            inside &= (ordinals >= max(life[0], 0)) & (ordinals < min(life[1], ADDRESS_END - 1))
            numbers = numbers[~inside]
        return numbers

    def _executable(self, numbers: Numbers) -> NDArray[np.bool_]:
        protection = self._relations.events["protection"][self._relations.row_event[numbers]]
        executable: NDArray[np.bool_] = (protection & Protection.EXEC) != 0
        return executable

    def _last(self, numbers: Numbers) -> Numbers:
        """Return for each address the last of the rows ``numbers``, by address."""
        backwards = numbers[::-1]
        _, last = np.unique(self._relations.rows["address"][backwards], return_index=True)
        kept: Numbers = backwards[last]
        return kept


def _plausible(program: ProgramHeader, base: int) -> bool:
    start, end = base + program.address, base + program.address + program.memory_size
    return (
        0 <= start <= end <= _MEMORY_END
        and program.file_size <= program.memory_size
        and program.offset + program.file_size <= _FILE_LIMIT
        and program.offset % PAGE_SIZE == program.address % PAGE_SIZE
    )

"""The bytes of an image's file: its segments, and section headers that lead tools to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..model import PAGE_SIZE
from .elf_format import (
    PF_W,
    PF_X,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_WRITE,
    SHT_DYNAMIC,
    SHT_NOBITS,
    SHT_PROGBITS,
    SHT_STRTAB,
    Layout,
    ProgramHeader,
    SectionHeader,
)
from .elf_images import Image

if TYPE_CHECKING:
    from ..capture.reader import Capture

_DT_STRTAB, _DT_STRSZ = 5, 10


def pieces(capture: Capture, image: Image) -> Iterator[tuple[int, bytes | None]]:
    """Yield the parts of the file with their offsets; None for a page that is damaged."""
    layout = Layout(image.header.bits)
    end = _file_size(image)
    contents, rows = capture.index.contents, capture.relations.rows["content"]
    for segment in image.segments:
        header = segment.header
        known = segment.rows[segment.rows >= 0]
        stored = contents.pages(rows[known].tolist())
        for place, row in enumerate(segment.rows.tolist()):
            # The part of the page that the file has.
            address = segment.first_page + place * PAGE_SIZE
            first = max(address, segment.address)
            last = min(address + PAGE_SIZE, segment.address + header.file_size)
            if row >= 0:
                page = next(stored)
                part = None if page is None else page.content[first - address : last - address]
                yield header.offset + first - segment.address, part
    end += -end % 8
    memory = _ImageBytes(capture, image)
    table, names = _sections(memory, image)
    header_at = end + len(names) + -len(names) % 8
    yield end, names
    sections = [*table, SectionHeader(len(names) - len(".shstrtab") - 1, SHT_STRTAB, 0, 0, end, len(names))]
    yield header_at, b"".join(map(layout.pack_section, sections))
    new = image.header._replace(
        section_headers=header_at, section_count=len(sections), names_section=len(sections) - 1
    )
    if image.found is not None:
        yield 0, layout.with_sections(memory.read(image.address, layout.header_size), new)
    else:
        programs = [segment.header for segment in image.segments]
        yield 0, layout.pack_header(new) + b"".join(map(layout.pack_program, programs))


def _sections(memory: _ImageBytes, image: Image) -> tuple[list[SectionHeader], bytes]:
    """Return a section for each segment, after the empty one that comes first, and their names."""
    base = image.segments[0].address - image.segments[0].header.address
    table, names = [SectionHeader(0, 0, 0, 0, 0, 0, alignment=0)], bytearray(b"\0")
    counts: dict[str, int] = {}

    def add(name: str, kind: int, flags: int, address: int, offset: int, size: int) -> None:
        number = counts[name] = counts.get(name, 0) + 1
        full = name if number == 1 else f"{name}.{number}"
        table.append(SectionHeader(len(names), kind, flags, address, offset, size))
        names.extend(full.encode() + b"\0")

    for segment in image.segments:
        header = segment.header
        name, flags = _kind(header)
        address, end = segment.address - base, header.offset + header.file_size
        if header.file_size:
            add(name, SHT_PROGBITS, flags, address, header.offset, header.file_size)
        if header.memory_size > header.file_size:
            size = header.memory_size - header.file_size
            add(".bss", SHT_NOBITS, flags, address + header.file_size, end, size)
    for section, title in _dynamic_sections(memory, image, len(table)):
        table.append(section._replace(name=len(names)))
        names.extend(title + b"\0")
    names.extend(b".shstrtab\0")
    return table, bytes(names)


def _dynamic_sections(
    memory: _ImageBytes, image: Image, number: int
) -> Iterator[tuple[SectionHeader, bytes]]:
    """Yield the dynamic section and its strings, as far as they are there; readelf looks for them."""
    place, word = image.dynamic, Layout(image.header.bits).word
    if place is None or place.offset + place.file_size > _file_size(image):
        return
    base = image.segments[0].address - image.segments[0].header.address
    raw = memory.read(base + place.address, min(place.file_size, PAGE_SIZE))
    numbers = [value for (value,) in word.iter_unpack(raw[: len(raw) // word.size * word.size])]
    entries = dict(zip(numbers[::2], numbers[1::2], strict=False))
    flags, entry = SHF_ALLOC | SHF_WRITE, 2 * word.size
    section = SectionHeader(0, SHT_DYNAMIC, flags, place.address, place.offset, place.file_size, number + 1)
    yield section._replace(entry_size=entry), b".dynamic"
    strings = entries.get(_DT_STRTAB, 0)
    # The dynamic loader makes addresses of what is an offset in the file.
    strings -= base if strings >= base else 0
    size = entries.get(_DT_STRSZ, 0)
    for segment in image.segments:
        header = segment.header
        inside = strings - header.address
        if inside >= 0 and inside + size <= header.file_size:
            yield (
                SectionHeader(0, SHT_STRTAB, SHF_ALLOC, strings, header.offset + inside, size),
                b".dynstr",
            )
            return


class _ImageBytes:
    """Reads bytes of an image; zeros where they are not known."""

    def __init__(self, capture: Capture, image: Image) -> None:
        self._contents = capture.index.contents
        self._numbers = capture.relations.rows["content"]
        self._image = image

    def read(self, address: int, size: int) -> bytes:
        """Return ``size`` bytes at ``address``."""
        pages = range(address - address % PAGE_SIZE, address + size, PAGE_SIZE)
        content = b"".join(map(self._page, pages))
        return content[address % PAGE_SIZE :][:size]

    def _page(self, address: int) -> bytes:
        for segment in self._image.segments:
            place = (address - segment.first_page) // PAGE_SIZE
            if 0 <= place < len(segment.rows) and segment.rows[place] >= 0:
                page = self._contents.page(int(self._numbers[segment.rows[place]]))
                if page is not None:
                    return page.content
        return bytes(PAGE_SIZE)


def _file_size(image: Image) -> int:
    return max(segment.header.offset + segment.header.file_size for segment in image.segments)


def _kind(header: ProgramHeader) -> tuple[str, int]:
    if header.flags & PF_X:
        return ".text", SHF_ALLOC | SHF_EXECINSTR | (SHF_WRITE if header.flags & PF_W else 0)
    return (".data", SHF_ALLOC | SHF_WRITE) if header.flags & PF_W else (".rodata", SHF_ALLOC)

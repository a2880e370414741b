"""Images found in memory as ELF files: for readelf, objdump, disassemblers, and to be run.

A file has the bytes of its segments where the image's program headers say. What is not in the capture is
zeros, and is named in index.json. The section headers, which are never loaded, are new: one section for
each segment. Executable memory that belongs to no image becomes a file with one segment of its own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..capture.output import create_output
from ..errors import OutputError
from .directory import create_directory
from .elf_file import pieces
from .elf_format import (
    ET_DYN,
)
from .elf_images import Hole, Image, Images, Segment
from .objects import Object

if TYPE_CHECKING:
    from ..capture.filters import FilterOptions
    from ..capture.reader import Capture

INDEX = "index.json"
_OURS = re.compile(r"\d{4,}-pid\d+-[0-9a-f]+-(?:image|code)\.elf|index\.json")


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written: its entry of the index, and what it is of."""

    entry: Object
    image: Image
    damaged: int


def export_elf(
    capture: Capture, filters: FilterOptions, directory: Path, at_ns: int | None, *, force: bool
) -> Iterator[Written]:
    """Write all images that ``filters`` leave into ``directory`` and yield each; then write the index."""
    create_directory(directory, _OURS, force=force)
    entries: list[Object] = []
    for number, image in enumerate(_images(capture, filters, at_ns), 1):
        written = _write(capture, image, directory, number)
        entries.append(written.entry)
        yield written
    text = json.dumps({"version": 1, "files": entries}, indent=1) + "\n"
    _store(directory / INDEX, [(0, text.encode("ascii"))])


def _images(capture: Capture, filters: FilterOptions, at_ns: int | None) -> Iterator[Image]:
    images = Images(capture, capture.row_numbers(**filters), at_ns)
    yield from images.with_header()
    for history in capture.regions(**filters):
        if history.pages:
            yield from images.code_alone(history)


def _write(capture: Capture, image: Image, directory: Path, number: int) -> Written:
    process = capture.relations.processes[image.process]
    pid = int(process["pid"])
    kind = "code" if image.found is None else "image"
    name = f"{number:04}-pid{pid}-{image.address:x}-{kind}.elf"
    damaged = _store(directory / name, pieces(capture, image))
    layout = image.header
    return Written(
        {
            "file": name,
            "kind": kind,
            "pid": pid,
            "process_start_ns": int(process["start_time_ns"]),
            "address": hex(image.address),
            "bits": layout.bits,
            "type": "dyn" if layout.type == ET_DYN else "exec",
            "entry": hex(layout.entry),
            "complete": image.complete and not damaged,
            "segments": [_segment_object(segment) for segment in image.segments],
            "missing": [_hole_object(hole) for hole in image.holes],
            "skipped": len(image.skipped),
            "damaged": damaged,
        },
        image,
        damaged,
    )


def _store(path: Path, parts: Iterable[tuple[int, bytes | None]]) -> int:
    """Create ``path`` with ``parts`` at their offsets; return how many were damaged."""
    descriptor = create_output(path, replace=False, owner=None)
    damaged = 0
    try:
        for offset, content in parts:
            if content is None:
                damaged += 1
                continue
            view = memoryview(content)
            while view:
                view = view[os.pwrite(descriptor, view, offset + len(content) - len(view)) :]
    except OSError as error:
        raise OutputError(f"{path.name} cannot be written: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return damaged


def _segment_object(segment: Segment) -> Object:
    header = segment.header
    return {
        "address": hex(segment.address),
        "offset": header.offset,
        "file_size": header.file_size,
        "memory_size": header.memory_size,
        "protection": "".join(
            letter if header.flags & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1))
        ),
    }


def _hole_object(hole: Hole) -> Object:
    missing = None if hole.missing is None else str(hole.missing)
    return {"address": hex(hole.address), "size": hole.size, "missing": missing}

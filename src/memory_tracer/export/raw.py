"""Regions as files, one for each generation, with an index.

A generation of a region is its memory after an event that delivered at least one content never
seen before at its address (``analyze/images.py``): file N holds all bytes known at that moment, not
only the new ones. It begins at the first page with bytes and ends after the last. Pages without
bytes in between are holes of the sparse file, read as zeros, and are listed in ``index.json`` with
the reason; ``sha256`` there is of the pages that have bytes, in order, which is the digest of the
file when it has no holes. A hole of more than 1 GiB begins another file instead.

No name in the directory comes from the capture but numbers: ``0001-pid1234-7f00aa550000-g1.bin``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..analyze.images import Image
from ..analyze.runs import Run, runs
from ..capture.output import create_output
from ..errors import OutputError
from ..model import PAGE_SIZE
from ..show.view import region_images
from ..terminal import format_size
from .directory import create_directory
from .objects import Object

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.filters import FilterOptions
    from ..capture.reader import Capture

INDEX = "index.json"
_OURS = re.compile(r"\d{4,}-pid\d+-[0-9a-f]+-g\d+\.bin|index\.json")
#: A file's holes are never longer, so that a capture cannot make files of terabytes.
MAX_HOLE = 1 << 30
#: Left free on the file system: generations of a busy runtime may be many.
_RESERVE = 64 << 20


class RawExport:
    """A directory being filled. Raises ``OutputError`` when it cannot be created or written."""

    def __init__(self, capture: Capture, directory: Path, *, force: bool = False) -> None:
        self._capture = capture
        self._directory = directory
        self.entries: list[Object] = []
        self.size = 0
        create_directory(directory, _OURS, force=force)

    def add(self, number: int, history: RegionHistory) -> None:
        """Write all generations of one region; ``number`` begins the names of its files."""
        generation = 0
        for image in region_images(self._capture, history):
            if image.generation > generation:
                generation = image.generation
                for extent in _extents(image):
                    self._write(number, history, image, extent)

    def finish(self) -> None:
        """Write the index."""
        text = json.dumps({"version": 1, "files": self.entries}, indent=1) + "\n"
        self._store(INDEX, len(text), [(0, text.encode("ascii"))])

    def _write(self, number: int, history: RegionHistory, image: Image, extent: Sequence[Run]) -> None:
        address, size = extent[0].address, extent[-1].end - extent[0].address
        name = f"{number:04}-pid{history.pid}-{address:x}-g{image.generation}.bin"
        contents = [(run.address - address, run.content) for run in extent if run.content is not None]
        self._store(name, size, contents)
        digest = hashlib.sha256()
        for _, content in contents:
            digest.update(content)
        self.size += sum(len(content) for _, content in contents)
        self.entries.append(
            {
                "file": name,
                "pid": history.pid,
                "process_start_ns": history.process_start_ns,
                "comm": history.comm,
                "region_start": hex(history.region.start),
                "region_length": history.region.length,
                "path": history.region.path,
                "address": hex(address),
                "size": size,
                "generation": image.generation,
                "event": str(image.event),
                "protection": str(image.protection),
                "timestamp_ns": image.timestamp_ns,
                "wall_time": self._capture.wall_time(image.timestamp_ns).isoformat(),
                "sha256": digest.hexdigest(),
                "holes": [_hole(run) for run in extent if run.content is None],
            }
        )

    def _store(self, name: str, size: int, contents: Sequence[tuple[int, bytes]]) -> None:
        """Create one file of ``size`` bytes with ``contents`` at their offsets."""
        self._check_room(sum(len(content) for _, content in contents))
        descriptor = create_output(self._directory / name, replace=False, owner=None)
        try:
            os.ftruncate(descriptor, size)
            for offset, content in contents:
                _write_all(descriptor, content, offset)
        except OSError as error:
            raise OutputError(f"{name} cannot be written: {error.strerror}") from error
        finally:
            os.close(descriptor)

    def _check_room(self, size: int) -> None:
        status = os.statvfs(self._directory)
        free = status.f_bavail * status.f_frsize
        if free < size + _RESERVE:
            raise OutputError(
                f"only {format_size(free)} is left for {self._directory} after "
                f"{len(self.entries)} files; choose fewer regions with --pid or --address"
            )


def export_raw(
    capture: Capture, filters: FilterOptions, directory: Path, *, force: bool
) -> Iterator[RawExport]:
    """Write the regions that ``filters`` choose, and yield after each; then write the index."""
    export = RawExport(capture, directory, force=force)
    for number, history in enumerate(capture.regions(**filters), 1):
        export.add(number, history)
        yield export
    export.finish()


def _extents(image: Image) -> Iterator[Sequence[Run]]:
    """Split the image into parts that begin and end with bytes and have no hole above the limit."""
    known = [address for address, held in image.pages.items() if held.content is not None]
    extent: list[Run] = []
    for run in runs(image, min(known), max(known) + PAGE_SIZE):
        if run.content is None and run.size > MAX_HOLE:
            yield extent
            extent = []
        else:
            extent.append(run)
    yield extent


def _hole(run: Run) -> Object:
    reason = None if run.missing is None else str(run.missing)
    return {"address": hex(run.address), "size": run.size, "missing": reason}


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written

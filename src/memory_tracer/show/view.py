"""Choose what ``show`` shows: the process, the region, the moment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..analyze.images import Image, images
from ..analyze.processes import Identity, identity
from ..analyze.runs import Run, runs
from ..analyze.timeline import Row
from ..errors import NotCapturedError, UsageError
from ..model import ADDRESS_END, PAGE_SIZE, REGION_KINDS, Event
from ..terminal import format_count, progress

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture

_Record = TypeVar("_Record", bound=Event | Row)


@dataclass(frozen=True, slots=True)
class View:
    """A range of one process's memory at one moment."""

    history: RegionHistory
    start: int
    end: int
    image: Image

    def runs(self) -> Iterable[Run]:
        """Return what is known of the range, in order and without gaps."""
        return runs(self.image, self.start, self.end)


def find_view(
    capture: Capture,
    address: int,
    *,
    pid: int | None = None,
    size: int | None = None,
    generation: int | None = None,
    until_ns: int | None = None,
) -> View:
    """Return the bytes from ``address`` to the end of its region, or ``size`` bytes.

    Without ``generation`` (of the region, from 1) and ``until_ns`` (since boot) the view is the
    last one known. Raises ``NotCapturedError`` when nothing of the address is in the capture by
    then, ``UsageError`` when several processes have it and ``pid`` is None, or when the region has
    no such generation.
    """
    history = _find_region(capture, address, pid, until_ns)
    end = history.region.end if size is None else address + size
    image = _find_image(capture, history, end, generation, until_ns)
    return View(history, address, end, image)


def _find_region(capture: Capture, address: int, pid: int | None, until_ns: int | None) -> RegionHistory:
    """Choose the region around ``address`` that has content and was changed last."""
    found = [
        history
        for history in capture.regions(pid=pid, start=address, end=address + 1)
        if until_ns is None or history.first_ns <= until_ns
    ]
    if not found:
        raise NotCapturedError(
            f"nothing at {address:#x} is in the capture{_then(until_ns)}; memory-tracer regions lists what is"
        )
    pids = {history.pid: history.comm for history in found}
    if len(pids) > 1:
        choices = ", ".join(f"{number} ({comm})" for number, comm in sorted(pids.items()))
        raise UsageError(f"several processes have {address:#x}; choose one with --pid: {choices}")
    return max(found, key=lambda history: (history.pages > 0, history.last_ns, history.region.length))


def _find_image(
    capture: Capture, history: RegionHistory, end: int, generation: int | None, until_ns: int | None
) -> Image:
    start = history.region.start
    steps = region_images(capture, history, max(end, history.region.end), until_ns)
    image: Image | None = None
    for image in progress(steps, "steps looked at:"):
        if image.generation == generation:
            return image
    if image is None:
        raise NotCapturedError(f"no page of the region at {start:#x} is in the capture{_then(until_ns)}")
    if generation is not None:
        number = format_count(image.generation, "generation")
        raise UsageError(f"the region at {start:#x} has {number}; there is no generation {generation}")
    return image


def _then(until_ns: int | None) -> str:
    return "" if until_ns is None else " at that time"


def region_images(
    capture: Capture, history: RegionHistory, end: int | None = None, until_ns: int | None = None
) -> Iterable[Image]:
    """Return the images of a region, up to ``end`` when the range reaches beyond it."""
    wanted = identity(history.pid, history.process_start_ns)
    start = history.region.start // PAGE_SIZE * PAGE_SIZE
    end = min(history.region.end if end is None else end, ADDRESS_END)
    if start >= end:  # no recorder writes that
        return ()
    kinds = sorted(REGION_KINDS)
    events = capture.events(pid=history.pid, start=start, end=end, until_ns=until_ns, kinds=kinds)
    rows = capture.page_rows(absent=True, pid=history.pid, start=start, end=end, until_ns=until_ns)
    return images(_of_process(events, wanted), _of_process(rows, wanted))


def _of_process(records: Iterable[_Record], wanted: Identity) -> Iterable[_Record]:
    return (record for record in records if identity(record.pid, record.process_start_ns) == wanted)

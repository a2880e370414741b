"""The bytes and instructions of regions, ready for the page: a few views of each, of bounded size."""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analyze.images import Image
from ..analyze.runs import Run, runs
from ..analyze.timeline import start_ns
from ..errors import Error
from ..export.objects import Object
from ..model import Missing
from ..show.disassembly import for_capture
from ..show.view import region_images

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture
    from ..show.disassembly import Disassembler

#: Generations of one region from the first on; the last state is there besides.
MOST_GENERATIONS = 16
#: Pages of one view, and runs of bytes and of holes.
MOST_PAGES = 64
MOST_RUNS = 1000


@dataclass(frozen=True, slots=True)
class Listing:
    """One view of a region: when it was like that, and its bytes, packed for the page.

    ``pages`` are in it, and ``more`` are known besides.
    """

    generation: int
    time_ns: int
    event: str
    protection: str
    pages: int
    more: int
    packed: str

    @property
    def summary(self) -> Object:
        """What the page shows of it before it is unpacked."""
        return {
            "generation": self.generation,
            "time": self.time_ns,
            "event": self.event,
            "protection": self.protection,
            "more": self.more,
        }


def listings(capture: Capture, history: RegionHistory, *, instructions: bool) -> Iterator[Listing]:
    """Yield the region as last known, and then as each of its first generations was.

    The last known state comes first, because it is what must not be left out. Without
    ``instructions`` there are bytes alone, which takes a fraction of the time.
    """
    disassembler = _disassembler(capture, history) if instructions else None
    origin = start_ns(capture)
    early: list[_View] = []
    image: Image | None = None
    for image in region_images(capture, history):
        if image.generation > len(early) and len(early) < MOST_GENERATIONS:
            early.append(_View(image, history))
    if image is None:
        return
    if not early or image.sequence != early[-1].sequence:
        early.append(_View(image, history))
    for view in (early[-1], *early[:-1]):
        yield view.pack(origin, disassembler)


class _View:
    """What is taken from an image before it is changed on."""

    def __init__(self, image: Image, history: RegionHistory) -> None:
        self.sequence = image.sequence
        self._image = Image(
            image.generation, image.sequence, image.timestamp_ns, image.event, image.protection
        )
        known = sorted(address for address, held in image.pages.items() if held.content is not None)
        self._pages = min(len(known), MOST_PAGES)
        self._more = len(known) - self._pages
        end = known[MOST_PAGES] if self._more else history.region.end
        self._runs = list(itertools.islice(runs(image, history.region.start, end), MOST_RUNS))

    def pack(self, origin: int, disassembler: Disassembler | None) -> Listing:
        """Disassemble and compress; times count from ``origin``."""
        shown = [_run_object(run, disassembler) for run in self._runs]
        packed = zlib.compress(json.dumps(shown, separators=(",", ":")).encode("ascii"))
        image = self._image
        return Listing(
            image.generation,
            image.timestamp_ns - origin,
            str(image.event),
            str(image.protection),
            self._pages,
            self._more,
            base64.b64encode(packed).decode("ascii"),
        )


def _disassembler(capture: Capture, history: RegionHistory) -> Disassembler | None:
    """Return None where there is none for this machine, or Capstone is not installed."""
    try:
        return for_capture(capture, history, None)
    except Error:
        return None


def _run_object(run: Run, disassembler: Disassembler | None) -> Object:
    """Return a run of bytes, or of none; its ``code`` has the size and the text of each instruction."""
    shown: Object = {"address": f"{run.address:x}", "size": run.size}
    if run.content is None:
        return shown | {"missing": _reason(run), "lost": run.missing not in (None, Missing.ABSENT)}
    code = None
    if disassembler is not None:
        code = [[each.size, each.text] for each in disassembler.instructions(run.content, run.address)]
    return shown | {"bytes": base64.b64encode(run.content).decode("ascii"), "code": code}


def _reason(run: Run) -> str:
    if run.missing is Missing.ABSENT:
        return "zeros: never touched, or discarded"
    if run.missing is None:
        return "no record: never touched, or as in the file behind it"
    return f"missing because {Missing(run.missing).sentence}"

"""Put the page together: template, style, scripts, and the data, which is never markup nor script.

Three things keep what was captured from acting: data is JSON of ASCII without ``<``, ``>`` and ``&`` in
an element that is no script to the browser; the scripts put text into the page, and never markup; and
the page's Content-Security-Policy allows our own style and script by their hashes, and no address.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, BinaryIO

from ..analyze.processes import Identity
from ..report.story import by_telling
from ..terminal import format_count
from .document import heading_object, process_objects, region_objects
from .listings import listings

if TYPE_CHECKING:
    from ..analyze.regions import RegionHistory
    from ..capture.reader import Capture
    from ..export.objects import Object
    from .listings import Listing

_SCRIPTS = ("text.js", "list.js", "timeline.js", "details.js", "page.js")
#: With less, what is always there would not fit.
SMALLEST_SIZE = 1 << 20
#: Regions at most, so that the page stays fluid.
MOST_REGIONS = 20_000
#: Pages that are made into instructions, at one or two milliseconds each.
MOST_DECODED = 2048
#: Bytes of one region that are looked through, which are in memory meanwhile.
MOST_CONTENT = 128 << 20
#: The parts of the page that processes and then regions may take, and of the rest any one region's bytes.
_PROCESSES_SHARE = 0.125
_REGIONS_SHARE = 0.5
_ONE_REGION_SHARE = 0.125
#: Room below which no more regions are looked into; a page of code takes some 10 KiB.
_LEAST_ROOM = 128 << 10
#: Room for the heading, and for what stands around a listing.
_HEADING_BYTES = 64 << 10
_LISTING_BYTES = 300

#: JSON needs none of these outside strings, and they are what could end the element.
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def data_json(value: Mapping[str, Any]) -> str:
    """Return ``value`` as JSON that stays data wherever it stands in a page."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).translate(_ESCAPED)


class Page:
    """A page about the regions ``histories`` of a capture, of at most ``size`` bytes.

    ``left_out`` are sentences about what did not fit; they are complete when the page is written.
    """

    def __init__(self, capture: Capture, histories: Sequence[RegionHistory], size: int) -> None:
        self.left_out: list[str] = []
        self._capture = capture
        self._found = len(histories)
        self._histories = by_telling(histories)[:MOST_REGIONS]
        self._script = "".join(map(_resource, _SCRIPTS))
        self._head = _head(_resource("page.css"), self._script)
        self._room = size - _HEADING_BYTES - len(self._head) - len(self._script)
        self._without_bytes = self._shortened = self._undecoded = 0
        self._to_decode = MOST_DECODED

    def write(self, stream: BinaryIO) -> Iterator[None]:
        """Write the page to ``stream``; yield after each region."""
        stream.write(self._head.encode("ascii"))
        numbers, processes = self._processes()
        regions = self._regions(numbers)
        views: dict[str, list[Object]] = {}
        for number, history in enumerate(self._histories[: len(regions)]):
            found = [listing.summary for listing in self._listings(stream, number, history)]
            if found:
                views[str(number)] = found
            yield
        self._say_what_is_left_out(len(processes), len(regions))
        heading = data_json(heading_object(self._capture) | {"left_out": self.left_out, "views": views})
        lists = f'"processes":[{",".join(processes)}],"regions":[{",".join(regions)}]'
        data = f'<script type="application/json" id="data">{heading[:-1]},{lists}}}</script>\n'
        stream.write(f"{data}<script>{self._script}</script>\n".encode("ascii"))

    def _processes(self) -> tuple[dict[Identity, int], list[str]]:
        """Return the places of processes in the page's list, and that list."""
        objects = list(process_objects(self._capture))
        texts = self._fitting((data_json(each) for _, each in objects), _PROCESSES_SHARE)
        return {who: number for number, (who, _) in enumerate(objects[: len(texts)])}, texts

    def _regions(self, numbers: Mapping[Identity, int]) -> list[str]:
        objects = region_objects(self._capture, self._histories, numbers)
        return self._fitting(map(data_json, objects), _REGIONS_SHARE)

    def _fitting(self, texts: Iterator[str], share: float) -> list[str]:
        """Return the first of ``texts`` that fit into this share of the room, and take it."""
        room = before = int(self._room * share)
        taken: list[str] = []
        for text in texts:
            room -= len(text) + 1
            if room < 0:
                room += len(text) + 1
                break
            taken.append(text)
        self._room -= before - room
        return taken

    def _listings(self, stream: BinaryIO, number: int, history: RegionHistory) -> Iterator[Listing]:
        """Write the views of one region, and yield each that had room."""
        if not history.pages:
            return
        if self._room < _LEAST_ROOM or history.content_bytes > MOST_CONTENT:
            self._without_bytes += 1
            return
        allowance = int(self._room * _ONE_REGION_SHARE)
        written = 0
        decode = self._to_decode > 0
        for listing in listings(self._capture, history, instructions=decode):
            self._to_decode -= listing.pages
            taken = len(listing.packed) + _LISTING_BYTES
            if taken > allowance:
                self._shortened += written > 0
                break
            allowance -= taken
            self._room -= taken
            element = f'<script type="text/plain" id="view-{number}-{written}">{listing.packed}</script>\n'
            stream.write(element.encode("ascii"))
            written += 1
            yield listing
        self._without_bytes += not written
        self._undecoded += written > 0 and not decode

    def _say_what_is_left_out(self, processes: int, regions: int) -> None:
        counts = (
            (
                len(self._capture.processes) - processes,
                "process",
                "processes",
                "; memory-tracer report --all",
            ),
            (self._found - regions, "region", "regions", "; memory-tracer regions"),
            (self._without_bytes, "region's bytes", "regions' bytes", "; memory-tracer show"),
            (self._undecoded, "region's instructions", "regions' instructions", ", but not their bytes"),
            (self._shortened, "region's earlier generations", "regions' earlier generations", ""),
        )
        for count, noun, plural, where in counts:
            if count:
                self.left_out.append(f"{format_count(count, noun, plural)}{where}")


def _head(style: str, script: str) -> str:
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return _resource("page.html").replace("$POLICY", policy).replace("$STYLE", style)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("ascii")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("ascii")

"""A region's memory over time: which bytes were where after each step that brought new ones.

The *image* of a region is what is known of its pages at one moment. Records are taken in capture
order; all pages between two events of the region belong to the first of them. An event that
delivered at least one content never seen before at its address begins the next *generation* of the
region; of a region of one page, generation N is the page's N-th distinct content. An event that
brings only known bytes back changes the image, not the generation.

A page missing at an event is unknown from then on until its bytes come; nothing is filled in from
before. An absent page has no bytes either: it reads as zeros. Unmapping forgets nothing by itself,
but pages of an older mapping do not survive into an image made after the range was unmapped or
mapped anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..model import PAGE_SIZE, Event, EventKind, Missing, MissingRun, Page, Protection
from .timeline import Row, in_order

#: Events after which the memory at an address is another than before.
_REPLACES_MAPPING = frozenset({EventKind.MMAP, EventKind.MUNMAP, EventKind.EXEC_MAPPING})

#: A half-open range of addresses.
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of one page: its bytes and their SHA-256, or why they are missing."""

    content: bytes | None
    sha256: str | None
    missing: Missing | None


@dataclass(frozen=True, slots=True)
class Gap:
    """What was last said of a whole range at ``sequence``: missing, absent, or (None) mapped anew."""

    sequence: int
    missing: Missing | None


@dataclass(slots=True)
class Image:
    """A region's memory at one moment; the same object is changed on, copy what must stay.

    ``pages`` is by address and overrides ``gaps``; of the gaps the one with the highest sequence
    counts.
    """

    generation: int = 0
    sequence: int = 0
    timestamp_ns: int = 0
    event: EventKind = EventKind.UNKNOWN
    protection: Protection = Protection.NONE
    pages: dict[int, Held] = field(default_factory=dict)
    gaps: dict[Range, Gap] = field(default_factory=dict)


def images(events: Iterable[Event], rows: Iterable[Row]) -> Iterator[Image]:
    """Yield the image after each event that delivered or missed a page, one object changed in place.

    ``events`` and ``rows`` are those of one process and one range, each in order of sequence.
    Equal contents are held once, so memory is bounded by the distinct contents of the range.
    """
    image = Image()
    contents: dict[str, bytes] = {}
    highest: dict[int, int] = {}
    replaced: list[tuple[Range, int]] = []
    step: set[int] = set()  # pages that the present step has delivered
    changed = fresh = False
    for record in in_order(events, rows):
        # A page delivered twice belongs to an event whose own record is lost.
        again = isinstance(record, Page) and not record.late and record.address in step
        if changed and (again or isinstance(record, Event)):
            yield image
            step.clear()
            changed = fresh = False
        if isinstance(record, Event):
            if record.kind in _REPLACES_MAPPING and record.succeeded and record.region:
                replaced.append(((record.region.start, record.region.end), record.sequence))
            continue
        _apply(image, replaced)
        if isinstance(record, MissingRun) and record.missing is Missing.ABSENT:
            _set_gap(image, _addresses(record), Gap(record.sequence, Missing.ABSENT))
            continue
        changed = True
        image.sequence, image.timestamp_ns, image.event = record.sequence, record.timestamp_ns, record.event
        if isinstance(record, MissingRun):
            _set_gap(image, _addresses(record), Gap(record.sequence, record.missing))
            continue
        image.protection = record.protection
        image.pages[record.address] = _held(record, contents)
        step.add(record.address)
        if record.generation > highest.get(record.address, 0):
            highest[record.address] = record.generation
            image.generation += not fresh
            fresh = True
    if changed:
        yield image


def _addresses(run: MissingRun) -> Range:
    return run.address, run.address + run.length


def _apply(image: Image, replaced: list[tuple[Range, int]]) -> None:
    for addresses, sequence in replaced:
        _set_gap(image, addresses, Gap(sequence, None))
    replaced.clear()


def _set_gap(image: Image, addresses: Range, gap: Gap) -> None:
    start, end = addresses
    pages = image.pages
    # Whichever is shorter: a hostile capture has huge ranges, a large heap has many pages.
    if (end - start) // PAGE_SIZE < len(pages):
        gone = [address for address in range(start, end, PAGE_SIZE) if address in pages]
    else:
        gone = [address for address in pages if start <= address < end]
    for address in gone:
        del pages[address]
    image.gaps[addresses] = gap


def _held(page: Page, contents: dict[str, bytes]) -> Held:
    content = page.content
    if content is not None and page.sha256 is not None:
        content = contents.setdefault(page.sha256, content)
    return Held(content, page.sha256, page.missing)

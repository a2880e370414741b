"""Verify a capture: whether it is complete and undamaged, or exactly what is missing and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..model import EventKind, Loss
from ..wire.layout import FLAG_LATE, PAGE_BYTES
from .format import NO_CONTENT
from .index import Index
from .reader import Capture
from .relations import Relations

#: How many places one sentence names.
_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Certificate:
    """The result of ``verify``.

    ``losses`` is what the recording could not get or keep, ``damaged`` what is wrong with the file
    itself, one sentence each; ``notes`` are facts that are no loss. ``complete`` means that there is
    neither loss nor damage; ``checked_pages`` counts the stored pages whose SHA-256 was computed.
    """

    complete: bool
    losses: tuple[Loss, ...]
    notes: tuple[str, ...]
    checked_pages: int
    damaged: tuple[str, ...]


def verify(capture: Capture) -> Certificate:
    """Check every byte of ``capture``, in memory that does not grow with its contents.

    Checksums and the order of the chunks were checked when it was opened.
    """
    index, relations = capture.index, capture.relations
    damaged = (*_damaged_contents(index), *_damaged_rows(relations), *_wrong_totals(index))
    losses = capture.losses
    return Certificate(
        complete=not losses and not damaged,
        losses=losses,
        notes=tuple(_notes(index, relations)),
        checked_pages=len(index.contents),
        damaged=damaged,
    )


def _damaged_contents(index: Index) -> Iterator[str]:
    numbers = index.contents.damaged()
    examples = list(itertools.islice(numbers, _EXAMPLES))
    count = len(examples) + sum(1 for _ in numbers)
    if count:
        yield f"stored pages that do not match their SHA-256: {_listed('numbers', examples, count)}"


def _damaged_rows(relations: Relations) -> Iterator[str]:
    rows = relations.rows
    dangling = ~relations.row_stored & (rows["content"] != NO_CONTENT)
    unaligned = rows["address"] % PAGE_BYTES != 0
    for wrong, what in (
        (dangling, "refer to content that is not there"),
        (unaligned, "have no page address"),
    ):
        ordinals = rows["ordinal"][wrong]
        if len(ordinals):
            yield f"pages that {what}: {_listed('ordinals', ordinals[:_EXAMPLES].tolist(), len(ordinals))}"


def _wrong_totals(index: Index) -> Iterator[str]:
    pages, records = len(index.pages), index.record_count
    if pages + records != index.next_ordinal:
        yield f"records are numbered up to {index.next_ordinal - 1}, but there are {pages + records}"
    if index.end is not None:
        for name, found in (("records", records), ("pages", pages)):
            if index.end.get(name) != found:
                yield f"there are {found} {name}, which is not the number the recorder closed the file with"


def _notes(index: Index, relations: Relations) -> Iterator[str]:
    coalesced = index.counter("kernel", "coalesced")
    late = int(np.count_nonzero(relations.rows["flags"] & FLAG_LATE))
    stand_ins = len(relations.events) - relations.recorded_count
    unknown = int(np.count_nonzero(relations.events["kind"] == EventKind.UNKNOWN)) - stand_ins
    facts = {
        "calls on hot regions that changed nothing and are only counted": coalesced,
        "pages read by user space some time after their event": late,
        "threads that the kernel does not let us sample": index.counter("recorder", "unsampled_threads"),
        "events whose own record is lost while pages of them are there": stand_ins,
        "events of a kind this version does not know": unknown,
    }
    return (f"{fact}: {count}" for fact, count in facts.items() if count)


def _listed(what: str, examples: list[int], count: int) -> str:
    """Return ``count`` and the numbers of the first ones."""
    more = ", ..." if count > len(examples) else ""
    return f"{count} ({what} {', '.join(map(str, examples))}{more})"

"""What a capture does not show, and why: counted from its counters and from its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from ..analyze.triggers import open_to_writes
from ..model import Loss, Missing
from ..wire.layout import FLAG_LATE, LOSS_COUNTERS, SEQUENCE_CPU_SHIFT
from .decode import missing_reason
from .format import NO_CONTENT
from .index import Index
from .relations import Relations
from .scan import Scanner

#: Counters of the recorder that mean something is not in the capture, with unit and explanation.
RECORDER_LOSSES = {
    "refused_readings": (
        "readings",
        "the kernel does not let us look at the memory of a process; run with sudo, or with CAP_SYS_PTRACE",
    ),
    "unlisted_programs": (
        "programs",
        "they ended before user space could list what they had mapped, which this kernel leaves to it",
    ),
    "abandoned_readings": ("readings", "a process kept whoever read its memory waiting"),
    "vanished_targets": ("processes", "they are gone, and the kernel program did not see their end"),
}

#: A message from a file is shown up to this length.
_MESSAGE_LIMIT = 500

#: By whether a recorder is at work on the file.
_NOT_CLOSED = {
    True: "the recording is still running, so it is not closed",
    False: "the recording was not closed in order, and its recorder is gone",
    None: "the recording was not closed in order, or is still running",
}

_NUMBER_MASK = np.uint64((1 << SEQUENCE_CPU_SHIFT) - 1)


def find_losses(
    index: Index, relations: Relations, scanner: Scanner, recording: bool | None
) -> tuple[Loss, ...]:
    """Return one ``Loss`` for each reason, the kernel's first, then the recorder's, then the file's."""
    missing = pages_by_reason(relations)
    return (
        *_kernel_losses(index, relations, missing),
        *_recorder_losses(index),
        *_missing_pages(index, missing),
        *_unwatched_regions(relations),
        *_unreadable_records(index),
        *_file_losses(index, scanner, recording),
    )


def sequence_gaps(index: Index) -> int:
    """Return how many sequence numbers were taken on some CPU and are not in the file.

    A CPU counts from 1, so a gap before its first record shows as well.
    """
    records = (index.events, index.missing, index.outcomes, index.texts, index.stacks, index.registers)
    tables = (index.pages.rows, *records)
    sequences = np.concatenate([table["sequence"] for table in tables])
    sequences.sort(kind="stable")  # they are in order nearly everywhere
    numbers = sequences & _NUMBER_MASK
    cpus = sequences >> np.uint64(SEQUENCE_CPU_SHIFT)
    before = np.zeros_like(numbers)
    before[1:] = np.where(cpus[1:] == cpus[:-1], numbers[:-1], 0)
    # A record numbered 0 (the kernel had no state for it) precedes the first and is no gap.
    return int(np.sum(numbers - np.minimum(before + np.uint64(1), numbers)))


def pages_by_reason(relations: Relations) -> Counter[Missing]:
    """Count the pages whose bytes are not in the file."""
    counts: Counter[Missing] = Counter()
    absent = relations.rows[~relations.row_stored]
    damaged = absent["content"] != NO_CONTENT
    counts[Missing.DAMAGED] += int(np.count_nonzero(damaged))
    reasons = np.concatenate([absent["missing"][~damaged], relations.runs["reason"]])
    pages = np.concatenate([np.ones(len(reasons) - len(relations.runs), np.uint64), relations.runs["pages"]])
    for value in np.unique(reasons).tolist():
        counts[missing_reason(value)] += sum(pages[reasons == value].tolist())
    return +counts


def _kernel_losses(index: Index, relations: Relations, missing: Counter[Missing]) -> Iterator[Loss]:
    counts = {name: index.counter("kernel", name) for name in LOSS_COUNTERS}
    # A recording that was killed has fewer counters than records.
    counts["lost_pages"] = max(counts["lost_pages"], missing[Missing.RING_FULL])
    yield from _counted(counts, LOSS_COUNTERS)
    explained = sum(count for name, count in counts.items() if name.startswith("lost_"))
    gaps = sequence_gaps(index) - explained - index.unknown_records - index.malformed_records
    if gaps > 0:
        yield Loss(
            "unaccounted-records", gaps, "records", "the kernel numbered them, and no counter explains it"
        )
    if index.end is not None:
        arrived = int(np.count_nonzero((relations.rows["flags"] & FLAG_LATE) == 0))
        lost = index.counter("kernel", "pages") - arrived
        if lost > 0:
            yield Loss("undelivered-pages", lost, "pages", "the kernel sent more pages than reached the file")


def _recorder_losses(index: Index) -> Iterator[Loss]:
    counts = {name: index.counter("recorder", name) for name in RECORDER_LOSSES}
    yield from _counted(counts, RECORDER_LOSSES)


def _counted(counts: Mapping[str, int], meanings: Mapping[str, tuple[str, str]]) -> Iterator[Loss]:
    """Yield a loss for each counter that counted something; ``meanings`` are units and explanations."""
    for name, (unit, explanation) in meanings.items():
        if counts[name]:
            yield Loss(name.replace("_", "-"), counts[name], unit, explanation)


def _missing_pages(index: Index, missing: Counter[Missing]) -> Iterator[Loss]:
    for reason in Missing:
        count = missing[reason]
        if reason is Missing.LIMIT:
            count = max(count, index.counter("recorder", "limited_pages"))
        if count and reason is not Missing.RING_FULL:
            yield Loss(str(reason), count, "pages", reason.sentence)


def _unwatched_regions(relations: Relations) -> Iterator[Loss]:
    """Memory that can be written while it is executable changes without any call to record it at."""
    events = relations.events[: relations.recorded_count]
    processes = relations.event_process[: relations.recorded_count]
    chosen = np.flatnonzero(open_to_writes(events))
    starts = set(zip(processes[chosen].tolist(), events["address"][chosen].tolist(), strict=True))
    if starts:
        yield Loss(
            "unwatched-writes",
            len(starts),
            "regions",
            "they could be written to while executable; what came and went between two looks is not recorded",
        )


def _unreadable_records(index: Index) -> Iterator[Loss]:
    if index.unknown_records:
        unknown = index.unknown_records
        yield Loss("unknown-records", unknown, "records", "this version does not know their type")
    malformed = index.counter("recorder", "malformed_records") + index.malformed_records
    if malformed:
        yield Loss("malformed-records", malformed, "records", "they contradict themselves")


def _file_losses(index: Index, scanner: Scanner, recording: bool | None) -> Iterator[Loss]:
    if scanner.truncated:
        yield Loss("truncated", scanner.cut_bytes, "bytes", scanner.truncated)
    if index.end is None:
        yield Loss("not-closed", 1, "recordings", _NOT_CLOSED[recording])
    elif isinstance(error := index.end.get("error"), str):
        message = error[:_MESSAGE_LIMIT]
        yield Loss("recording-error", 1, "recordings", f"the recording ended with an error: {message}")

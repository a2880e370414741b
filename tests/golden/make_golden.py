"""Write a capture of the current format version with every type of chunk and record.

``python -m tests.golden.make_golden FILE``. A golden file is made once for each version, kept, and
never made anew: it stands for the captures people have.
"""

from __future__ import annotations

import sys
from pathlib import Path

from memory_tracer.capture.writer import CaptureWriter
from memory_tracer.model import EventKind, Missing, Status
from memory_tracer.wire.layout import PAGE_BYTES, RecordType
from tests.unit.builders import BASE, METADATA, PID, START_NS, RecordStream, page_bytes

CHILD = PID + 1


def write_golden(path: Path) -> None:
    """Write the capture; the limit of three stored pages leaves the fourth out."""
    parent = RecordStream()
    parent.path(0x800001, 5, b"/usr/bin/sample")
    parent.event(EventKind.EXEC, device=0x800001, inode=5, uid=1000, parent_pid=1)
    parent.command_line(b"sample", b"--flag")
    for seed in (1, 2, 1):
        parent.flip(seed, 3)
    cause = parent.event(EventKind.MMAP, BASE + 0x10000, 3, protection=7, arguments=(0, 12288, 7, 34, 0, 0))
    parent.page(cause, page_bytes(4), BASE + 0x10000)
    parent.missing(cause, Missing.DEFERRED, BASE + 0x11000, 2)
    parent.record(RecordType.OUTCOME, cause=cause, captured=1, deferred=2)
    parent.page(cause, page_bytes(1), BASE + 0x11000, late=True)

    child = RecordStream(pid=CHILD, start_ns=START_NS + 10**9)
    child.cpu, child.now_ns = 1, parent.now_ns + 1000
    child.event(EventKind.FORK, parent_pid=PID)
    child.event(EventKind.MUNMAP, pages=2, protection=0, status=Status.UNLINKED, arguments=(BASE, 8192))
    child.event(EventKind.EXIT, result=256)

    with CaptureWriter(path, METADATA, size_limit=3 * PAGE_BYTES) as writer:
        writer.append(parent.take())
        writer.append(child.take())
        writer.counters(
            {"kernel": {"events": 8, "pages": 7, "coalesced": 2}, "recorder": {"limited_pages": 1}}
        )
        writer.finish(reason="command-ended", wait_status=256)


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))

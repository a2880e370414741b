"""Whether a process runs 32-bit code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..model import EventKind, Status

if TYPE_CHECKING:
    from ..capture.reader import Capture

#: Calls that say by which ABI they came.
_CALLS = (EventKind.MMAP, EventKind.MPROTECT, EventKind.PKEY_MPROTECT, EventKind.MREMAP, EventKind.SHMAT)
#: Addresses of 32-bit code are below.
_END_OF_32_BITS = 1 << 32


def word_bits(capture: Capture, pid: int, process_start_ns: int, address: int) -> int | None:
    """Return 32 when what is at ``address`` is 32-bit code as far as the capture knows, else None.

    It is where all calls of the process since its last execve came by the 32-bit ABI. 64-bit code can
    use that, too, but its C library and dynamic loader do not.
    """
    if address >= _END_OF_32_BITS:
        return None
    relations = capture.relations
    events = relations.events[relations.event_process == relations.process_number(pid, process_start_ns)]
    executions = np.flatnonzero(events["kind"] == EventKind.EXEC)
    if len(executions):
        events = events[executions[-1] :]
    calls = events[np.isin(events["kind"], _CALLS)]
    by_compat = (calls["status"] & Status.COMPAT) != 0
    return 32 if len(calls) and by_compat.all() else None

"""Clearing accessed bits, so that the kernel program need not compare pages nobody used.

The reasoning stands at ``find_untouched_pages`` in bpf/pages.bpf.h. Writing 2 to
/proc/PID/clear_refs clears the bits of a process's anonymous pages (proc(5)); the process does not
notice, except that the kernel's page reclaim knows a little less about what it uses.
"""

from __future__ import annotations

import time

from .loader import Program
from .privileges import Capability, raised
from .process import is_same

#: How often targets are asked whether they need it (nanoseconds).
_QUESTION_NS = 10_000_000
#: A process that needed it once gets a new epoch this often, in which everything is compared anew.
_RENEWAL_NS = 5_000_000_000
#: Clearing takes at most this fraction of the time.
_COST_FACTOR = 50


class Epochs:
    """Starts epochs for the processes that compare many pages."""

    def __init__(self, program: Program) -> None:
        """Start none yet."""
        self._program = program
        self._next_question = 0
        self._renewals: dict[tuple[int, int], int] = {}
        self.started = 0

    def tick(self) -> None:
        """Do what is due; cheap when nothing is."""
        now = time.monotonic_ns()
        if now < self._next_question:
            return
        due = {process for process, moment in self._renewals.items() if now >= moment}
        due.update(self._program.comparing_much())
        for process in due:
            self._start(*process)
        self._next_question = time.monotonic_ns() + max(
            _QUESTION_NS, _COST_FACTOR * (time.monotonic_ns() - now)
        )

    def _start(self, pid: int, start_time_ns: int) -> None:
        self._renewals.pop((pid, start_time_ns), None)
        # Bits that are being cleared tell nothing: nobody may rely on them until all are.
        if not is_same(pid, start_time_ns) or not self._program.set_epoch(pid, 0):
            return
        try:
            with raised(Capability.DAC_OVERRIDE), open(f"/proc/{pid}/clear_refs", "w") as file:
                file.write("2")
        except OSError:  # it ended, or this kernel has no clear_refs: everything goes on being compared
            return
        self.started += 1
        if self._program.set_epoch(pid, self.started):
            self._renewals[pid, start_time_ns] = time.monotonic_ns() + _RENEWAL_NS

"""Passes: comparing, again and again, what can change without any call.

Code that is written into writable and executable memory, or through a second mapping, shows in no call.
Looks come before it goes away; passes come while it is there. The kernel program compares and sends;
here is only the rhythm. A pass costs the target nothing but the memory's bandwidth, because it runs on
the recorder's time.
"""

from __future__ import annotations

import time

from .loader import Program
from .process import living_thread

#: A step compares a few hundred pages; so many steps are one pass at most, the next goes on from there.
_STEPS = 256
#: Passing takes at most one part in so many of the recorder's time.
_COST_FACTOR = 10
#: How often it is asked which thread of a target is alive (nanoseconds).
_THREADS_NS = 1_000_000_000


class Passes:
    """Makes a pass over each target at a given rate."""

    def __init__(self, program: Program, rate: int) -> None:
        """Make ``rate`` passes per second; 0: none."""
        self._program = program
        self._interval_ns = 1_000_000_000 // rate if rate and program.looks_at_others else None
        self._next = 0
        self._threads: dict[int, int] = {}
        self._next_threads = 0
        self.made = 0

    @property
    def pause(self) -> float | None:
        """Seconds until the next pass is due; None when there will be none."""
        if self._interval_ns is None:
            return None
        return max(0.0, (self._next - time.monotonic_ns()) / 1e9)

    def tick(self) -> None:
        """Make a pass if one is due."""
        started = time.monotonic_ns()
        if self._interval_ns is None or started < self._next:
            return
        anew = started >= self._next_threads
        if anew:
            self._threads.clear()
            self._next_threads = started + _THREADS_NS
        # Of a whole machine, few are worth it each time.
        everyone = anew or self._program.settings.scope is None
        pids = self._program.targets() if everyone else self._program.changing_targets()
        for pid in pids:
            self._pass_over(pid)
        self.made += 1
        ended = time.monotonic_ns()
        self._next = ended + max(self._interval_ns, _COST_FACTOR * (ended - started))

    def _pass_over(self, pid: int) -> None:
        if pid not in self._threads:
            try:
                self._threads[pid] = living_thread(pid)
            except OSError:
                return  # it is ending
        for _ in range(_STEPS):
            if not self._program.step(pid, self._threads[pid]):
                return

"""Processes that came into the scope while they were running: what they have executable already is read.

That is so for all when a recording of a scope begins, and later when the scope is changed, or when a process
comes into it by another way than executing a program: by another user id, group, or name.
"""

from __future__ import annotations

import time

from .loader import Joined, Program

#: How often it is asked who came (nanoseconds), and how much more time than asking takes goes by between.
_QUESTION_NS = 20_000_000
_COST_FACTOR = 20


class Newcomers:
    """Asks the kernel program who came into the scope, and names each once."""

    def __init__(self, program: Program) -> None:
        """Ask nothing yet; without a scope nobody comes."""
        self._program = program if program.settings.scope is not None else None
        self._known: set[Joined] = set()
        self._next_question = 0

    def take(self) -> list[Joined]:
        """Those that have come since; none while it is too early to ask again."""
        now = time.monotonic_ns()
        if self._program is None or now < self._next_question:
            return []
        joined = self._program.joined()
        new = sorted(joined - self._known)
        self._known = joined  # who has ended is forgotten
        ended = time.monotonic_ns()
        self._next_question = ended + max(_QUESTION_NS, _COST_FACTOR * (ended - now))
        return new

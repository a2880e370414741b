"""The user stacks of events: what the kernel found by frame pointers, and the word on top."""

from __future__ import annotations

from functools import cached_property

from .mappings import Mappings
from .relations import Relations
from .texts import Texts


class Stacks:
    """Returns the stacks of the events of a capture; fastest in order of sequence."""

    def __init__(self, relations: Relations, texts: Texts) -> None:
        self._relations = relations
        self._texts = texts

    @cached_property
    def _mappings(self) -> Mappings:
        """Its own, so that nobody else's questions make it start again."""
        return Mappings(self._relations, self._texts)

    def of(self, number: int) -> tuple[int, ...]:
        """Return the stack of event ``number`` of the relations, innermost first; empty when not known.

        A function without a frame pointer, such as the C library's wrapper of a system call, has its
        return address on top of the stack, where following frame pointers misses it. Any other word
        may be there instead, so it counts only if it lies in memory that was executable.
        """
        record = self._relations.event_stack[number]
        if record < 0:
            return ()
        row = self._relations.stacks[record]
        # A count beyond the field is a lie; slicing stops at the field's end.
        frames: tuple[int, ...] = tuple(row["frames"][: row["count"]].tolist())
        top = int(row["address"])
        if not frames or not top or frames[1:2] == (top,):
            return frames
        sequence = int(self._relations.events["ordinal"][number])
        return (frames[0], top, *frames[1:]) if self._mappings.executable_at(sequence, top) else frames

"""Run the rules over a capture, and say for each match where and when it was in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..model import PAGE_SIZE, Page
from .rulebook import yara
from .stretches import Stretch, Walk

if TYPE_CHECKING:
    from ..capture.filters import FilterOptions
    from ..capture.reader import Capture

#: Seconds a stretch may take: rules and contents may be hostile to each other.
_TIME_LIMIT_SECONDS = 60
#: Matches of one pattern in one stretch, at most.
_MATCH_LIMIT = 10_000
#: Bytes kept of a match.
_EXCERPT = 64


@dataclass(frozen=True, slots=True)
class Rule:
    """What a match needs to say of its rule."""

    name: str
    namespace: str
    tags: tuple[str, ...]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Match:
    """One match: ``length`` bytes at ``address``, the first ones in ``excerpt``.

    ``pattern`` is None for a rule that holds without one; then it is about all ``length`` bytes that
    were scanned together. ``page`` is the page it begins in, at its first occurrence; ``places``
    counts the pages, of all processes, that ever had this page's content. ``timestamp_ns`` is when
    all of the matched bytes were there.
    """

    rule: Rule
    pattern: str | None
    address: int
    length: int
    excerpt: bytes
    page: Page
    places: int
    timestamp_ns: int


class Search:
    """A scan of one capture. The counters say what has been done, and what could not be."""

    def __init__(self, capture: Capture, rules: Any) -> None:
        self._capture = capture
        self._walk = Walk(capture.relations)
        self._places = self._walk.places()
        self._engine = yara()
        self._scanner = self._engine.Scanner(rules)
        self._scanner.set_timeout(_TIME_LIMIT_SECONDS)
        self._scanner.max_matches_per_pattern(_MATCH_LIMIT)
        self._row_content = capture.relations.rows["content"]
        self._timestamps = capture.relations.rows["timestamp_ns"]
        self.pages = 0
        self.unfinished = 0
        self.limited = 0
        self.damaged = 0

    def stretches(self, filters: FilterOptions) -> Iterator[list[Match]]:
        """Scan all that ``filters`` accept; yield what each stretch has."""
        for stretch in self._walk.stretches(self._capture.row_numbers(**filters)):
            yield self._matches(stretch)

    def _matches(self, stretch: Stretch) -> list[Match]:
        content = b"".join(self._contents(stretch))
        self.pages += 0 if stretch.border else stretch.own
        try:
            found = self._scanner.scan(content).matching_rules
        except (self._engine.TimeoutError, self._engine.ScanError):
            self.unfinished += 1
            return []
        return [match for rule in found for match in self._of_rule(stretch, content, rule)]

    def _of_rule(self, stretch: Stretch, content: bytes, found: Any) -> Iterator[Match]:
        rule = Rule(found.identifier, found.namespace, tuple(found.tags), dict(found.metadata))
        if not found.patterns and not stretch.border:
            yield self._match(stretch, rule, None, 0, content[: stretch.own * PAGE_SIZE])
        for pattern in found.patterns:
            self.limited += len(pattern.matches) >= _MATCH_LIMIT
            for match in pattern.matches:
                first, end = match.offset, match.offset + match.length
                crosses = first < PAGE_SIZE < end
                if crosses if stretch.border else first < stretch.own * PAGE_SIZE:
                    yield self._match(stretch, rule, pattern.identifier, first, content[first:end])

    def _match(self, stretch: Stretch, rule: Rule, pattern: str | None, offset: int, content: bytes) -> Match:
        row = stretch.rows[offset // PAGE_SIZE]
        (page,) = self._capture.pages_of_rows(np.array([row]))
        return Match(
            rule=rule,
            pattern=pattern,
            address=page.address + offset % PAGE_SIZE,
            length=len(content),
            excerpt=content[:_EXCERPT],
            page=page,
            places=int(self._places[self._row_content[row]]),
            timestamp_ns=max(page.timestamp_ns, int(self._timestamps[stretch.row])),
        )

    def _contents(self, stretch: Stretch) -> Iterator[bytes]:
        numbers = [int(self._row_content[row]) for row in stretch.rows]
        for page in self._capture.index.contents.pages(numbers):
            self.damaged += page is None
            yield bytes(PAGE_SIZE) if page is None else page.content


def rules_of(compiled: Any) -> Sequence[Rule]:
    """Return all rules of a compiled set."""
    return [Rule(rule.identifier, rule.namespace, tuple(rule.tags), dict(rule.metadata)) for rule in compiled]

"""Matches as JSON objects."""

from __future__ import annotations

from ..export.objects import Object, page_object
from .search import Match


def match_object(match: Match) -> Object:
    """Return the object of one match (``"type": "match"``)."""
    page = page_object(match.page)
    return {
        "type": "match",
        "rule": match.rule.name,
        "namespace": match.rule.namespace,
        "tags": list(match.rule.tags),
        "metadata": {name: _plain(value) for name, value in match.rule.metadata.items()},
        "pattern": match.pattern,
        "address": hex(match.address),
        "length": match.length,
        "bytes": match.excerpt.hex(),
        "timestamp_ns": match.timestamp_ns,
        "places": match.places,
        **{name: page[name] for name in ("pid", "process_start_ns", "comm", "event", "protection")},
        **{name: page[name] for name in ("generation", "sha256", "evidence", "region", "sequence")},
    }


def _plain(value: object) -> object:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value

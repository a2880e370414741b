"""Matches as SARIF 2.1.0, for whatever shows results of static analysis. Written as they come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from ..terminal import clean
from .objects import match_object
from .search import Match, Rule

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def write_sarif(
    stream: IO[str], capture: Path, version: str, rules: Sequence[Rule], matches: Iterable[Match]
) -> None:
    """Write one document with all ``matches`` of ``rules`` in the capture file ``capture``."""
    driver = {
        "name": "memory-tracer",
        "version": version,
        "rules": [
            {
                "id": _identifier(rule),
                "shortDescription": {"text": str(rule.metadata.get("description", rule.name))},
                "properties": {"tags": list(rule.tags)},
            }
            for rule in rules
        ],
    }
    head = json.dumps({"tool": {"driver": driver}})
    stream.write(f'{{"$schema": "{_SCHEMA}", "version": "2.1.0", "runs": [{head[:-1]}, "results": [')
    separator = "\n"
    for match in matches:
        stream.write(separator + json.dumps(_result(match, capture)))
        separator = ",\n"
    stream.write("\n]}]}\n")


def _identifier(rule: Rule) -> str:
    return f"{rule.namespace}.{rule.name}"


def _result(match: Match, capture: Path) -> dict[str, object]:
    page, pattern = match.page, "" if match.pattern is None else f" ({match.pattern})"
    text = (
        f"{match.rule.name}{pattern} at {match.address:#x} in process {page.pid} "
        f"({clean(page.comm)}), generation {page.generation}"
    )
    return {
        "ruleId": _identifier(match.rule),
        "level": "warning",
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": capture.absolute().as_uri()},
                    "address": {"absoluteAddress": match.address, "length": match.length},
                },
                "logicalLocations": [
                    {"name": clean(page.comm), "fullyQualifiedName": f"process {page.pid}", "kind": "process"}
                ],
            }
        ],
        "partialFingerprints": {"pageSha256/v1": page.sha256 or ""},
        "properties": match_object(match),
    }

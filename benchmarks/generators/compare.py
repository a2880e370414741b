"""Compare what a generator says with what a capture holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from memory_tracer import Capture, Region, open_capture
from memory_tracer.model import PAGE_SIZE

from .dumps import Code, last_state, pages_of, versions

#: The different contents that a capture holds of each page, by number of the page.
Generations = Mapping[int, Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Share:
    """How many of some bytes are in a capture, at their address in their process.

    ``exact``: of pieces that are in one generation of their page as the generator says, all bytes.
    ``alike``: of every piece, the bytes that are the same in the generation that has most of them, so
    that places patched later count as missing, and the code around them does not. ``unseen``: those on
    pages of which the capture has no content at all.
    """

    total: int = 0
    exact: int = 0
    alike: int = 0
    unseen: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One dump against one capture; ``losses`` maps reasons to how much the capture says is missing."""

    every_version: Share
    last_state: Share
    losses: Mapping[str, int]


class _Files:
    """What a process executes from files: V8 names its built-in functions, which are in Node's program."""

    def __init__(self, capture: Capture, pid: int) -> None:
        self._regions = [
            history.region
            for history in capture.regions(pid=pid)
            if history.region.path and not history.unlinked and history.region.offset is not None
        ]

    def __contains__(self, code: Code) -> bool:
        """Return whether these bytes stand in a file that the capture says is there."""
        return any(
            region.start <= code.address and code.end <= region.end and _in_file(region, code)
            for region in self._regions
        )


def _in_file(region: Region, code: Code) -> bool:
    assert region.path is not None
    assert region.offset is not None
    try:
        with open(region.path, "rb") as file:
            file.seek(region.offset + code.address - region.start)
            return file.read(len(code.content)) == code.content
    except OSError:
        return False


def compare(path: Path, pid: int, codes: list[Code]) -> Comparison:
    """Look for ``codes`` of process ``pid`` in the capture ``path``."""
    with open_capture(path) as capture:
        files = _Files(capture, pid)
        generated = [code for code in versions(codes) if code not in files]
        pieces = [piece for code in generated for piece in pages_of(code)]
        wanted = {piece.address // PAGE_SIZE for piece in pieces}
        contents: dict[int, dict[bytes, None]] = defaultdict(dict)
        for page in capture.pages(missing=False, pid=pid):
            if page.address // PAGE_SIZE in wanted and page.content is not None:
                contents[page.address // PAGE_SIZE][page.content] = None
        losses = {loss.reason: loss.count for loss in capture.losses}
    generations = {number: tuple(found) for number, found in contents.items()}
    return Comparison(share(pieces, generations), share(last_state(generated), generations), losses)


def share(pieces: Iterable[Code], generations: Generations) -> Share:
    """Look for each piece, which lies within one page, in the generations of its page."""
    total = exact = alike = unseen = 0
    for piece in pieces:
        size = len(piece.content)
        start = piece.address % PAGE_SIZE
        held = [page[start : start + size] for page in generations.get(piece.address // PAGE_SIZE, ())]
        total += size
        if piece.content in held:
            exact += size
            alike += size
        elif held:
            alike += max(_same(piece.content, content) for content in held)
        else:
            unseen += size
    return Share(total, exact, alike, unseen)


def _same(left: bytes, right: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(left, np.uint8) == np.frombuffer(right, np.uint8)))

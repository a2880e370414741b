"""The results as Markdown, and their place in docs/coverage.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..samples import Spread
from ..tables import Table
from .compare import Share
from .measure import Round
from .programs import Generator

DOCUMENT = Path(__file__).parents[2] / "docs" / "coverage.md"
_BEGIN = "<!-- written by python -m benchmarks generators --write -->\n"
_END = "<!-- end of what is written -->\n"

_SHARES = (
    "generator",
    "version",
    "it says so in",
    "bytes",
    "captured",
    "same bytes",
    "page missing",
    "last state captured",
    "same bytes",
)
_COSTS = ("generator", "the capture reports as missing", "slowdown", "output unchanged")

Results = Sequence[tuple[Generator, Sequence[Round]]]


def render(results: Results, facts: str) -> str:
    """Return the tables, with ``facts`` about the machine and the run, and what is not installed."""
    shares, costs = Table(_SHARES), Table(_COSTS)
    for generator, rounds in results:
        if rounds:
            shares.add(generator.name, generator.release(), generator.oracle, *_shares(rounds))
            costs.add(generator.name, *_costs(rounds))
    parts = [shares.markdown(), costs.markdown(), facts]
    if absent := [generator.name for generator, rounds in results if not rounds]:
        parts.append(f"Not installed where this was measured: {'; '.join(absent)}.")
    return "\n\n".join(parts) + "\n"


def write(text: str, document: Path = DOCUMENT) -> None:
    """Put ``text`` between the two marks in the document."""
    head, _, rest = document.read_text().partition(_BEGIN)
    _, mark, tail = rest.partition(_END)
    if not mark:
        raise ValueError(f"{document.name} has no place for the table")
    document.write_text(f"{head}{_BEGIN}\n{text}\n{_END}{tail}")


def _shares(rounds: Sequence[Round]) -> tuple[str, ...]:
    every = [one.comparison.every_version for one in rounds]
    last = [one.comparison.last_state for one in rounds]
    return (
        f"{Spread.of(share.total for share in every).median:,.0f}",
        _percent(every, lambda share: share.exact),
        _percent(every, lambda share: share.alike),
        _percent(every, lambda share: share.unseen),
        _percent(last, lambda share: share.exact),
        _percent(last, lambda share: share.alike),
    )


def _costs(rounds: Sequence[Round]) -> tuple[str, ...]:
    return (
        _losses(rounds),
        Spread.of(one.traced_ns / one.plain_ns for one in rounds).text("", digits=2),
        "yes" if all(one.same_output for one in rounds) else "no",
    )


def _percent(shares: Sequence[Share], part: Callable[[Share], int]) -> str:
    """Round down, so that 100 means all."""
    spread = Spread.of(int(part(share) * 10000 / share.total) / 100 if share.total else 0 for share in shares)
    return spread.text("%", digits=2).replace(".00", "")


def _losses(rounds: Sequence[Round]) -> str:
    """Name each reason with its count; what the counts are of, docs/limitations.md says."""
    reasons = dict.fromkeys(reason for one in rounds for reason in one.comparison.losses)
    texts = []
    for reason in reasons:
        counts = Spread.of(one.comparison.losses.get(reason, 0) for one in rounds)
        texts.append(f"`{reason}` {counts.text('', digits=0)}")
    return ", ".join(texts) or "nothing"

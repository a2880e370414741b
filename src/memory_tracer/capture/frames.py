"""What a capture is in a notebook: tables in one call, and a summary instead of an address."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, cast

from ..errors import require
from ..notebook import html_table
from .schemas import arrow, schema

if TYPE_CHECKING:
    from .filters import FilterOptions
    from .reader import Capture

#: Of a long list of losses, so many are named.
_LOSSES = 10


class Frames:
    """The part of ``Capture`` that makes tables and the summary."""

    def table(self, name: str = "pages", **filters: Unpack[FilterOptions]) -> Any:
        """Return a table as a ``pyarrow.Table``: pages, contents, events, missing, regions, processes.

        docs/tables.md lists their columns. ``filters`` are those of ``pages``. Raises ``UsageError``
        when there is no such table, ``MissingExtraError`` without pyarrow.
        """
        from .tables import batches

        return arrow().Table.from_batches(batches(cast("Capture", self), name, filters), schema(name))

    def to_pandas(self, table: str = "pages", **filters: Unpack[FilterOptions]) -> Any:
        """Return a table as a ``pandas.DataFrame``; see ``table``. Raises ``MissingExtraError``."""
        require("pandas", "pandas frames")
        return self.table(table, **filters).to_pandas()

    def to_polars(self, table: str = "pages", **filters: Unpack[FilterOptions]) -> Any:
        """Return a table as a ``polars.DataFrame``; see ``table``. Raises ``MissingExtraError``."""
        return require("polars", "Polars frames").from_arrow(self.table(table, **filters))

    def __repr__(self) -> str:
        facts = self._facts()
        counted = ", ".join(f"{facts[name]} {name}" for name in ("processes", "events", "pages"))
        return f"<Capture {facts['file']}: {counted}, {facts['state']}>"

    def _repr_html_(self) -> str:
        """Return the summary for a notebook. Nothing of it is markup of the capture's."""
        return html_table(self._facts())

    def _facts(self) -> dict[str, str]:
        capture = cast("Capture", self)
        command = capture.metadata.get("command")
        words = command if isinstance(command, list) else []
        losses = capture.losses
        named = [f"{loss.reason}: {loss.count:,} {loss.unit}" for loss in losses[:_LOSSES]]
        facts = {
            "file": ascii(str(capture.path))[1:-1],
            "command": " ".join(ascii(str(word))[1:-1] for word in words),
            "processes": f"{len(capture.processes):,}",
            "events": f"{capture.event_count:,}",
            "pages": f"{capture.page_count:,}",
            "different pages": f"{capture.unique_pages:,}",
            "state": "complete" if not losses else f"incomplete ({', '.join(named)})",
        }
        return {name: text for name, text in facts.items() if text}

"""Tables as Markdown, which reads as well on a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """A heading for each column, and rows of as many cells."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Append a row."""
        assert len(cells) == len(self.columns)
        self.rows.append(cells)

    def markdown(self) -> str:
        """Return the table, aligned, the first column to the left and the others to the right."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        rule = [f":{'-' * (widths[0] - 1)}", *(f"{'-' * (width - 1)}:" for width in widths[1:])]
        return "\n".join(_line(row, widths) for row in (self.columns, tuple(rule), *self.rows))


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars over the names of an axis and a line for comparison, as Mermaid: text where it is not drawn."""

    title: str
    unit: str
    names: tuple[str, ...]
    bars: tuple[float, ...]
    line: tuple[float, ...]

    def markdown(self) -> str:
        """Return the chart as a fenced block."""
        names = ", ".join(f'"{name}"' for name in self.names)
        highest = max((*self.bars, *self.line), default=1.0) * 1.1
        series = [
            f"    {kind} [{', '.join(f'{number:.2f}' for number in numbers)}]"
            for kind, numbers in (("bar", self.bars), ("line", self.line))
        ]
        return "\n".join(
            [
                "```mermaid",
                "xychart-beta",
                f'    title "{self.title}"',
                f"    x-axis [{names}]",
                f'    y-axis "{self.unit}" 0 --> {highest:.1f}',
                *series,
                "```",
            ]
        )


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(padded)} |"

"""The terminal interface, with Textual (``pip install memory-tracer[live]``).

Looks are taken in another thread, at a fixed rate; what they return is drawn here. Texts of a capture
come here clean, and are put into ``rich.text.Text``: a plain string would be read as markup.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.widgets import DataTable, Footer, Input, RichLog, Static

from ..analyze.regions import RegionHistory
from ..terminal import clean, format_size
from .watch import RegionKey, Summary, Watch, describe_counts, region_key

#: Seconds between two looks. A look that took longer is followed by as long a rest.
INTERVAL = 0.5
#: Titles and widths in characters, each with a gap; the last is cut by the terminal, and scrolls.
_PROCESS_COLUMNS = (("PID", 8), ("Name", 18), ("State", 18), ("Command", 200))
_REGION_COLUMNS = (
    ("PID", 8),
    ("Address", 15),
    ("Size", 10),
    ("Prot", 5),
    ("Gen", 5),
    ("Pages", 8),
    ("How", 14),
    ("Backing", 200),
)


class LiveApp(App[None]):
    """Processes, regions, and the bytes of the chosen region."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Static { height: 1; }
    DataTable { scrollbar-size: 1 1; }
    #processes { height: 5; }
    #regions { height: 1fr; }
    #bytes { height: 2fr; scrollbar-size: 1 1; border-top: solid $accent; }
    #bytes:focus { border-top: heavy $accent; }
    Input { height: 1; border: none; display: none; }
    Input.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("tab", "app.focus_next", "Next pane"),
        Binding("slash", "ask('filter')", "Filter", key_display="/"),
        Binding("f", "ask('find')", "Find in bytes"),
        Binding("n", "find_next", "Find next"),
        Binding("d", "turn", "Hex/code"),
        Binding("escape", "clear", "Show all", key_display="esc"),
    ]

    def __init__(self, watch: Watch, title: str, interval: float = INTERVAL) -> None:
        super().__init__()
        self._watch = watch
        self._title = clean(title, 30)
        self._interval = interval
        self._summary: Summary | None = None
        self._shown: dict[str, RegionHistory] = {}
        self._chosen: RegionHistory | None = None
        self._lines: list[str] = []
        self._instructions = False
        self._pid: int | None = None
        self._asking = "filter"
        self._filter = ""
        self._find = ""
        self._found = -1

    def compose(self) -> ComposeResult:
        """Make the panes, top to bottom."""
        yield Static(id="counts", markup=False)
        yield Static(id="losses", markup=False)
        yield DataTable(id="processes", cursor_type="row", cell_padding=0)
        yield DataTable(id="regions", cursor_type="row", cell_padding=0)
        yield RichLog(id="bytes", markup=False, highlight=False, wrap=False, auto_scroll=False)
        yield Input(id="question", select_on_focus=False)
        yield Footer()

    def on_mount(self) -> None:
        """Start looking."""
        for name, columns in (("#processes", _PROCESS_COLUMNS), ("#regions", _REGION_COLUMNS)):
            for title, width in columns:
                self.query_one(name, DataTable).add_column(title, width=width)
        self.query_one("#regions").focus()
        # Textual types what a coroutine may be sent as None, an async function has Any.
        self.run_worker(self._follow, name="follow")  # type: ignore[arg-type]

    async def _follow(self) -> None:
        while True:
            before = time.monotonic()
            self._summary = await asyncio.to_thread(self._watch.look)
            try:
                await self._draw()
            except NoMatches:  # the view was left meanwhile
                return
            if self._summary.finished:
                return
            await asyncio.sleep(max(self._interval, time.monotonic() - before))

    async def _draw(self) -> None:
        summary = self._summary
        if summary is None:
            return
        self.query_one("#counts", Static).update(
            Text.assemble((f"{summary.state} ", "bold"), f"{self._title}: {describe_counts(summary)}")
        )
        self.query_one("#losses", Static).update(_losses(summary))
        rows = [
            (str(line.pid), line.comm, line.state, line.words, f"{index}")
            for index, line in enumerate(summary.processes)
        ]
        _fill(self.query_one("#processes", DataTable), rows)
        self._draw_regions(summary)
        await self._draw_bytes()

    def _draw_regions(self, summary: Summary) -> None:
        self._shown = {}
        rows = []
        for history in summary.regions:
            cells = _cells(history)
            if self._pid not in (None, history.pid):
                continue
            if self._filter and self._filter not in " ".join(cells).lower():
                continue
            name = _name(region_key(history))
            self._shown[name] = history
            rows.append((*cells, name))
        table = self.query_one("#regions", DataTable)
        _fill(table, rows)
        chosen = f", pid {self._pid}" if self._pid is not None else ""
        wanted = f", with {clean(self._filter)!r}" if self._filter else ""
        left = f", {summary.regions_dropped:,} older ones left out" if summary.regions_dropped else ""
        pane = self.query_one("#bytes", RichLog)
        # Titles are markup.
        title = f"{len(rows):,} of {len(summary.regions):,} regions{chosen}{wanted}{left}"
        pane.border_title = title.replace("[", "\\[")

    async def _draw_bytes(self, *, anew: bool = False) -> None:
        table = self.query_one("#regions", DataTable)
        chosen = None
        if table.row_count:
            key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
            chosen = self._shown.get(key or "")
        if chosen == self._chosen and not anew:
            return
        before, self._chosen = self._chosen, chosen
        lines = []
        if chosen is not None:
            lines = await asyncio.to_thread(self._watch.lines, chosen, instructions=self._instructions)
        if chosen != self._chosen:
            return  # another was chosen meanwhile
        pane = self.query_one("#bytes", RichLog)
        same = before is not None and chosen is not None and region_key(before) == region_key(chosen)
        position = pane.scroll_y if same and not anew else 0
        self._lines, self._found = lines, self._found if same else -1
        pane.clear()
        for line in lines:
            pane.write(Text(line, no_wrap=True))
        pane.scroll_to(y=position, animate=False)

    async def on_data_table_row_highlighted(self, message: DataTable.RowHighlighted) -> None:
        """Show the bytes of the region under the cursor."""
        if message.data_table.id == "regions":
            self.run_worker(self._draw_bytes, group="bytes")  # type: ignore[arg-type]

    async def on_data_table_row_selected(self, message: DataTable.RowSelected) -> None:
        """Enter on a process shows its regions only."""
        if message.data_table.id == "processes" and self._summary is not None:
            self._pid = self._summary.processes[message.cursor_row].pid
            await self._draw()

    def action_ask(self, what: str) -> None:
        """Ask for the text to filter by or to find."""
        self._asking = what
        question = self.query_one("#question", Input)
        question.placeholder = (
            "show regions with this text" if what == "filter" else "find this text in the bytes"
        )
        question.value = self._filter if what == "filter" else self._find
        question.add_class("open")
        question.focus()

    async def on_input_submitted(self, message: Input.Submitted) -> None:
        """Filter by, or find, what was typed."""
        message.input.remove_class("open")
        text = message.value.strip().lower()
        if self._asking == "filter":
            self._filter = text
            self.query_one("#regions").focus()
            await self._draw()
            return
        self._find, self._found = text, -1
        self.query_one("#bytes").focus()
        self.action_find_next()

    def action_find_next(self) -> None:
        """Scroll to the next line with the text that was asked for; start again after the last."""
        if not self._find:
            return
        found = [number for number, line in enumerate(self._lines) if self._find in line.lower()]
        if not found:
            self.notify("not in the bytes shown", severity="warning", markup=False)
            return
        self._found = next((number for number in found if number > self._found), found[0])
        self.query_one("#bytes", RichLog).scroll_to(y=self._found, animate=False)

    async def action_turn(self) -> None:
        """Change between the hex dump and instructions."""
        self._instructions = not self._instructions
        await self._draw_bytes(anew=True)

    async def action_clear(self) -> None:
        """Drop the filters, and the question if there is one."""
        self.query_one("#question", Input).remove_class("open")
        self._filter, self._pid = "", None
        self.query_one("#regions").focus()
        await self._draw()


def _losses(summary: Summary) -> Text:
    if not summary.losses:
        sentence = "COMPLETE: nothing was lost" if summary.finished else "nothing was lost so far"
        return Text(sentence, "green")
    more = f" and {len(summary.losses) - 1} more; verify lists them" if len(summary.losses) > 1 else ""
    return Text(f"INCOMPLETE{more}: {summary.losses[0]}", "bold red", no_wrap=True, overflow="ellipsis")


def _name(key: RegionKey) -> str:
    (pid, ticks), start, length = key
    return f"{pid}-{ticks}-{start:x}-{length:x}"


def _cells(history: RegionHistory) -> tuple[str, ...]:
    region = history.region
    missing = f"-{history.missing:,}" if history.missing else ""
    return (
        str(history.pid),
        f"{region.start:#x}",
        format_size(region.length),
        "rwx" if history.rwx else str(history.protection),
        str(history.generations),
        f"{history.pages:,}{missing}",
        str(history.kinds[0]) if history.kinds else "",
        clean(region.path) if region.path is not None else "anonymous",
    )


def _fill(table: DataTable[Text], rows: Sequence[tuple[str, ...]]) -> None:
    """Make ``rows``, each ending in its key, the table's.

    The cursor stays on its row; but at the top it stays there, where what is new appears.
    """
    key = None
    if table.row_count and table.cursor_row > 0:
        key = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
    names = [row[-1] for row in rows]
    scrolled = table.scroll_x
    table.clear()
    for row in rows:
        table.add_row(*(Text(cell, no_wrap=True, overflow="ellipsis") for cell in row[:-1]), key=row[-1])
    if key in names:
        table.move_cursor(row=names.index(key))
    table.scroll_to(x=scrolled, animate=False)

"""Tables: Parquet files as DuckDB reads them, frames of pandas and Polars, summaries."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import memory_tracer as mt
from memory_tracer.capture import tables
from memory_tracer.capture.schemas import SCHEMAS
from memory_tracer.export.objects import event_object, page_object, region_object
from memory_tracer.model import EventKind, Missing
from memory_tracer.wire.layout import PAGE_BYTES

from .builders import BASE, PID, RecordStream, page_bytes, write_capture
from .scenario import CHILD_PID, CODE, NOISE, PACKED, CommandLine, whole_scenario

pytest.importorskip("pyarrow")

ROOT = Path(__file__).parents[2]


def exported(cli: CommandLine, capture: Path, out: Path, *arguments: object) -> Any:
    """Export to Parquet and return DuckDB's answer to a query as a function."""
    duckdb = pytest.importorskip("duckdb")
    ran = cli("export", capture, "--format", "parquet", "-o", out, *arguments)
    assert (ran.status, ran.out) == (0, "")
    return lambda query: duckdb.sql(query.format(out=out)).fetchall()


def test_parquet_files_open_in_duckdb(cli: CommandLine, hostile: Path, tmp_path: Path) -> None:
    query = exported(cli, hostile, tmp_path / "out")
    assert query("SELECT pid, count(*) FROM '{out}/pages.parquet' GROUP BY pid ORDER BY pid") == [
        (PID, 3),
        (CHILD_PID, 1),
    ]
    joined = "SELECT content FROM '{out}/pages.parquet' JOIN '{out}/contents.parquet' USING (sha256) "
    assert query(f"{joined} ORDER BY sequence") == [(page_bytes(1),), (CODE,), (NOISE,), (page_bytes(7),)]
    assert query("SELECT address, length, missing FROM '{out}/missing.parquet'") == [
        (PACKED + 2 * PAGE_BYTES, 2 * PAGE_BYTES, "swapped")
    ]
    assert query("SELECT count(*) FROM '{out}/processes.parquet'") == [(2,)]


def test_files_say_what_the_capture_lacks(cli: CommandLine, hostile: Path, tmp_path: Path) -> None:
    query = exported(cli, hostile, tmp_path / "out")
    ((about,),) = query(
        "SELECT decode(value) FROM parquet_kv_metadata('{out}/pages.parquet')"
        " WHERE decode(key) = 'memory_tracer'"
    )
    assert json.loads(about)["complete"] is False
    assert [loss["reason"] for loss in json.loads(about)["losses"]]


def test_contents_can_be_left_out(cli: CommandLine, hostile: Path, tmp_path: Path) -> None:
    exported(cli, hostile, tmp_path / "out", "--no-content")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"{table}.parquet" for table in SCHEMAS if table != "contents"}


def test_only_an_export_of_ours_is_replaced(cli: CommandLine, hostile: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(cli, hostile, out)
    arguments = ("export", hostile, "--format", "parquet", "-o", out)
    assert cli(*arguments).status == 1
    assert cli(*arguments, "--force").status == 0
    (out / "mine.txt").touch()
    ran = cli(*arguments, "--force")
    assert (ran.status, "mine.txt" in ran.err) == (1, True)


def normal(value: Any) -> Any:
    """Return a value of a JSON object as the tables have it."""
    if isinstance(value, str):
        if re.fullmatch(r"0x[0-9a-f]+", value):
            return int(value, 16)
        return value.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return [normal(item) for item in value] if isinstance(value, list) else value


def flat(value: dict[str, Any], table: str) -> dict[str, Any]:
    """Return the columns of ``table`` from a JSON object."""
    region = value.pop("region") or dict.fromkeys(("start", "length", "path", "device", "inode", "offset"))
    value |= {"region_start": region.pop("start"), "region_length": region.pop("length"), **region}
    return {name: normal(value[name]) for name, _ in SCHEMAS[table] if name != "wall_time"}


@pytest.mark.parametrize("batch", [1, 2, 1 << 15])
def test_tables_say_what_the_objects_say(hostile: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(tables, "_BATCH", batch)
    with mt.open_capture(hostile) as capture:
        pages = [page for page in capture.pages() if page.content is not None]
        expected = {
            "pages": [flat(page_object(page), "pages") for page in pages],
            "events": [flat(event_object(event), "events") for event in capture.events()],
            "regions": [flat(region_object(history), "regions") for history in capture.regions()],
        }
        for table, rows in expected.items():
            found = capture.table(table)
            assert found.drop_columns(["wall_time"] if table != "regions" else []).to_pylist() == rows
        times = capture.table().column("wall_time").to_pylist()
        assert times == [page.wall_time for page in pages]


def test_pages_without_bytes_have_the_reason(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1)
    stream.page(1 << 40, page_bytes(2), BASE + PAGE_BYTES)
    path = write_capture(tmp_path / "x.mtrace", stream, size_limit=PAGE_BYTES)
    path.write_bytes(path.read_bytes().replace(page_bytes(1), page_bytes(9)))
    with mt.open_capture(path) as capture:
        rows = capture.table().to_pylist()
        assert capture.table("contents").num_rows == 0
    assert [(row["sha256"] is None, row["missing"]) for row in rows] == [
        (False, None),
        (True, str(Missing.LIMIT)),
    ]
    # A page whose event is lost has a region of its own.
    assert (rows[1]["region_start"], rows[1]["region_length"]) == (BASE + PAGE_BYTES, PAGE_BYTES)


def test_frames_come_in_one_call(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with mt.open_capture(write_capture(tmp_path / "x.mtrace", whole_scenario())) as capture:
        frame = capture.to_pandas()
        assert isinstance(frame, pandas.DataFrame)
        assert frame["generation"].tolist() == [1, 2]
        assert capture.to_pandas("regions")["region_start"].tolist() == [BASE]
        assert len(capture.to_pandas("events", kinds=[EventKind.EXIT])) == 1


def test_frames_are_those_of_polars_too(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    with mt.open_capture(write_capture(tmp_path / "x.mtrace", whole_scenario())) as capture:
        frame = capture.to_polars()
        assert isinstance(frame, polars.DataFrame)
        assert frame["address"].to_list() == [BASE, BASE]


def test_there_are_no_other_tables(hostile: Path) -> None:
    with mt.open_capture(hostile) as capture, pytest.raises(mt.UsageError, match="no table 'threads'"):
        capture.table("threads")


def test_every_column_is_documented() -> None:
    text = (ROOT / "docs" / "tables.md").read_text()
    for table, columns in SCHEMAS.items():
        (row,) = re.findall(rf"^\| `{table}` \|[^|]*\|(.*)\|$", text, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row) == [name for name, _ in columns]


def test_capture_is_summed_up_for_a_notebook(hostile: Path) -> None:
    with mt.open_capture(hostile) as capture:
        assert repr(capture).startswith(f"<Capture {hostile}: 2 processes, ")
        assert "incomplete (" in repr(capture)
        page = capture._repr_html_()
    assert f"<td>{hostile}</td>" in page
    assert page.startswith("<table>")


def test_summary_holds_no_markup_of_the_capture(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "<script>.mtrace", whole_scenario())
    with mt.open_capture(path) as capture:
        assert "<script>" not in capture._repr_html_()


def test_page_says_in_one_line_what_it_is(hostile: Path) -> None:
    with mt.open_capture(hostile) as capture:
        lines = [repr(page) for page in capture.pages()]
    assert lines[0].startswith(f"<Page {BASE:#x} r-x generation 1, mprotect at ")
    assert lines[0].endswith(f" ns, pid {PID} (sample)>")
    assert any("missing: swapped" in line for line in lines)
    assert all(line.isascii() and line.isprintable() for line in lines)


def test_values_are_tables_in_a_notebook_without_markup_of_the_target(tmp_path: Path) -> None:
    stream = RecordStream(comm=b"<script>x")
    stream.path(1, 2, b"/tmp/<img src=x onerror=y>")
    stream.command_line(b"<b>bold</b>", b"\xff\x1b[31m")
    cause = stream.event(inode=2, device=1, caller_ip=0x40_1234)
    stream.page(cause, CODE)
    stream.missing(cause, Missing.SWAPPED, BASE + PAGE_BYTES)
    with mt.open_capture(write_capture(tmp_path / "x.mtrace", stream)) as capture:
        values = [
            *capture.events(),
            *capture.pages(missing=False),
            *capture.missing_runs(),
            *capture.regions(),
            *capture.processes,
            *capture.losses,
        ]
    shown = [value._repr_html_() for value in values]
    assert {type(value).__name__ for value in values} == {
        *("Event", "Page", "MissingRun", "RegionHistory", "Process", "Loss"),
    }
    for page in shown:
        assert set(re.findall(r"<(/?\w+)", page)) == {
            "table",
            "tr",
            "th",
            "td",
            "/table",
            "/tr",
            "/th",
            "/td",
        }
        assert page.isascii()
        assert page.isprintable()
    whole = "".join(shown)
    for escaped in ("&lt;script&gt;x", "/tmp/&lt;img src=x onerror=y&gt;", "&lt;b&gt;bold", "\\x1b[31m"):
        assert escaped in whole
    assert f"{CODE[:8].hex(' ')}" in whole
    assert f"{BASE:#x}" in whole

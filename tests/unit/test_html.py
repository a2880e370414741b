"""The page for a browser: what Debian's Chromium shows of it, and that what was captured stays text."""

from __future__ import annotations

import io
import json
import re
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_tracer.capture.reader import Capture
from memory_tracer.html.bands import GONE, MOST_STEPS, Band, bands
from memory_tracer.html.page import SMALLEST_SIZE, Page, data_json
from memory_tracer.model import EventKind
from memory_tracer.wire.layout import PAGE_BYTES, RecordType
from tests.foreign import chromium

from .builders import BASE, METADATA, RecordStream, page_bytes, write_capture
from .scenario import CODE, DEVICE, INODE, PACKED, CommandLine, Ran, whole_scenario

#: What would act if a name became markup.
SCRIPT = b'</script><script>document.body.id="owned"</script>'
IMAGE = b'<img src=x onerror=document.body.id="owned">'


class Dom(HTMLParser):
    """A page as the browser had it in the end: the text in each element with an id, and all tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: dict[str, str] = {}
        self.attributes: dict[str, dict[str, str | None]] = {}
        self._open: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        name = dict(attrs).get("id")
        if name:
            self.attributes[name] = dict(attrs)
        if tag not in ("meta", "input", "br"):
            self._open.append((tag, name))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        for name in {name for _, name in self._open if name} | {self._open[-1][0] if self._open else ""}:
            self.texts[name] = self.texts.get(name, "") + data


Browse = Callable[..., Dom]


@pytest.fixture
def browse(cli: CommandLine, tmp_path: Path) -> Browse:
    """Make the page of a capture and open it at a fragment."""

    def browse(capture: Path, fragment: str = "", *options: str) -> Dom:
        page = tmp_path / "page.html"
        ran = cli("html", capture, "-o", page, "--force", *options)
        assert ran.status == 0, ran.err
        return Dom(chromium(page, fragment, "--dump-dom"))

    return browse


def made(cli: CommandLine, tmp_path: Path, *streams: RecordStream) -> str:
    """Return the text of a page."""
    capture = write_capture(tmp_path / "x.mtrace", *streams)
    assert cli("html", capture, "-o", tmp_path / "x.html").status == 0
    return (tmp_path / "x.html").read_text("ascii")


def test_browser_shows_what_ran_and_the_code_that_was_made(browse: Browse, tmp_path: Path) -> None:
    pytest.importorskip("capstone")
    dom = browse(write_capture(tmp_path / "whole.mtrace", whole_scenario()))
    assert dom.texts["title"].endswith("./sample")
    assert dom.texts["losses"] == "COMPLETE: nothing was lost"
    assert dom.texts["process"].endswith("[exit 3]")
    assert dom.attributes["bands"]["data-drawn"] == "1"
    assert f"{BASE:#x}" in dom.texts["rows"]
    assert dom.texts["region"] == f"{BASE:#x}-{BASE + PAGE_BYTES:#x}"
    assert "called from 0x401234" in dom.texts["facts-of-region"].replace("Called from", "called from ")
    assert "mov eax, 0x2a" in dom.texts["listing"]
    assert "last (2)" in dom.texts["generations"]


def test_browser_shows_an_earlier_generation_and_hex(browse: Browse, tmp_path: Path) -> None:
    dom = browse(write_capture(tmp_path / "x.mtrace", whole_scenario()), "region=0&generation=1&form=hex")
    assert dom.texts["view"].startswith("Generation 1, after mprotect at 1.000002000 s")
    first = page_bytes(1)[:16].hex(" ")
    assert f"{BASE:#014x}  {first}  |{'.' * 16}|" in dom.texts["listing"]


#: Moves a pointer over the timeline, as a person does; what it sees is put where the test can read it.
DRIVER = """<script>
const canvas = document.getElementById("bands"), seen = [];
canvas.setPointerCapture = () => {};
const act = (type, x, y, more = {}) => {
  const { left, top } = canvas.getBoundingClientRect();
  const made = type === "wheel" ? WheelEvent : PointerEvent;
  canvas.dispatchEvent(new made(type, { clientX: left + x, clientY: top + y, cancelable: true, ...more }));
};
setTimeout(() => {
  const band = page.timeline.bands[1], span = band.spans[0];
  const x = (page.timeline.x(span.from) + page.timeline.x(span.to)) / 2;
  const y = (page.timeline.y(band.top) + page.timeline.y(band.bottom)) / 2;
  act("pointermove", x, y);
  seen.push(document.getElementById("tooltip").textContent);
  act("pointerdown", x, y);
  act("pointerup", x, y);
  seen.push(document.getElementById("region").textContent);
  act("wheel", x, y, { deltaY: -4000 });
  act("wheel", x, y, { deltaY: -4000, shiftKey: true });
  act("wheel", x, y, { deltaY: -4000, shiftKey: true });
  page.timeline.drawNow();
  seen.push(canvas.dataset.drawn);
  canvas.dispatchEvent(new MouseEvent("dblclick"));
  page.timeline.drawNow();
  seen.push(canvas.dataset.drawn);
  const text = { id: "seen", textContent: JSON.stringify(seen) };
  document.body.append(Object.assign(document.createElement("p"), text));
}, 500);
</script>"""


def test_pointer_names_chooses_and_zooms(cli: CommandLine, hostile: Path, tmp_path: Path) -> None:
    assert cli("html", hostile, "-o", tmp_path / "x.html").status == 0
    page = tmp_path / "driven.html"
    text = (tmp_path / "x.html").read_text("ascii").replace("Content-Security-Policy", "x")
    page.write_text(text.replace("</html>", "") + DRIVER)
    hovered, clicked, near, all_of_it = json.loads(Dom(chromium(page, "", "--dump-dom")).texts["seen"])
    assert hovered.splitlines()[0] == f"{PACKED:#x}-{PACKED + 4 * PAGE_BYTES:#x}  rwx  16 KiB"
    assert hovered.splitlines()[3] == "1 generation, mmap"
    assert clicked == f"{PACKED:#x}-{PACKED + 4 * PAGE_BYTES:#x}"
    assert (near, all_of_it) == ("1", "3")


def test_runtime_that_made_a_region_is_named_and_found(browse: Browse, tmp_path: Path) -> None:
    stream = RecordStream()
    for address, inode, path in (
        (0x10_0000, 71, b"/lib/libc.so.6"),
        (0x20_0000, 72, b"/bin/<node>/node"),
    ):
        stream.event(EventKind.EXEC_MAPPING, address, inode=inode, device=DEVICE)
        stream.path(DEVICE, inode, path)
    cause = stream.event(caller_ip=0x10_0008)
    stream.stack(cause, 0x10_0008, 0x20_0008)
    stream.page(cause, CODE)
    dom = browse(write_capture(tmp_path / "x.mtrace", stream), "search=v8")
    assert "Asked byV8, /bin/<node>/node" in dom.texts["facts-of-region"]
    assert dom.texts["count"].startswith("1 of ")


def test_losses_and_missing_pages_are_on_the_page(browse: Browse, hostile: Path) -> None:
    dom = browse(hostile, f"region=1&address={PACKED + 2 * PAGE_BYTES:#x}")
    assert dom.texts["losses"].startswith("INCOMPLETE:swapped: 2 pages (it was swapped out)")
    assert dom.texts["region"].startswith(hex(PACKED))
    assert dom.texts["view"].endswith("8,192 bytes missing.")
    assert "8,192 bytes: missing because it was swapped out" in dom.texts["listing"]
    assert "encrypted or compressed" in dom.texts["facts-of-region"]
    assert "bits per byte" in dom.texts["strip-text"]


@pytest.mark.parametrize(
    ("fragment", "found"),
    [("search=mmap rwx", 1), ("search=nothing", 0), ("process=1", 1), ("process=0", 2), ("", 3)],
)
def test_search_and_tabs_choose_regions(browse: Browse, hostile: Path, fragment: str, found: int) -> None:
    dom = browse(hostile, fragment)
    assert dom.texts["count"].startswith(f"{found} of ")
    assert dom.attributes["bands"]["data-drawn"] == str(found)


def test_programs_and_libraries_are_there_when_one_is_asked_for(browse: Browse, hostile: Path) -> None:
    dom = browse(hostile, "region=3")
    assert dom.texts["region"] == "0x400000-0x404000"
    assert "None of its bytes are in the capture" in dom.texts["view"]


def test_names_that_are_markup_stay_text(browse: Browse, tmp_path: Path) -> None:
    stream = RecordStream(comm=b"<script>")
    stream.event(EventKind.FORK, parent_pid=1, uid=1000)
    stream.command_line(b"./<b>", SCRIPT, IMAGE)
    stream.event(EventKind.EXEC, inode=INODE, device=DEVICE)
    stream.path(DEVICE, INODE, b"/tmp/" + SCRIPT + b"/" + IMAGE)
    cause = stream.event(inode=INODE, device=DEVICE, caller_ip=BASE + 5)
    stream.page(cause, (SCRIPT + IMAGE).ljust(PAGE_BYTES, b"\x90"))
    dom = browse(write_capture(tmp_path / "x.mtrace", stream), "region=0&form=hex&process=0")
    assert SCRIPT.decode() in dom.texts["process"]
    assert "<script> 4242" in dom.texts["tabs"]
    assert IMAGE.decode() in dom.texts["facts-of-region"]
    assert "|</script><script|" in dom.texts["listing"]
    assert dom.texts["title"] == "./sample - memory-tracer./sample"
    assert "owned" not in dom.attributes
    assert "img" not in dom.tags
    assert "b" not in dom.tags


@pytest.mark.parametrize("added", [SCRIPT.removeprefix(b"</script>"), IMAGE], ids=["script", "handler"])
def test_policy_stops_a_script_that_is_not_ours(cli: CommandLine, tmp_path: Path, added: bytes) -> None:
    text = made(cli, tmp_path, whole_scenario()).replace("<noscript>", f"{added.decode()}<noscript>")
    page = tmp_path / "tampered.html"
    page.write_text(text)
    assert "owned" not in Dom(chromium(page, "", "--dump-dom")).attributes
    page.write_text(text.replace("Content-Security-Policy", "x"))
    assert "owned" in Dom(chromium(page, "", "--dump-dom")).attributes


def test_page_names_no_address_to_fetch_from(cli: CommandLine, tmp_path: Path) -> None:
    text = made(cli, tmp_path, whole_scenario())
    assert "default-src 'none'" in text
    assert re.findall(r"https?:|//[a-z]|url\(|@import|\bfetch\(|\s(?:src|href)=", text) == []


@given(st.text(), st.text())
def test_data_is_ascii_without_markup_whatever_is_in_it(key: str, value: str) -> None:
    text = data_json({key: [value, "\u2028<!--"]})
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == {key: [value, "\u2028<!--"]}


def many_regions(count: int) -> RecordStream:
    """One process that makes ``count`` pages executable, apart from each other; of few there are bytes."""
    stream = RecordStream()
    for number in range(count):
        address = BASE + 2 * number * PAGE_BYTES
        content = number.to_bytes(4, "little").ljust(PAGE_BYTES, b"\0")
        cause = stream.event(address=address)
        if number % 20 == 0:
            stream.page(cause, content, address)
    return stream


def test_ten_thousand_regions_are_drawn_and_few_are_rows(browse: Browse, tmp_path: Path) -> None:
    dom = browse(write_capture(tmp_path / "many.mtrace", many_regions(10_000)), "region=9876")
    assert dom.texts["count"] == "10,000 of 10,000 regions"
    assert dom.attributes["bands"]["data-drawn"] == "10000"
    shown = re.findall(r"0x7f[0-9a-f]{10}", dom.texts["rows"])
    assert f"{BASE + 2 * 9876 * PAGE_BYTES:#x}" in shown
    assert len(shown) < 100


def test_page_keeps_to_its_size_and_says_what_is_left_out(browse: Browse, tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "many.mtrace", many_regions(3000))
    dom = browse(capture, "", "--max-size", "1M")
    assert (tmp_path / "page.html").stat().st_size <= SMALLEST_SIZE
    (left_out,) = re.findall(r"Left out of this page:([\d,]+) regions; memory-tracer", dom.texts["left-out"])
    shown = dom.texts["count"].split()[0]
    assert int(left_out.replace(",", "")) + int(shown.replace(",", "")) == 3000


def test_what_is_left_out_is_said_on_the_terminal_too(cli: CommandLine, tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "many.mtrace", many_regions(3000))
    ran = cli("html", capture, "-o", tmp_path / "x.html", "--max-size", "1M")
    assert re.search(r"^memory-tracer: left out: [\d,]+ regions; ", ran.err, re.MULTILINE)


def test_region_with_too_much_content_is_left_out(
    browse: Browse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memory_tracer.html.page.MOST_CONTENT", PAGE_BYTES)
    dom = browse(write_capture(tmp_path / "x.mtrace", whole_scenario()))
    assert dom.texts["left-out"] == "Left out of this page:1 region's bytes; memory-tracer show"
    assert dom.texts["view"].startswith("Its bytes did not fit into this page.")


def test_generations_that_are_left_out_are_counted(browse: Browse, tmp_path: Path) -> None:
    stream = RecordStream()
    for seed in range(40):
        stream.flip(seed + 1)
    dom = browse(write_capture(tmp_path / "x.mtrace", stream))
    assert "23 generations left out" in dom.texts["view"]
    assert dom.texts["generations"].endswith("16last (40)")


def test_page_is_private_and_replaces_nothing_unasked(cli: CommandLine, tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "x.mtrace", whole_scenario())
    page = tmp_path / "x.html"

    def make(*options: str) -> Ran:
        return cli("html", capture, "-o", page, *options)

    assert make().status == 0
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    again = make()
    assert (again.status, "exists; choose another name" in again.err) == (1, True)
    assert make("--force").status == 0
    small = make("--force", "--max-size", "1K")
    assert (small.status, "--max-size must be at least 1 MiB" in small.err) == (2, True)


def test_page_of_an_incomplete_capture_is_made_and_said_to_be(
    cli: CommandLine, hostile: Path, tmp_path: Path
) -> None:
    ran = cli("html", hostile, "-o", tmp_path / "x.html")
    assert ran.status == 0
    assert "this capture is incomplete for 2 reasons" in ran.err


@pytest.mark.parametrize(
    "metadata", [{}, dict(METADATA) | {"command": ["<"] * 10**5, "clock": {"monotonic_ns": -1}}]
)
def test_page_of_any_metadata_is_made(cli: CommandLine, tmp_path: Path, metadata: dict[str, object]) -> None:
    from memory_tracer.capture.writer import CaptureWriter

    with CaptureWriter(tmp_path / "x.mtrace", metadata) as writer:
        writer.append(whole_scenario().take())
    assert cli("html", tmp_path / "x.mtrace", "-o", tmp_path / "x.html").status == 0


_NUMBERS = st.sampled_from([0, 1, PAGE_BYTES, BASE, (1 << 63) - PAGE_BYTES, (1 << 64) - PAGE_BYTES])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(EventKind)[1:]), _NUMBERS, _NUMBERS, st.integers(0, 7), _NUMBERS),
        min_size=1,
        max_size=6,
    )
)
def test_page_is_made_whatever_the_numbers_in_a_capture(
    tmp_path: Path, events: list[tuple[EventKind, int, int, int, int]]
) -> None:
    stream = RecordStream()
    for kind, address, length, protection, time in events:
        stream.now_ns = time
        cause = stream.record(
            RecordType.EVENT, kind=kind, address=address, length=length, protection=protection, caller_ip=time
        )
        stream.page(cause, CODE, address // PAGE_BYTES * PAGE_BYTES)
    path = tmp_path / "x.mtrace"
    path.unlink(missing_ok=True)
    with Capture(write_capture(path, stream)) as capture:
        page = Page(capture, capture.regions(), SMALLEST_SIZE)
        written = io.BytesIO()
        assert len(list(page.write(written))) == len(capture.regions())
    assert b'<script type="application/json" id="data">' in written.getvalue()


def band_of(tmp_path: Path, stream: RecordStream, address: int = BASE, pages: int = 1) -> Band:
    """Return the band of one region of what ``stream`` holds."""
    with Capture(write_capture(tmp_path / "x.mtrace", stream)) as capture:
        histories = capture.regions()
        found = bands(capture, histories)
    (number,) = (
        index
        for index, history in enumerate(histories)
        if (history.region.start, history.region.length) == (address, pages * PAGE_BYTES)
    )
    return found[number]


def test_band_follows_the_protection_and_marks_generations(tmp_path: Path) -> None:
    stream = RecordStream()
    for seed in (1, 2, 1):
        stream.flip(seed)
        stream.event(protection=3, previous_protection=5)
    band = band_of(tmp_path, stream)
    assert [protection for _, protection in band.steps] == [5, 3, 5, 3, 5, 3]
    assert [number for _, number in band.marks] == [1, 2]
    assert band.generations == 2


@pytest.mark.parametrize(
    ("kind", "fields", "protection"),
    [
        (EventKind.MUNMAP, {"address": BASE - PAGE_BYTES, "pages": 4}, GONE),
        (EventKind.MMAP, {"address": BASE - PAGE_BYTES, "pages": 4}, GONE),
        (EventKind.MPROTECT, {"address": BASE - PAGE_BYTES, "pages": 4, "protection": 1}, 1),
        (EventKind.MREMAP, {"address": PACKED, "arguments": (BASE, PAGE_BYTES), "result": PACKED}, GONE),
        (EventKind.EXIT, {}, GONE),
        (EventKind.EXEC, {}, GONE),
    ],
)
def test_band_changes_with_what_is_around_it(
    tmp_path: Path, kind: EventKind, fields: dict[str, Any], protection: int
) -> None:
    stream = RecordStream()
    stream.flip(1)
    stream.event(kind, **fields)
    assert [each for _, each in band_of(tmp_path, stream).steps] == [5, protection]


def test_band_stays_where_only_a_part_is_unmapped_or_the_call_failed(tmp_path: Path) -> None:
    stream = RecordStream()
    stream.flip(1, 2)
    stream.event(EventKind.MUNMAP, BASE + PAGE_BYTES)
    stream.event(EventKind.MPROTECT, BASE, pages=2, protection=1, result=-12)
    assert [each for _, each in band_of(tmp_path, stream, pages=2).steps] == [5]


def test_band_of_endless_flips_is_bounded_and_says_so(tmp_path: Path) -> None:
    stream = RecordStream()
    for seed in range(MOST_STEPS + 3):
        stream.flip(seed)
        stream.event(protection=3, previous_protection=5)
    stream.event(EventKind.EXIT)
    band = band_of(tmp_path, stream)
    assert len(band.steps) == MOST_STEPS + 1
    assert band.steps[-1][1] == GONE
    assert band.more_steps
    assert (len(band.marks), band.marks[-1][1]) == (MOST_STEPS, MOST_STEPS + 3)


def test_code_is_shown_as_bytes_without_a_disassembler(
    browse: Browse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "capstone", None)
    dom = browse(write_capture(tmp_path / "x.mtrace", whole_scenario()))
    assert CODE[:8].hex(" ") in dom.texts["listing"]

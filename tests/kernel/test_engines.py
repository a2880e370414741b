"""The three ways to loop, for three ages of kernels, capture the same."""

from __future__ import annotations

import sys

import pytest

from memory_tracer import EventKind, Settings, Tracer, open_capture
from memory_tracer.record.kernel import Kernel
from memory_tracer.record.loader import Program
from tests.workloads import Workloads, parse

from .recording import CALLS, Recorder, execute, recorded, said

pytestmark = pytest.mark.privileged

PAGE_LOOPS = ("iterator", "callback", "bounded")


@pytest.mark.parametrize("page_loop", PAGE_LOOPS)
def test_program_loads_attaches_and_detaches(page_loop: str) -> None:
    program = Program(Settings(page_loop=page_loop), Kernel())
    try:
        program.attach()
        assert program.page_loop == page_loop
        assert program.targets() == []
    finally:
        program.close()


def test_kernel_that_has_open_coded_iterators_gets_them() -> None:
    kernel = Kernel()
    expected = "iterator" if kernel.knows("bpf_iter_num_new") else kernel.page_loop
    assert kernel.page_loop == expected


@pytest.mark.parametrize("page_loop", PAGE_LOOPS)
@pytest.mark.parametrize(
    ("workload", "argument"), [("pages16", "7"), ("generations", "23"), ("threads", "3")]
)
def test_every_loop_captures_every_page(
    page_loop: str, workload: str, argument: str, recorder: Recorder, workloads: Workloads
) -> None:
    path = recorder.new_path()
    script = (
        "import sys, memory_tracer as mt\n"
        "settings = mt.Settings(page_loop=sys.argv[2])\n"
        "with mt.Tracer.spawn(sys.argv[3:], output=sys.argv[1], settings=settings) as tracer:\n"
        "    list(tracer.pages())\n"
        "sys.exit(tracer.wait())\n"
    )
    ran = execute([sys.executable, "-c", script, path, page_loop, workloads.path(workload), argument])
    assert ran.status == 0, ran.err
    with open_capture(path) as capture:
        assert capture.metadata["page_loop"] == page_loop
        # Without a look at the mapping, pages that were never touched cannot be told from lost ones.
        assert capture.complete or page_loop == "bounded", capture.losses
        assert not any(loss.reason.startswith("lost") for loss in capture.losses)
        expected = said(parse(ran.out.splitlines()))
        told = {flip.address for flips in expected.values() for flip in flips}
        found = {
            thread: [flip for flip in flips if flip.address in told]
            for thread, flips in recorded(capture).items()
        }
        assert {thread: flips for thread, flips in found.items() if flips} == expected


@pytest.mark.parametrize("page_loop", PAGE_LOOPS)
def test_work_beyond_the_limit_of_a_call_is_deferred_to_user_space(
    page_loop: str, workloads: Workloads, recorder: Recorder
) -> None:
    path = recorder.new_path()
    settings = Settings(page_loop=page_loop, page_limit=5)
    with Tracer.spawn([str(workloads.path("pages16")), "7"], output=path, settings=settings) as tracer:
        pages = [page for page in tracer.pages() if page.event is EventKind.MPROTECT]
    assert sum(1 for page in pages if not page.late and page.content) == 5
    with open_capture(path) as capture:
        assert capture.counters["kernel"]["deferred"] >= 11
        late = [page for page in capture.pages(kinds=CALLS) if page.late]
        missing = [page for page in capture.pages(kinds=CALLS) if page.content is None]
        assert len(late) + len(missing) >= 11
        assert capture.complete == (not missing)

"""Run tests under other kernels, in virtual machines: ``./dev kernels``, which installs what this needs.

The guest sees this machine's files, read-only, and runs the same Python as this script. Its processor is
QEMU's own, which has protection keys and so execute-only memory; without --kvm everything takes some
twenty times as long as here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import click

from benchmarks.tables import Table

from . import kernels

REPOSITORY = Path(__file__).resolve().parent.parent.parent

#: Linux 6.1 and the newest that Debian 12 has (6.12); the first is what a machine runs by default.
_KERNELS = ("linux-image-amd64/bookworm", "linux-image-amd64/bookworm-backports")

_SELECTION = "tests/kernel -m emulated"

#: Protection keys, but no AVX: as QEMU 7.2 emulates it, NumPy sorts wrongly.
_PROCESSOR = "max,-avx,-avx2"

_MEMORY, _CPUS = "3G", 2
_MOUNT_TAG = "host"


@dataclass(frozen=True)
class Result:
    """What became of the tests under one kernel."""

    page_loop: str = "-"
    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: Counter[str] = field(default_factory=Counter)  # tests by reason
    trouble: str | None = None  # why there are no results
    died: bool = False  # the guest did, in the midst of the tests

    @classmethod
    def parse(cls, report: Path, page_loop: str) -> Result:
        """Read what ``pytest --junitxml`` wrote."""
        passed, failed, skipped = 0, list[str](), Counter[str]()
        for case in ElementTree.parse(report).iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            if (skip := case.find("skipped")) is not None:
                skipped[skip.get("message", "")] += 1
            elif case.find("failure") is not None or case.find("error") is not None:
                failed.append(name)
            else:
                passed += 1
        return cls(page_loop, passed, tuple(failed), skipped)


def run_tests(image: Path, selection: list[str], timeout: float, *, kvm: bool) -> Result:
    """Boot ``image`` and run pytest with the arguments ``selection`` in it; ``timeout`` is in seconds.

    Without KVM the kernel may die of its emulator: while one processor patches code that another executes, as
    attaching to a tracepoint does, QEMU can show the other a breakpoint that is gone (``Oops: int3``). That
    needs two processors, so then all is done once more with one.
    """
    result = boot(image, selection, timeout, cpus=_CPUS, kvm=kvm)
    if result.died and not kvm:
        click.echo("the guest died; once more with one processor", err=True)
        result = boot(image, selection, timeout, cpus=1, kvm=kvm)
    return result


def boot(image: Path, selection: list[str], timeout: float, *, cpus: int, kvm: bool) -> Result:
    """The same, with so many processors, and once."""
    with tempfile.TemporaryDirectory(prefix="memory-tracer-qemu-") as results:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so through all that ends the guest
        tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short"]
        tests += ["--junitxml=/run/results/report.xml", *selection]
        guest = shlex.join([str(REPOSITORY / "tests/qemu/guest.sh"), str(REPOSITORY), *tests])
        share = f"local,path=/,mount_tag={_MOUNT_TAG},security_model=none,readonly=on,multidevs=remap"
        ended = _run(
            [
                _virtme(),
                *("--run", str(image), "--memory", _MEMORY, "--cpus", str(cpus), "--force-9p"),
                *([] if kvm else ["--disable-kvm", f"--qemu-opts=-cpu {_PROCESSOR}"]),
                f"--qemu-opts=-virtfs {share}",
                f"--rwdir=/run/results={results}",
                *("--exec", guest),
            ],
            timeout,
        )
        log, report, loop = (Path(results, name) for name in ("log", "report.xml", "page_loop"))
        click.echo(log.read_text(errors="replace") if log.exists() else "", nl=False)
        if report.exists():
            return Result.parse(report, loop.read_text().strip() if loop.exists() else "-")
        if not ended:
            return Result(trouble=f"no end after {timeout:.0f} s")
        if not loop.exists():
            return Result(trouble="the tests did not start")
        return Result(trouble="the guest died before the tests were done", died=True)


#: vng starts its other half, which is installed beside it.
_PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"


def _virtme() -> str:
    found = shutil.which("vng", path=_PATH)
    if found is None:
        raise click.ClickException("virtme-ng is not installed; run: pip install virtme-ng")
    return found


def _run(command: list[str], timeout: float) -> bool:
    """Run a command and everything it starts to the end; False when it took too long."""
    variables = os.environ | {"PATH": _PATH}
    # QEMU opens what it writes to once more, and empties it if it is a file. A pipe it cannot.
    with (
        subprocess.Popen(["cat"], stdin=subprocess.PIPE) as printer,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printer.stdin,
            stderr=printer.stdin,
            start_new_session=True,
            env=variables,
        ) as process,
    ):
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return True


def render(results: dict[str, tuple[Result, float]]) -> str:
    """Return the results, with the seconds they took, as a table and what there is to say beside it."""
    table = Table(("kernel", "page loop", "passed", "failed", "skipped", "minutes"))
    notes = []
    for kernel, (result, seconds) in results.items():
        counts = (result.passed, len(result.failed), result.skipped.total())
        shown = ("-" if result.trouble else str(count) for count in counts)
        table.add(kernel, result.page_loop, *shown, f"{seconds / 60:.1f}")
        if result.trouble:
            notes.append(f"{kernel}: {result.trouble}")
        notes += [f"{kernel}: failed: {name}" for name in result.failed]
        notes += [f"{kernel}: skipped {count}: {why}" for why, count in sorted(result.skipped.items())]
    return "\n".join([table.markdown(), "", *notes])


@click.command()
@click.argument("names", metavar="[KERNEL]...", nargs=-1)
@click.option("--pytest", "selection", default=_SELECTION, show_default=True, help="Arguments for pytest.")
@click.option("--fetch", is_flag=True, help="Only fetch the kernels, to be booted later.")
@click.option("--timeout", default=3600.0, show_default=True, help="Seconds for each kernel.")
@click.option("--kvm", is_flag=True, help="Use KVM, which is much faster where it works.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memory-tracer" / "kernels",
    show_default=True,
    help="Where unpacked kernels are kept.",
)
def main(names: tuple[str, ...], selection: str, fetch: bool, timeout: float, kvm: bool, cache: Path) -> None:
    """Run tests under each KERNEL: a vmlinuz, a Debian kernel package (.deb), or PACKAGE/RELEASE.

    Without one, under Linux 6.1 and 6.12: linux-image-amd64 of Debian's releases bookworm and
    bookworm-backports.
    """
    try:
        images = [kernels.find(name, cache) for name in names or _KERNELS]
    except kernels.KernelError as error:
        raise click.ClickException(str(error)) from error
    if fetch:
        return
    results: dict[str, tuple[Result, float]] = {}
    for image in images:
        click.echo(f"booting {image}", err=True)
        started = time.monotonic()
        result = run_tests(image, shlex.split(selection), timeout, kvm=kvm)
        results[kernels.release(image)] = result, time.monotonic() - started
    click.echo(render(results))
    if any(result.failed or result.trouble for result, _ in results.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()

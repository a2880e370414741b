"""The results as one document: what is printed is what ``--write`` puts into docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .bench import Measurement

DOCUMENT = Path(__file__).parent.parent / "docs" / "benchmarks.md"

_HEAD = """\
# Benchmarks

What tracing costs and what it loses, beside an untraced run, `strace -f -e trace=%memory`,
`perf trace`, a `bpftrace` script that counts calls, and memory-tracer by tracepoints, which it uses on
kernels before 6.18. This file is written by `python -m benchmarks --write`.

Everything is measured in rounds: each round runs every case once, untraced and under each tracer, in an
order that changes from round to round, so that what disturbs the machine disturbs all of them alike.
Numbers are medians over the rounds, with the lowest and the highest in parentheses. Differences and
ratios are taken within one round. Compare columns with each other rather than with another machine's.
"""

_REPEAT = """\
## To repeat this

```console
$ sudo ./dev bench            # prints this text
$ sudo ./dev bench --quick    # a smaller version, less exact
$ sudo ./dev bench --write    # replaces docs/benchmarks.md
```

Tracers and runtimes are measured if they are installed (Debian: `strace`, `bpftrace`, `linux-perf`; `luajit`,
`ruby`, `php-cli`, `nodejs`, `default-jdk-headless`, `sbcl`, `pypy3`).

`python -m benchmarks reading --write` measures *Reading a million pages* and replaces that section alone; the
others leave it as it is. `python -m benchmarks capture FILE` only makes the capture.
"""

_REMARKS = """\
## What to keep in mind

- strace, perf trace and bpftrace keep no memory: their columns are the price of watching the same
  calls, not of capturing the same bytes. bpftrace only counts those that ask for execute.
- strace stops the target at every call and pays for that, whatever the call's size; memory-tracer pays
  less for the call and something for each page. With many pages in one call strace is the cheaper one:
  it does not look at them.
- A page that is lost costs the target less than one that is captured. A cost is worth comparing only
  where nothing was lost.
- *Unchanged* is the best case of a hot region and *changed* the worst: every page is read, hashed, and
  sent. The code generators above change few pages in each call.
- The tracer runs beside the target. On a machine with two CPUs, or a loaded one, it also takes time from
  the target that a larger machine would not miss.
- Tracepoints of system calls slow down those of every process while somebody uses them: that is the
  bystander's ratio. It ends with the recording. Whatever else traces the machine meanwhile (the
  facts above name it) slows the untraced runs too, and hides a part of that ratio.
- A difference within the spread of its neighbours is noise, negative ones included.
"""


def render(measurements: Sequence[Measurement], facts: Mapping[str, str]) -> str:
    """Return everything as Markdown; ``facts`` are about the machine and the run."""
    listed = "".join(f"- {name}: {value}\n" for name, value in facts.items())
    sections = [_HEAD, "## The machine\n", listed]
    sections += [section(measurement) for measurement in measurements]
    return "\n".join([*sections, _REMARKS, _REPEAT])


def section(measurement: Measurement, remark: str = "") -> str:
    """Return the part of the document that is about one measurement."""
    parts = [f"## {measurement.title}\n", f"{measurement.method}\n", *([f"{remark}\n"] if remark else [])]
    return "\n".join([*parts, *(f"{table.markdown()}\n" for table in measurement.tables())])


def write_document(text: str, kept: str) -> None:
    """Write docs/benchmarks.md, in which the section titled ``kept`` stays as it was."""
    found = _section_of(DOCUMENT.read_text(), kept)
    DOCUMENT.write_text(_with_section(text, kept, found) if found else text)


def write_section(title: str, text: str) -> None:
    """Replace one section of docs/benchmarks.md, or add it."""
    DOCUMENT.write_text(_with_section(DOCUMENT.read_text(), title, text))


def _section_of(document: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", document, re.MULTILINE | re.DOTALL)
    return found[0].rstrip("\n") + "\n" if found else ""


def _with_section(document: str, title: str, text: str) -> str:
    """Put a section in its place, or before the remarks."""
    old = _section_of(document, title)
    if old:
        return document.replace(old, text)
    head = _REMARKS.partition("\n")[0]
    before, _, behind = document.partition(head)
    return f"{before}{text}\n{head}{behind}"

"""The results as one document: what is printed is what ``--write`` puts into docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .bench import Measurement

_HEAD = """\
# Benchmarks

What tracing costs and what it loses, beside an untraced run and beside `strace -f -e trace=mprotect`.
This file is written by `python -m benchmarks --write`.

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

LuaJIT, Ruby, PHP and Node are measured if they are installed (Debian: `luajit`, `ruby`, `php-cli`,
`nodejs`).
"""

_REMARKS = """\
## What to keep in mind

- strace prints the call and keeps no memory: its column is the price of watching the same calls, not of
  capturing the same bytes.
- strace stops the target at every call and pays for that, whatever the call's size; memory-tracer pays
  less for the call and something for each page. With many pages in one call strace is the cheaper one:
  it does not look at them.
- A page that is lost costs the target less than one that is captured. A cost is worth comparing only
  where nothing was lost.
- *Unchanged* is the best case of a hot region and *changed* the worst: every page is read, hashed, and
  sent. The code generators above change few pages in each call.
- The tracer runs beside the target. On a machine with two CPUs, or a loaded one, it also takes time from
  the target that a larger machine would not miss.
- The tracepoints that memory-tracer uses slow down system calls of every process while it records: that
  is the bystander's ratio. It ends with the recording. Whatever else traces the machine meanwhile (the
  facts above name it) slows the untraced runs too, and hides a part of that ratio.
- A difference within the spread of its neighbours is noise, negative ones included.
"""


def render(measurements: Sequence[Measurement], facts: Mapping[str, str]) -> str:
    """Return everything as Markdown; ``facts`` are about the machine and the run."""
    listed = "".join(f"- {name}: {value}\n" for name, value in facts.items())
    sections = [_HEAD, "## The machine\n", listed]
    for measurement in measurements:
        sections += [f"## {measurement.title}\n", f"{measurement.method}\n"]
        sections += [f"{table.markdown()}\n" for table in measurement.tables()]
    return "\n".join([*sections, _REMARKS, _REPEAT])

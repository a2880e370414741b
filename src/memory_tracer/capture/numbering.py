"""Numbers for the rows of a table: where columns change, which values are equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: One number per row of a table; -1 stands for none.
Numbers = NDArray[np.int64]


def changes(*columns: NDArray[np.generic]) -> Numbers:
    """Return the rows at which any of ``columns`` differs from the row before; the first always does."""
    changed = np.zeros(len(columns[0]), dtype=np.bool_)
    changed[:1] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changed)


def spread(values: Numbers, heads: Numbers, length: int) -> Numbers:
    """Repeat each value from its head to the next one."""
    return np.repeat(values, np.diff(heads, append=length))


def dense(values: NDArray[np.generic]) -> Numbers:
    """Number the distinct values from 0, in sorted order."""
    numbers: Numbers = np.unique(values, return_inverse=True)[1]
    return numbers


def pair(left: Numbers, right: Numbers) -> Numbers:
    """Return one number for each pair, equal for equal pairs. Both sides are below 2^32."""
    return dense(left << 32 | right)

"""Fewer points that look the same: the least and the most of each stretch stay.

A mean would hide what people look for; a spike of one step stays a spike.
"""

from __future__ import annotations

import numpy as np

from curbcut.web.columns import Column

Places = np.ndarray[tuple[int], np.dtype[np.intp]]


def thinned(values: Column, most: int) -> Places:
    """Places of at most `most` of `values` [points], ascending: first, last, and of each stretch of
    even length the least and the most. `most` >= 4. A NaN is never chosen inside; infinity counts
    as most.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    stretches = (most - 2) // 2
    length = -(-count // stretches)
    rows = -(-count // length)
    padded = np.full(rows * length, np.nan)
    padded[:count] = values
    table = padded.reshape(rows, length)
    missing = np.isnan(table)
    starts = np.arange(rows) * length
    least = starts + np.argmin(np.where(missing, np.inf, table), axis=1)
    most_ = starts + np.argmax(np.where(missing, -np.inf, table), axis=1)
    some = ~missing.all(axis=1)
    chosen = np.concatenate([[0, count - 1], least[some], most_[some]])
    return np.unique(chosen)

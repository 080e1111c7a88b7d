"""The Pareto front: what nothing else beats on every count.

Costs are arrays [rows, counts], less being better. A row is on the front where no other is at most
as costly in each count and less in one; of rows that cost the same, the first one stands for all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

FIRST_BLOCK, LARGEST_BLOCK = 4, 64
"""Rows of a block: the first few beat nearly all others."""
SIEVES = 8
"""Points of a known front that new rows are first held against."""


def front(costs: Floats) -> Rows:
    """Rows on the front, in rising order of row. Rows with an infinite cost are never on it."""
    rows = np.flatnonzero(np.isfinite(costs).all(1))
    if costs.shape[1] == 2:
        return np.sort(rows[_flat_front(costs[rows, 0], costs[rows, 1])])
    return np.sort(rows[_deep_front(costs[rows])])


def _flat_front(first: Floats, second: Floats) -> Rows:
    """Two counts: after sorting by the first, each row that lowers the second (Kung et al. 1975).
    """
    order = np.lexsort((np.arange(len(first)), second, first))
    lowest = np.minimum.accumulate(second[order])
    lowers = np.ones(len(order), bool)
    lowers[1:] = second[order][1:] < lowest[:-1]
    return order[lowers]


def _deep_front(costs: Floats) -> Rows:
    """Any number of counts. Whatever beats a row has a lower sum of ranks, so rows are read in that
    order, block by block: of a block stays what nothing before it beats, and goes what it beats.
    """
    if not len(costs):
        return np.zeros(0, np.int64)
    ranks = [np.unique(column, return_inverse=True)[1].astype(np.int32) for column in costs.T]
    rows = np.argsort(np.sum(ranks, axis=0, dtype=np.int64), kind="stable")
    columns = [rank[rows] for rank in ranks]
    found: list[Rows] = []
    size = FIRST_BLOCK
    while len(rows):
        block = [column[:size] for column in columns]
        kept = ~_beaten_before(block)
        found.append(rows[:size][kept])
        rows, columns = rows[size:], [column[size:] for column in columns]
        better = np.zeros((int(kept.sum()), len(rows)), np.bool_)
        for mine, theirs in zip(columns, block, strict=True):
            better |= mine[None, :] < theirs[kept][:, None]
        left = better.all(0)
        rows, columns = rows[left], [column[left] for column in columns]
        size = min(LARGEST_BLOCK, 2 * size)
    return np.concatenate(found)


def _beaten_before(block: list[NDArray[np.int32]]) -> NDArray[np.bool_]:
    """Which rows of a block an earlier one is at most as costly as in each count."""
    better = np.zeros((len(block[0]), len(block[0])), np.bool_)
    for column in block:
        better |= column[:, None] < column[None, :]
    return np.asarray((~better & np.tri(len(better), k=-1, dtype=bool)).any(1))


def beaten(first: Floats, second: Floats, known: Floats) -> NDArray[np.bool_]:
    """Which rows of two counts some point of `known` [points, 2], a front, strictly beats.

    Exact, and made for many rows of which nearly all are beaten by a few points of the front.
    """
    lost = np.zeros(len(first), bool)
    if not len(known):
        return lost
    order = np.argsort(known[:, 0], kind="stable")
    at, lowest = known[order, 0], np.minimum.accumulate(known[order, 1])
    for i in np.unique(np.linspace(0, len(at) - 1, min(SIEVES, len(at))).astype(int)):
        lost |= (first > at[i]) & (second > lowest[i])
    left = np.flatnonzero(~lost)
    place = np.searchsorted(at, first[left], "right") - 1
    below = np.where(place >= 0, lowest[np.maximum(place, 0)], np.inf)
    earlier = np.where(place >= 0, at[np.maximum(place, 0)], np.inf)
    lost[left] = (below < second[left]) | ((below == second[left]) & (earlier < first[left]))
    return lost

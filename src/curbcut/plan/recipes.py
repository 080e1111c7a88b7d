"""Every recipe of every machine, priced; the best, what it beat and why, and the Pareto front.

Of each layout of the ranks the best is remembered, from which the best of all and the best of each
alternative follow. Blocks are priced by threads (NumPy lets go of the interpreter) and put together
in their own order: the answer does not depend on the clock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from curbcut import units
from curbcut.errors import InputError
from curbcut.plan import pareto
from curbcut.plan.offers import Found, Objective, Offer, Priced, RunnerUp
from curbcut.plan.pricing import spread
from curbcut.plan.space import FREE_NAMES, ROW_NAMES, Block, Floats, nothing_valid
from curbcut.spec.estimate import Estimate

Place = tuple[int, ...]
"""Where in a block: an index along each axis."""
DEGREE_AXES = ("tp", "pp", "cp", "ep", "dp_shard", "virtual_stages")
MOST_THREADS = 8
UNKNOWN_COST = 1e300
"""Stands on the front for money or energy that nobody knows: it never beats one that is known."""
SAME = 1e-9
"""Relative difference below which an alternative is as good as the best, and says least."""


class NothingFits(InputError):
    """No recipe fits the machines' memory; `nearest` lacks least."""

    def __init__(self, nearest: Priced) -> None:
        super().__init__(_lacks(nearest), where=nearest.offer.machine.name,
                         mend="plan with more accelerators, or with ones of more memory")
        self.nearest = nearest


def _lacks(nearest: Priced) -> str:
    assert nearest.peak_bytes.value is not None
    needed, over, room = (units.show(value, "bytes") for value in (
        nearest.peak_bytes.value, nearest.over_bytes, nearest.offer.pricer.room_bytes))
    return (f"nothing fits: the leanest recipe needs {needed} a rank, {over} more than the {room} "
            "to plan with")


@dataclass(frozen=True, eq=False)
class Scan:
    """A priced block, as far as it is remembered."""

    offer: Offer
    block: Block
    fit: int
    score: Floats
    """The least of the objective among what fits, free names x layouts; infinite for none."""
    least: Floats
    """The least peak bytes, of the same shape."""
    unfit: tuple[float, tuple[int, ...]]
    """Objective and place of the best that does not fit."""
    seconds: Floats
    peak: Floats
    places: NDArray[np.int64]
    """Candidates of the Pareto front: step seconds, peak bytes, flat place in the block."""

    def column(self, name: str) -> NDArray[np.float64]:
        """A degree of each layout."""
        return self.block.columns[name][self.block.starts]

    @cached_property
    def extremes(self) -> Mapping[str, tuple[Floats, Floats]]:
        """The least score and the least bytes, by names alone and by layout alone."""
        names = tuple(range(len(FREE_NAMES)))
        return {"names": (self.score.min(-1), self.least.min(-1)),
                "layouts": (self.score.min(names), self.least.min(names))}


def search(offers: Sequence[Offer], objective: Objective = "time", top: int = 6,
           threads: int | None = None) -> Found:
    """Prices every recipe of every offer.

    Raises InputError where no recipe is valid, the machine's rates are not known or those of the
    objective are not, NothingFits where all need more memory than there is.
    """
    usable = [one for one in offers if one.space.count]
    if not usable:
        raise nothing_valid(offers[0].space)
    for one in usable:
        _known(one, objective)
    scans = _scans(usable, objective, threads)
    spots = _front(scans)
    if not spots:
        raise NothingFits(_leanest(scans))
    front = [_priced(*spot) for spot in spots]
    scan, place = min(zip(spots, front, strict=True), key=lambda pair: _order(
        pair[1], objective))[0]
    best = _priced(scan, place)
    empty = tuple((one.machine.name, nothing_valid(one.space).what) for one in offers
                  if one not in usable)
    return Found(objective, sum(scan.block.count for scan in scans),
                 sum(scan.fit for scan in scans), best,
                 tuple(_runners_up(scans, scan, place, best, objective)[:top]), tuple(front), empty)


def fastest(one: Offer, threads: int | None = None) -> Priced:
    """The fastest recipe of an offer that fits, alone: neither runners-up nor a front.

    Raises as `search` does.
    """
    if not one.space.count:
        raise nothing_valid(one.space)
    _known(one, "time")
    scans = [_scan(one, block, "time", None, front=False) for block in one.space.blocks] \
        if threads == 1 else _scans([one], "time", threads)
    scan = min(scans, key=lambda each: float(each.score.min()))
    if not np.isfinite(scan.score.min()):
        raise NothingFits(_leanest(scans))
    return _priced(scan, _row(scan, _least_at(scan.score), "time"))


def _order(one: Priced, objective: Objective) -> tuple[float, float]:
    assert one.seconds.value is not None and one.peak_bytes.value is not None
    if objective == "memory":
        return one.peak_bytes.value, one.seconds.value
    return one.seconds.value * one.offer.rate(objective), one.peak_bytes.value


def _known(one: Offer, objective: Objective) -> None:
    """Raises InputError where a figure that decides is not known."""
    if one.rate(objective) == float("inf"):
        source = one.usd.source if objective == "money" else one.kwh.source
        raise InputError(f"the {objective} of {one.machine.name} is not known: {source}",
                         where="--objective", mend="choose time or memory")
    step = one.pricer.step(one.space.blocks[0].recipe((0,) * (len(FREE_NAMES) + 1)))
    if step.value is None:
        raise InputError(f"no time on {one.machine.name} can be given: {step.source}",
                         where="machine", mend="set machine.peak_flops, or run `curbcut doctor` on "
                         "it")


def _scans(offers: Sequence[Offer], objective: Objective, threads: int | None) -> list[Scan]:
    own = threading.local()
    jobs = [(one, block) for one in offers for block in one.space.blocks]

    def work(job: tuple[Offer, Block]) -> Scan:
        fronts = own.__dict__.setdefault("fronts", {})
        scan = _scan(*job, objective, fronts.get(id(job[0])))
        known = fronts.get(id(job[0]), np.zeros((0, 2)))
        both = np.concatenate([known, np.column_stack([scan.seconds, scan.peak])])
        fronts[id(job[0])] = both[pareto.front(both)]
        return scan

    many = threads or max(1, min(MOST_THREADS, os.cpu_count() or 1))
    if many == 1 or len(jobs) == 1:
        return [work(job) for job in jobs]
    with ThreadPoolExecutor(many) as pool:
        return list(pool.map(work, jobs))


def _scan(one: Offer, block: Block, objective: Objective, known: Floats | None, *,
          front: bool = True) -> Scan:
    seconds, peak = (spread(values, block) for values in one.pricer.block(block))
    fits = peak <= one.pricer.room_bytes
    score = peak if objective == "memory" else seconds * one.rate(objective)
    inside = np.where(fits, score, np.inf)
    outside = np.where(fits, np.inf, score)
    worst = np.unravel_index(int(np.argmin(outside)), block.shape)
    places = _candidates(seconds, peak, fits, known) if front else np.zeros(0, np.int64)
    return Scan(one, block, int(np.count_nonzero(fits)),
                np.minimum.reduceat(inside, block.starts, -1),
                np.minimum.reduceat(peak, block.starts, -1),
                (float(outside[worst]), tuple(map(int, worst))),
                seconds.reshape(-1)[places], peak.reshape(-1)[places], places)


def _candidates(seconds: Floats, peak: Floats, fits: NDArray[np.bool_],
                known: Floats | None) -> NDArray[np.int64]:
    """Flat places of a block's own Pareto front, without what a known front beats."""
    if known is not None and len(known):
        # One point of the front beats nearly all: the rest is held against all of it.
        middle = known[len(known) // 2]
        fits = fits & ((seconds <= middle[0]) | (peak <= middle[1]))
    places = np.flatnonzero(fits)
    first, second = seconds.reshape(-1)[places], peak.reshape(-1)[places]
    if known is not None:
        keep = ~pareto.beaten(first, second, known)
        places, first, second = places[keep], first[keep], second[keep]
    return places[pareto.front(np.column_stack([first, second]))]


def _priced(scan: Scan, place: Place) -> Priced:
    recipe, pricer = scan.block.recipe(place), scan.offer.pricer
    return Priced(scan.offer, recipe, pricer.step(recipe), pricer.peak(recipe),
                  pricer.groups(recipe))


def _front(scans: Sequence[Scan]) -> list[tuple[Scan, Place]]:
    """Spots on the front of time, money, energy and memory, fastest first."""
    spots: list[tuple[Scan, Place]] = []
    costs = [np.zeros((0, 4))]
    for one in dict.fromkeys(scan.offer for scan in scans):
        mine = [scan for scan in scans if scan.offer is one]
        both = np.concatenate([np.column_stack([s.seconds, s.peak]) for s in mine])
        owners = [(s, place) for s in mine for place in s.places]
        for row in pareto.front(both):
            scan, flat = owners[row]
            spots.append((scan, tuple(map(int, np.unravel_index(int(flat), scan.block.shape)))))
            costs.append(np.array([[both[row, 0], _cost(both[row, 0], one.usd),
                                    _cost(both[row, 0], one.kwh), both[row, 1]]]))
    table = np.concatenate(costs)
    # A count that nobody knows of any offer is the same of all: it decides nothing.
    return [spots[row] for row in sorted(pareto.front(table), key=lambda row: table[row, 0])]


def _cost(seconds: float, rate: Estimate) -> float:
    """What the seconds cost; more than anything where the rate is not known, but still finite."""
    return UNKNOWN_COST if rate.value is None else float(seconds * rate.value)


def _leanest(scans: Sequence[Scan]) -> Priced:
    scan = min(scans, key=lambda one: float(one.least.min()) / one.offer.pricer.room_bytes)
    return _priced(scan, _row(scan, _least_at(scan.least), "memory", fits=False))


def _least_at(values: Floats) -> Place:
    return tuple(map(int, np.unravel_index(int(np.argmin(values)), values.shape)))


def _row(scan: Scan, at: Place, objective: Objective, *, fits: bool = True) -> Place:
    """The best row of the layout that `at` (free names, layout) means."""
    *free, layout = at
    first, last = _rows(scan, layout)
    seconds, peak = _of(scan, tuple(free), first, last)
    score = peak if objective == "memory" else seconds
    if fits:
        score = np.where(peak <= scan.offer.pricer.room_bytes, score, np.inf)
    return (*free, int(first + np.argmin(score)))


def _rows(scan: Scan, layout: int) -> tuple[int, int]:
    """First row of a layout, and the one after its last."""
    ends = [*scan.block.starts[1:], len(scan.block.columns["tp"])]
    return int(scan.block.starts[layout]), int(ends[layout])


def _of(scan: Scan, free: Place, first: int, last: int) -> tuple[Floats, Floats]:
    """Seconds and peak bytes of some rows under one of each free name."""
    part = scan.block.part(free, first, last)
    seconds, peak = scan.offer.pricer.block(part)
    return seconds.reshape(-1), peak.reshape(-1)


def _runners_up(scans: Sequence[Scan], scan: Scan, place: Place, best: Priced,
                objective: Objective) -> list[RunnerUp]:
    """The best of each alternative, and the fastest that does not fit; nearest to the best first.
    """
    found: dict[tuple[int, object], tuple[list[str], Priced]] = {}
    for axis in ("machine", *FREE_NAMES, *ROW_NAMES, *DEGREE_AXES):
        spot = _alternative(scans, scan, place, axis, objective)
        if spot is not None:
            one = _priced(*spot)
            found.setdefault((id(one.offer), one.recipe), ([], one))[0].append(axis)
    for axis in ("micro_batch", "sequence_parallel"):
        beside = _beside(scan, place, axis, objective)
        if beside is not None:
            one = _priced(scan, beside)
            found.setdefault((id(one.offer), one.recipe), ([], one))[0].append(axis)
    ups = [RunnerUp(" and ".join(axes), one) for axes, one in found.values()]
    worst = min(scans, key=lambda one: one.unfit[0])
    if worst.unfit[0] < _order(best, objective)[0]:
        ups.append(RunnerUp("memory", _priced(worst, worst.unfit[1])))
    mine = _order(best, objective)[0]

    def rank(up: RunnerUp) -> tuple[bool, bool, bool, tuple[float, float]]:
        score = _order(up.priced, objective)
        return (up.differs not in ("memory", "machine"), up.priced.over_bytes > 0,
                score[0] <= mine * (1 + SAME), score)

    return sorted(ups, key=rank)


def _alternative(scans: Sequence[Scan], best: Scan, place: Place, axis: str,
                 objective: Objective) -> tuple[Scan, Place] | None:
    """The best that differs from `best` along `axis`: what fits, else what lacks least memory."""
    along = "names" if axis in FREE_NAMES else "layouts"
    winners: list[tuple[float, float, int]] = []
    for i, scan in enumerate(scans):
        flags = _differs(scan, best, place, axis)
        if flags is None or not flags.any():
            continue
        score, least = scan.extremes[along]
        if np.isfinite(least[flags].min()):
            winners.append((float(score[flags].min()), float(least[flags].min()), i))
    if not winners:
        return None
    score_won, _, i = min(winners)
    fits = score_won < np.inf
    if not fits:
        _, i = min((least, i) for _, least, i in winners)
    scan = scans[i]
    flags = _differs(scan, best, place, axis)
    assert flags is not None
    flags = flags[..., None] if along == "names" else flags
    at = _least_at(np.where(flags, scan.score if fits else scan.least, np.inf))
    return scan, _row(scan, at, objective if fits else "memory", fits=fits)


def _differs(scan: Scan, best: Scan, place: Place, axis: str) -> NDArray[np.bool_] | None:
    """Which free names, or for other axes which layouts, differ from the best along `axis`."""
    if axis == "machine":
        return None if scan.offer is best.offer else np.ones(len(scan.block.starts), bool)
    if scan.offer is not best.offer:
        return None
    if axis in FREE_NAMES:
        i = FREE_NAMES.index(axis)
        sizes = scan.score.shape[:-1]
        return np.asarray(np.indices(sizes, np.int8)[i] != place[i], bool)
    mine = {name: column[place[-1]] for name, column in best.block.columns.items()}
    if axis in ROW_NAMES:
        degree = {"shard": "dp_shard", "pipeline": "pp", "context": "cp"}[axis]
        if mine[degree] == 1 or scan.block.names[axis] == best.block.names[axis]:
            return None
        return np.asarray(scan.column(degree) > 1, bool)
    if axis == "virtual_stages" and not (mine[axis] > 1
                                         and scan.block.names["pipeline"] == "interleaved"):
        return None
    return np.asarray(scan.column(axis) != mine[axis], bool)


def _beside(scan: Scan, place: Place, axis: str, objective: Objective) -> Place | None:
    """The best row of the same layout and names that differs along a column."""
    layout = int(np.searchsorted(scan.block.starts, place[-1], "right")) - 1
    first, last = _rows(scan, layout)
    column = scan.block.columns[axis]
    others = column[first:last] != column[place[-1]]
    if not others.any():
        return None
    seconds, peak = _of(scan, place[:-1], first, last)
    if not np.isfinite(peak[others]).any():
        return None
    fits = others & (peak <= scan.offer.pricer.room_bytes)
    score = seconds if objective != "memory" and fits.any() else peak
    held = fits if fits.any() else others
    return (*place[:-1], int(first + np.argmin(np.where(held, score, np.inf))))

"""What is kept between questions changes no answer; fronts are those of the definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from curbcut.plan import pareto
from curbcut.plan.backwards.answer import backwards
from curbcut.plan.backwards.drafts import Wish
from curbcut.plan.backwards.kept import MOST, Kept
from curbcut.report.backwards import as_plain
from curbcut.spec import codec
from curbcut.spec.draft import Draft

KEPT = Kept()
FLEETS = ("1xA40", "8xH100")


def asked(**limits):
    return Draft().with_raw({"limits": limits}, "test")


@settings(max_examples=4, deadline=None)
@given(st.floats(0.5, 6.5), st.sampled_from(["money", "kwh"]))
def test_what_is_kept_changes_no_answer(power, limit):
    draft = asked(**{limit: f"{10 ** power:.4g} {'USD' if limit == 'money' else 'kWh'}"})
    wish = Wish(names=FLEETS)
    kept, fresh = backwards(draft, wish, kept=KEPT), backwards(draft, wish)
    assert as_plain(kept) == as_plain(fresh)
    assert codec.plain(kept.best.account) == codec.plain(fresh.best.account)
    assert kept.best.resolved == fresh.best.resolved


def test_only_so_many_are_kept():
    kept, made = Kept(), []

    def make():
        made.append(1)
        return []

    for i in range(MOST["fleets"] + 1):
        kept.fleets(i, make)
    kept.fleets(MOST["fleets"], make)
    assert len(made) == MOST["fleets"] + 1
    kept.fleets(0, make)
    assert len(made) == MOST["fleets"] + 2


@given(arrays(np.float64, st.tuples(st.integers(0, 90), st.integers(3, 5)),
              elements=st.sampled_from([0.0, 1.0, 2.0, 3.5, 7.0, np.inf])))
def test_a_deep_front_is_what_nothing_beats(costs):
    def beats(i, j):
        no_worse = (costs[i] <= costs[j]).all()
        return no_worse and ((costs[i] < costs[j]).any() or i < j)

    rows = [j for j in range(len(costs)) if np.isfinite(costs[j]).all()]
    wanted = [j for j in rows if not any(beats(i, j) for i in rows if i != j)]
    assert pareto.front(costs).tolist() == wanted


def test_a_large_front_is_found_whole():
    draws = np.random.default_rng(3).normal(size=(3000, 5))
    found = pareto.front(draws)
    for j in found[::50]:
        assert not ((draws <= draws[j]).all(1) & (draws < draws[j]).any(1)).any()
    lost = np.setdiff1d(np.arange(len(draws)), found)
    assert all(((draws[found] <= draws[j]).all(1)).any() for j in lost[::20])

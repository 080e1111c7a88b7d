"""Levers together: damping, exclusion, order, units, intervals and evidence."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.facts import currency, table
from curbcut.facts import levers as facts
from curbcut.plan.levers import price
from curbcut.plan.levers.case import Aim, Case, Factor, Lever, Refusal, published
from curbcut.plan.levers.catalogue import TRAINING, chosen
from curbcut.plan.levers.serving import SERVING
from curbcut.plan.levers.waterfall import LEAST_SHARE, waterfall
from curbcut.spec.methods import CATALOGUE
from plan.plan_lever_samples import fleet

EVERY = (*TRAINING, *SERVING)
METHODS = {one.name: one for one in CATALOGUE}
GAINS = st.floats(1.001, 9.0)
UNITS = ("usd", "kwh", "kg", "hours", "litres")


def on_tokens(name, gain, **more):
    """A lever that takes so many times fewer tokens."""
    return Lever(name, "training algorithms", lambda case, _: case.with_factor(
        Factor(name, "tokens", gain, 1.0, gain)), **more)


def on_step(name, gain, **more):
    """A lever whose steps are so many times faster."""
    return Lever(name, "data formats", lambda case, _: case.with_factor(
        Factor(name, "step", gain, gain, gain)), **more)


# Factors on one resource.

@settings(max_examples=25, deadline=None)
@given(gains=st.lists(GAINS, min_size=1, max_size=5))
def test_each_gain_after_the_first_counts_half_as_a_logarithm(gains):
    case = Case(fleet())
    for i, gain in enumerate(gains):
        case = case.with_factor(Factor(f"g{i}", "tokens", gain, 1.0, gain))
    wanted = math.log(gains[0]) + sum(map(math.log, gains[1:])) / 2
    assert math.log(case.product("tokens", {})) == pytest.approx(wanted)
    for one, gain in zip(case.factors[1:], gains[1:], strict=True):
        assert (one.low, one.value, one.high) == pytest.approx((1.0, math.sqrt(gain), gain))


@settings(max_examples=25, deadline=None)
@given(losses=st.lists(st.floats(0.3, 0.999), min_size=2, max_size=4), gain=GAINS)
def test_losses_are_never_damped_and_do_not_damp_a_gain(losses, gain):
    case = Case(fleet())
    for i, loss in enumerate(losses):
        case = case.with_factor(Factor(f"l{i}", "tokens", loss, 0.1, 1.0))
    case = case.with_factor(Factor("g", "tokens", gain, 1.0, gain))
    assert case.product("tokens", {}) == pytest.approx(math.prod(losses) * gain)


@settings(max_examples=25, deadline=None)
@given(gain=GAINS, low=st.floats(0.2, 1.0), wide=st.floats(1.0, 3.0))
def test_a_second_gain_may_be_nothing_or_all_of_itself(gain, low, wide):
    after = Factor("x", "tokens", gain, low, gain * wide).on_top()
    assert after.low == min(1.0, low) and after.high == gain * wide
    assert after.low <= after.value == math.sqrt(gain) <= after.high
    assert after.key == "x.tokens"


@settings(max_examples=10, deadline=None)
@given(gain=GAINS)
def test_a_faster_step_is_less_time_for_steps_alone(gain):
    before = Case(fleet())
    after = before.with_factor(Factor("x", "step", gain, gain, gain)).sheet()
    plain = before.sheet()
    assert after.value("seconds.steps") == pytest.approx(plain.value("seconds.steps") / gain)
    assert after.value("loss.bits_per_byte") == plain.value("loss.bits_per_byte")
    assert after.value("seconds.total") > plain.value("seconds.total") / gain


@settings(max_examples=15, deadline=None)
@given(low=st.floats(0.0, 1.0), high=st.floats(0.0, 1.0))
def test_moved_factors_are_those_named_alone(low, high):
    case = Case(fleet()).with_factor(published("data-quality")).with_factor(
        published("hyperparameter-transfer", "search"))
    factor = 1.0 + 5 * low
    assert case.product("tokens", {"data-quality.tokens": factor}) == factor
    assert case.product("search", {"data-quality.tokens": factor}) == 2.0
    assert case.product("tokens", {"data-quality.search": 1 + high}) == 1.37


def test_tokens_never_fall_below_one_step():
    case = Case(fleet()).with_factor(Factor("x", "tokens", 1e9, 1.0, 1e9))
    assert case.realised().train.tokens == case.run.recipe.step_tokens


def test_the_best_of_some_cases_is_the_first_of_equals_and_none_of_none():
    cases = [Case(fleet(), changed=(name,)) for name in "abc"]
    values = dict(zip("abc", (2.0, 1.0, 1.0), strict=True))
    aim = Aim(price.unit("usd"), lambda case: values[case.changed[0]])
    assert aim.best(cases).changed == ("b",)
    assert aim.best([]) is None
    assert Aim(price.unit("usd"), lambda _: math.inf).best(cases) is None


# The order and what excludes each other.

@settings(max_examples=10, deadline=None)
@given(gains=st.lists(st.floats(1.2, 4.0), min_size=2, max_size=4, unique=True))
def test_faster_steps_are_taken_from_large_to_small(gains):
    names = ("compile", "fp8", "mxfp8", "nvfp4")[:len(gains)]
    found = waterfall(fleet(), [on_step(name, gain) for name, gain in zip(
        names, gains, strict=True)], price.unit("hours"))
    by_gain = [name for _, name in sorted(zip(gains, names, strict=True), reverse=True)]
    assert [one.name for one in found.steps] == by_gain
    assert sum(one.marginal.value for one in found.steps) == pytest.approx(
        found.start.value - found.end.value)


def test_of_levers_that_exclude_each_other_the_best_is_taken_and_the_rest_say_for_whom():
    some = [on_step("fp8", 1.5, excludes="narrow"), on_step("mxfp8", 2.5, excludes="narrow"),
            on_step("compile", 1.2)]
    found = waterfall(fleet(), some, price.unit("usd"))
    assert [one.name for one in found.steps] == ["mxfp8", "compile"]
    left = next(one for one in found.results if one.name == "fp8")
    assert (left.status, left.reason) == ("left", "instead of it: mxfp8")
    assert left.alone.value > 0


def test_what_saves_after_none_but_alone_is_left():
    once = Lever("growth", "training algorithms", lambda case, _: Refusal("spent")
                 if case.factors else case.with_factor(Factor("growth", "tokens", 1.5, 1.0, 1.5)))
    found = waterfall(fleet(), [on_step("compile", 3.0), once], price.unit("usd"))
    last = found.results[-1]
    assert (last.status, last.reason) == ("left", "saves nothing after the others")


def test_what_costs_is_shown_after_what_does_not_apply_is_not():
    some = [on_step("fp8", 0.8), Lever("spot", "buying and place", lambda *_: Refusal("no")),
            Lever("offload", "supercomputing optimisation",
                  lambda *_: Refusal("large", fits=False)), on_step("compile", 1.0)]
    found = waterfall(fleet(), some, price.unit("usd"))
    assert found.steps == ()
    assert [one.status for one in found.results] == ["costs", "no change", "does not fit",
                                                     "not here"]
    assert found.results[0].alone.value < 0 and found.results[-1].alone is None


@pytest.mark.parametrize(("gain", "status"), [
    (1 / (1 - 5 * LEAST_SHARE), "taken"), (1 / (1 - LEAST_SHARE / 2), "no change")])
def test_a_saving_must_be_worth_naming(gain, status):
    found = waterfall(fleet(), [on_step("compile", gain)], price.unit("hours"))
    assert found.results[0].status == status


def test_levers_are_independent_of_the_order_that_they_are_named_in():
    some = chosen(["fp8", "compile", "spot", "data-quality", "better-building"])
    found = [waterfall(fleet(), order, price.unit("kwh")) for order in (some, some[::-1])]
    assert [one.name for one in found[0].steps] == [one.name for one in found[1].steps]
    assert found[0].end == found[1].end


@settings(max_examples=10, deadline=None)
@given(picked=st.lists(st.sampled_from(
    ["compile", "fp8", "data-quality", "growth", "spot", "cheapest-provider", "power-cap",
     "better-building", "place", "early-stopping"]), min_size=1, max_size=6, unique=True),
    name=st.sampled_from(UNITS))
def test_more_levers_never_end_higher_and_no_step_raises(picked, name):
    run, wanted = fleet(), price.unit(name)
    fewer = waterfall(run, chosen(picked[:-1]) if picked[:-1] else (), wanted)
    more = waterfall(run, chosen(picked), wanted)
    assert more.start == fewer.start
    assert more.end.value <= more.start.value
    for one, other in itertools.pairwise(more.steps):
        assert one.after == other.before
    for one in more.steps:
        assert one.after < one.before
        assert one.marginal.value == pytest.approx(one.before - one.after)
    for one in more.results:
        for figure in (one.alone, one.alone_share, one.marginal):
            assert figure is None or figure.low <= figure.value <= figure.high


# Units.

def test_a_currency_changes_what_people_read_and_no_figure():
    usd, eur = price.unit("usd"), price.unit("eur")
    assert (eur.name, eur.currency, eur.keys) == ("EUR", "EUR", usd.keys)
    some = chosen(["compile", "spot"])
    first, second = (waterfall(fleet(), some, one) for one in (usd, eur))
    assert first.end == second.end and second.unit.currency == "EUR"
    for code in currency.codes():
        assert price.unit(code.lower()).currency == code


@pytest.mark.parametrize(("name", "key", "dimension"), [
    ("usd", "usd.project", "usd"), ("kwh", "kwh.project", "kwh"),
    ("kg", "kgco2e.project", "kgco2e"), ("hours", "seconds.total", "seconds"),
    ("litres", "litres.water", "litres")])
def test_each_unit_counts_its_figure_of_the_plan(name, key, dimension):
    case, wanted = Case(fleet()), price.unit(name)
    found = price.priced(case, wanted)
    assert (found.key, wanted.dimension) == (key, dimension)
    assert found.value == case.sheet().value(key)
    assert found.estimate.contains(found.value)
    assert found.seconds == case.sheet().value("seconds.total")


@pytest.mark.parametrize(("short", "name"), [("h", "hours"), ("L", "litres"), ("water", "litres"),
                                             (" USD ", "usd"), ("co2", None)])
def test_units_have_short_names(short, name):
    if name is None:
        with pytest.raises(price.UnknownName):
            price.unit(short)
    else:
        assert price.unit(short).name == name


def test_water_follows_energy():
    wanted = [price.unit(one) for one in ("kwh", "litres")]
    case = Case(fleet())
    cooler = case.with_place(pue=1.1)
    kwh, litres = (price.saved_share(price.priced(case, one), price.priced(cooler, one)).value
                   for one in wanted)
    assert kwh > 0 and litres > 0


# Evidence.

@pytest.mark.parametrize("lever", EVERY, ids=lambda one: one.name)
def test_every_lever_is_a_method_with_words_and_its_evidence_has_conditions(lever):
    method = METHODS[lever.name]
    assert method.what and lever.group
    rows = facts.evidence(lever.name)
    assert method.gain == "; ".join(one.quote for one in rows)
    for row in rows:
        assert row.source in method.source and row.date and row.quote
        assert row.resource in facts.RESOURCES
        if row.factor is not None:
            assert row.low <= row.factor <= row.high and row.low > 0
    priced_rows = [one for one in rows if one.prices]
    assert len(priced_rows) <= 1
    for row in priced_rows:
        assert row.factor is not None and facts.pricing(lever.name) == row


def test_a_row_that_prices_is_of_a_lever():
    names = {one.name for one in EVERY}
    assert {row.lever for row in facts.rows() if row.prices} <= names


def test_ones_own_evidence_prices_a_lever_in_ours_place(tmp_path, monkeypatch):
    header = (table.OURS / "levers.csv").read_text().splitlines()[0]
    row = ('growth,tokens,2.5,2.0,3.0,"2.5 x on our own data",from scratch,2026,1B,to equal loss,'
           "end-to-end,yes,our ledger,2026-11-01")
    (tmp_path / "levers.csv").write_text(f"{header}\n{row}\n")
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path))
    assert (published("growth").value, published("growth").low) == (2.5, 2.0)
    assert "our own data" in METHODS["growth"].gain
    assert published("data-quality").value == 1.37


def test_a_row_of_no_lever_is_named_with_the_nearest(tmp_path, monkeypatch):
    header = (table.OURS / "levers.csv").read_text().splitlines()[0]
    row = 'grwoth,tokens,2.5,2.0,3.0,"x",,2026,,,claim,yes,our ledger,2026-11-01'
    (tmp_path / "levers.csv").write_text(f"{header}\n{row}\n")
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path))
    with pytest.raises(price.UnknownName, match="growth"):
        chosen([])

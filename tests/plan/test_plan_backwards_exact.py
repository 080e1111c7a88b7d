from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.errors import InputError
from curbcut.plan.backwards.answer import backwards
from curbcut.plan.backwards.drafts import Wish
from curbcut.plan.backwards.exact import exact, spent
from curbcut.plan.backwards.question import parse_traffic
from curbcut.plan.backwards.solve import solve
from curbcut.plan.forecast import forecast
from curbcut.plan.resolve import resolve
from curbcut.spec.draft import Draft, load
from curbcut.spec.estimate import given
from curbcut.spec.nouns import ServeJob
from curbcut.spec.toml import dumps
from plan.backwards_samples import DAY, choices, limited, machine
from plan.plan_samples import CPU

SMALL = Wish(names=("1xH100", "8xH100", "4xA100"))


def draft(**tables):
    return Draft().with_raw(tables, "test")


def answer(wish=SMALL, here=None, **tables):
    return backwards(draft(**tables), wish, here=here)


def test_the_found_plan_keeps_every_limit_by_its_own_forecast_and_wastes_little():
    limits = {"money": "200 EUR", "kwh": "300 kWh", "kgco2e": "60 kg", "seconds": "3 d"}
    found = answer(limits=limits)
    account = forecast(found.best.resolved.run)
    shares = [value / found.question.limits[name] for name, value in spent(account).items()]
    assert max(shares) <= 0.85 * (1 + 1e-6)
    assert max(shares) > 0.83
    assert account == found.best.account


@pytest.mark.parametrize("tables", [
    {"limits": {"money": "30 USD"}}, {"limits": {"kwh": "20 kWh"}},
    {"limits": {"seconds": "90 min"}}, {"limits": {"kgco2e": "3 kg"}},
    {"limits": {"money": "30 USD"}, "train": {"text_bytes": "100 MB"}}])
def test_what_is_written_plans_to_the_same_account(tables, tmp_path):
    found = answer(**tables)
    file = tmp_path / "run.toml"
    file.write_text(dumps(found.best.resolved))
    again = resolve(load(file))
    assert again.run == found.best.resolved.run
    assert forecast(again.run) == found.best.account


def test_more_money_ends_in_a_lower_loss():
    losses = [answer(limits={"money": f"{usd} USD"}).best.bits for usd in (3, 30, 300)]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 3


def test_the_exact_plan_is_no_worse_than_the_coarse_one():
    solution = solve(choices(limited(usd=100.0)))
    one = exact(draft(machine={"name": solution.choices.machine(solution.row).name},
                      place={"zone": "FRA"}, limits={"money": "100 USD", "seconds": "30 d"}),
                solution.choices, solution.row, float(solution.tokens[solution.row]))
    assert one.priced > 0
    assert one.bits <= solution.score[solution.row] * 1.002


@pytest.mark.parametrize("usd", [2.0, 60.0])
def test_no_row_near_the_best_is_better_when_all_are_searched_exactly(usd):
    names = ("1xH100", "4xA100")
    found = answer(Wish(names=names), limits={"money": f"{usd} USD"})
    solution, lowest = found.solution, found.best.bits
    near = [int(row) for row in (solution.score <= 1.02 * solution.score.min()).nonzero()[0]]
    pairs = {(solution.choices.machine(row).name, solution.choices.shape(row)): row
             for row in sorted(near, key=lambda row: -solution.score[row])}
    assert len(pairs) > 2
    for (name, _), row in pairs.items():
        one = exact(draft(machine={"name": name}, limits={"money": f"{usd} USD"}),
                    solution.choices, row, float(solution.tokens[row]))
        lowest = min(lowest, one.bits)
    assert found.best.bits <= 1.004 * lowest


def test_a_wanted_loss_is_reached_for_the_least_money():
    found = answer(limits={"loss": 0.95})
    assert found.best.bits <= 0.95
    assert found.best.bits == pytest.approx(0.95, rel=0.01)
    assert found.binds[0] == "loss"
    dearer = answer(limits={"loss": 0.90})
    usd = [one.best.account.usd["total"].value for one in (found, dearer)]
    assert usd[1] > 1.3 * usd[0]
    assert found.best.resolved.run.limits.loss == 0.95


def test_everything_that_the_plan_chose_says_so():
    found = answer(limits={"money": "20 EUR"})
    origins = found.best.resolved.origins
    for key in ("model.layers", "machine.name", "train.tokens", "recipe.dp_shard",
                "limits.seconds", "place.currency"):
        assert origins[key].startswith("plan: "), key
    assert origins["limits.money"] == "test"
    assert found.best.resolved.run.limits.seconds == 30 * DAY
    assert found.best.resolved.run.place.currency == "EUR"
    alone = answer(Wish(names=("1xA100",)), limits={"money": "20 EUR"})
    assert alone.best.resolved.run.machine.name == "1xa100-sxm-80gb"


def test_a_model_that_was_given_is_kept_and_its_machine_chosen():
    found = answer(model={"preset": "Qwen3-0.6B"}, limits={"money": "50 USD"})
    assert found.best.resolved.run.model.layers == 28
    assert len(found.solution.choices.shapes) == 1


def test_fields_that_were_given_are_kept():
    found = answer(limits={"money": "20 USD"}, model={"vocab": 8192},
                   recipe={"optimiser": "adamw", "sequence_tokens": 1024})
    run = found.best.resolved.run
    assert (run.model.vocab, run.recipe.optimiser, run.recipe.sequence_tokens) == (
        8192, "adamw", 1024)


def test_here_is_planned_by_its_own_rules():
    found = answer(Wish(names=("here",), experts=False), here=CPU,
                   limits={"kwh": "1 kWh", "seconds": "1 h"})
    run = found.best.resolved.run
    assert run.machine == CPU and run.place.tenure == "own"
    assert found.best.account.seconds["total"].value <= 0.85 * 3600 * (1 + 1e-9)
    assert not run.model.experts


def test_serving_and_the_project_leave_a_run_its_share():
    traffic = parse_traffic("1e7tok/day", replace(ServeJob(), months=0.2))
    found = answer(replace(SMALL, traffic=traffic), limits={"money": "1000 USD"})
    run = found.best.resolved.run
    assert found.serving["usd"] > 0
    assert run.limits.money.amount == pytest.approx(1000 - found.serving["usd"])
    assert found.spent["usd"] <= 850 * (1 + 1e-6)
    assert run.serve.months == 0.2
    half = answer(replace(SMALL, multiplier=given(2.0, "test")), limits={"money": "1000 USD"})
    assert half.best.resolved.run.limits.money.amount == pytest.approx(500)
    assert "share of 1,000 USD" in half.best.resolved.origins["limits.money"]


def test_the_place_and_the_contract_may_be_chosen():
    found = answer(Wish(names=("1xH100",), any_zone=True, contracts=("on-demand", "spot")),
                   limits={"money": "20 USD"})
    run = found.best.resolved.run
    assert run.place.contract == "spot"
    stays = answer(Wish(names=("1xH100",)), limits={"money": "20 USD"}, place={"zone": "POL"})
    assert stays.best.resolved.run.place.zone == "POL"
    cleaner, dirtier = (one.best.account.kgco2e["operational"].value / one.best.account.kwh[
        "facility"].value for one in (found, stays))
    assert cleaner < dirtier / 5


@pytest.mark.parametrize(("tables", "said"), [
    ({"limits": {"money": "1e-6 USD"}}, "smallest feasible budget is"),
    ({"limits": {"loss": 0.2}}, "no budget reaches it"),
    ({"limits": {"loss": 0.8, "money": "1 USD"}}, "it takes at least"),
    ({"limits": {"money": "5 USD"}, "train": {"text_bytes": 1000}}, "the text is too short"),
    ({"limits": {"money": "5 USD"}, "model": {"preset": "Llama-3-70B"}}, "larger ones")])
def test_what_cannot_be_says_what_could(tables, said):
    with pytest.raises(InputError) as caught:
        answer(Wish(names=("1xH100",)), **tables)
    assert said in str(caught.value)


def test_the_smallest_budget_that_is_named_is_feasible():
    with pytest.raises(InputError) as caught:
        answer(limits={"money": "0.00001 EUR"})
    amount = str(caught.value).partition("feasible budget is ")[2].partition(" EUR")[0]
    assert answer(limits={"money": f"{amount} EUR"}).best.tokens > 0


def test_a_machine_without_a_price_is_refused_for_money_alone():
    with pytest.raises(InputError, match="no price"):
        answer(Wish(names=("1xGB300",)), limits={"money": "5 USD"})
    assert machine("1xGB300").accelerators == 1
    assert answer(Wish(names=("1xGB300",)), limits={"kwh": "5 kWh"}).best.tokens > 0


@pytest.mark.parametrize(("limits", "name", "tenth_more"), [
    ({"money": "50 USD"}, "usd", {"money": "55 USD"}),
    ({"money": "400 USD"}, "usd", {"money": "440 USD"}),
    ({"money": "400 USD", "kwh": "30 kWh"}, "kwh", {"money": "400 USD", "kwh": "33 kWh"}),
    ({"money": "400 USD", "kwh": "30 kWh"}, "usd", {"money": "440 USD", "kwh": "30 kWh"}),
    ({"seconds": "5 h"}, "seconds", {"seconds": "5.5 h"})])
def test_a_tenth_more_saves_what_its_shadow_price_says_when_all_is_solved_again(
        limits, name, tenth_more):
    before, after = answer(limits=limits), answer(limits=tenth_more)
    said = next(one.tenth for one in before.shadows if one.name == name)
    assert before.best.bits - after.best.bits == pytest.approx(said, rel=0.25, abs=2e-4)

from __future__ import annotations

from dataclasses import replace

import pytest

from curbcut.plan.calibration import corrected, correction
from curbcut.plan.forecast import forecast
from curbcut.spec import Account, modelled
from plan.plan_samples import CPU, pair
from tiny import tiny_run

RUN = tiny_run(machine=CPU, recipe={"precision": "bf16"})


def slower(found, run=RUN):
    return found.of_step(run.model, run.recipe, run.machine)


def test_nothing_measured_corrects_nothing():
    found = correction(CPU, "bf16", ())
    assert slower(found) is None
    assert found.constants() == {}
    assert found.memory_factor == 1.0
    assert forecast(RUN) == forecast(RUN, ())


def test_measured_ratios_move_time_and_memory_and_a_sick_run_does_not():
    pairs = [pair(RUN, ratio, 1.2) for ratio in (1.4, 1.5, 9.0)]
    found = correction(CPU, "bf16", pairs)
    assert slower(found).value == pytest.approx(1.5, rel=0.05)
    assert found.of_peak(RUN.model, RUN.recipe, "cpu").value == pytest.approx(1.2, rel=0.02)
    assert found.memory_factor == pytest.approx(1.2, rel=0.02)
    before, after = forecast(RUN), forecast(RUN, pairs)
    assert after.seconds["steps"].value == pytest.approx(
        slower(found).value * before.seconds["steps"].value)
    assert after.memory_bytes["peak"].value == pytest.approx(
        found.memory_factor * before.memory_bytes["peak"].value)
    assert "corrected by 3 measured runs" in after.seconds["steps"].source
    assert after.seconds["steps"].basis == "modelled"


def test_agreeing_runs_narrow_the_interval_and_scattered_ones_widen_it():
    def width(*ratios):
        seconds = forecast(RUN, [pair(RUN, ratio) for ratio in ratios]).seconds["steps"]
        return seconds.high / seconds.low

    assert width(1.5, 1.51, 1.49) < width(1.5) < width(1.0, 1.5, 2.2)
    assert width(1.5, 1.5, 1.5) > 1.05, "agreement by chance is no certainty"


@pytest.mark.parametrize("other", [
    replace(CPU, name="elsewhere"), replace(CPU, accelerator="another CPU"),
    replace(CPU, accelerators_per_node=2)])
def test_other_machines_teach_nothing(other):
    assert correction(CPU, "bf16", [pair(RUN, 3.0, machine=other)]).of_time is None


def test_other_precisions_teach_nothing():
    run = replace(RUN, recipe=replace(RUN.recipe, precision="fp32"))
    assert correction(CPU, "bf16", [pair(run, 3.0)]).of_time is None


def test_records_that_cannot_be_used_are_passed_over():
    plain, promised, _ = pair(RUN)
    nothing = (plain, promised, Account())
    unreadable = ({"name": "old", "machine": {"what": 1}}, promised, Account())
    found = correction(CPU, "bf16", [nothing, unreadable, pair(RUN, 2.0)])
    assert found == correction(CPU, "bf16", [pair(RUN, 2.0)])


def test_an_interrupted_run_is_compared_by_its_tokens():
    plain, promised, account = pair(RUN, 1.0)
    half = Account(
        seconds={"steps": account.seconds["steps"].scaled(0.5)},
        tokens={"trained": account.tokens["trained"].scaled(0.5)})
    assert slower(correction(CPU, "bf16", [(plain, promised, half)])).value == pytest.approx(1.0)


def test_corrected_keeps_what_is_unknown():
    estimate = modelled(2.0, 1.5, "roofline")
    assert corrected(estimate, None) == estimate


def test_the_newest_runs_count_and_they_come_first():
    from curbcut.plan.calibration import TEACHING_RUNS

    newest, older = [pair(RUN, 2.0)] * TEACHING_RUNS, [pair(RUN, 5.0)] * (2 * TEACHING_RUNS)
    assert correction(CPU, "bf16", [*newest, *older]) == correction(CPU, "bf16", newest)


def test_versions_teach_themselves_and_one_that_is_not_said_teaches_all():
    def learned(old, new):
        run = replace(RUN, recipe=replace(RUN.recipe, stack_version=old))
        return correction(CPU, "bf16", [pair(run, 2.0)],
                          replace(RUN.recipe, stack_version=new)).of_time

    assert learned("2.12", "2.13") is None
    assert learned("2.13", "2.13") is not None
    assert learned("", "2.13") is not None
    other = replace(RUN, recipe=replace(RUN.recipe, stack="another"))
    assert correction(CPU, "bf16", [pair(other, 2.0)], RUN.recipe).of_time is None

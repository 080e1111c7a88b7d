"""Runs by other methods, and of other sizes, teach a plan what both hang on, and no more."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from curbcut.physics import constants, rates, step, time
from curbcut.plan.calibration import TIME, correction, time_slopes
from curbcut.plan.forecast import forecast
from curbcut.spec import Account, codec, measured
from plan.plan_samples import CPU, pair
from tiny import tiny_run

WIDE = {"layers": 4, "width": 768, "heads": 12, "kv_heads": 4, "head_size": 64, "ffn": 2048,
        "vocab": 8192, "context_tokens": 512}


def run_of(model=None, **recipe):
    return tiny_run(steps=50, machine=CPU, model=model or WIDE,
                    recipe={"precision": "bf16", "sequence_tokens": 256, "micro_batch": 8,
                            "global_batch": 8} | recipe)


def truly(run, **factors):
    """What a machine measures whose constants are these times those of the facts."""
    chip, known = rates.chip(CPU, "bf16"), constants.of(CPU, run.recipe)
    true = float(step.parts(run.model, run.recipe, chip, constants.scaled(known, factors)).total)
    return true / time.step_seconds(run.model, run.recipe, CPU).value


def slower(pairs, run):
    return correction(CPU, "bf16", pairs).of_step(run.model, run.recipe, CPU)


def test_a_run_by_another_method_hardly_moves_what_a_plain_one_taught():
    plain, compiled, again = run_of(), run_of(compile=True), run_of(recompute="full")
    pairs = [pair(compiled, 1.8), pair(plain, 1.2)]
    assert slower(pairs, plain).value == pytest.approx(1.2, rel=0.05)
    assert slower(pairs, compiled).value == pytest.approx(1.8, rel=0.05)
    wild = [pair(compiled, 3.0), pair(again, 0.3), pair(plain, 1.2)]
    assert slower(wild, plain).value == pytest.approx(1.2, rel=0.12)


def test_alone_it_is_believed_less():
    plain, compiled = run_of(), run_of(compile=True)
    other, own = slower([pair(compiled, 2.0)], plain), slower([pair(plain, 2.0)], plain)
    assert 1 < other.value < own.value
    assert other.high / other.low > own.high / own.low
    assert "by other methods" in other.source
    assert "by other methods" not in own.source


def test_what_a_run_is_made_of_says_which_constant_it_teaches():
    tiny = tiny_run(machine=CPU, recipe={"precision": "bf16"})
    from_small = correction(CPU, "bf16", [pair(tiny, 2.0)]).constants()
    from_large = correction(CPU, "bf16", [pair(run_of(), 2.0)]).constants()
    assert next(iter(from_small)) == "launch_seconds"
    assert from_small["launch_seconds"].value > 1.3
    assert next(iter(from_large)) == "matmul"
    one = from_large["matmul"]
    assert one.value < 0.8
    assert one.low < one.value < one.high


@pytest.mark.parametrize("wrong", ["launch_seconds", "feed_flops_per_byte"])
def test_constants_foretell_another_size_better_than_one_ratio_of_all(wrong):
    """What a small model's launches teach is not put on a large model's matmuls, nor the other
    way: one factor of whole steps would.
    """
    small = tiny_run(machine=CPU, recipe={"precision": "bf16"})
    factors = {wrong: 2.0}
    pairs = [pair(run, truly(run, **factors)) for run in (small, small, run_of())]
    asked = run_of({**WIDE, "layers": 6})
    ratios = sorted(truly(run, **factors) for run in (small, small, run_of()))
    off = abs(math.log(slower(pairs, asked).value / truly(asked, **factors)))
    assert off < abs(math.log(ratios[1] / truly(asked, **factors)))
    assert off < 0.1


def test_memory_by_other_sizes_moves_what_they_share():
    small = tiny_run(machine=CPU, recipe={"precision": "bf16"})
    learned = correction(CPU, "bf16", [pair(small, memory_ratio=1.3)])
    large = run_of({**WIDE, "layers": 24, "width": 1536, "heads": 24, "ffn": 4096})
    assert learned.of_peak(small.model, small.recipe, "cpu").value > 1.25
    assert 1 < learned.of_peak(large.model, large.recipe, "cpu").value < 1.15
    assert learned.constants()["context_bytes"].value > 1.1
    peak = forecast(large, [pair(small, memory_ratio=1.3)]).memory_bytes["peak"]
    assert peak.low < peak.value < peak.high


def test_slopes_are_those_of_the_named_constants_and_short():
    found = time_slopes(run_of().model, run_of().recipe, CPU)
    assert set(found) <= set(TIME.spreads) <= set(constants.NAMES)
    assert found["launch_seconds"] > 0 > found["bandwidth"]


def test_a_machine_without_a_rate_learns_nothing_and_fails_nothing():
    blind = replace(run_of(), machine=replace(CPU, measured_flops={}))
    account = Account(seconds={"steps": measured(1.0, "")}, tokens={"trained": measured(1.0, "")})
    found = correction(blind.machine, "bf16", [(codec.plain(blind), Account(), account)])
    assert found.of_time is None

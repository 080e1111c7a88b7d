"""Laws of the power model, and that its constants say what they stand on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.facts import physics
from curbcut.physics import power, time
from curbcut.physics.power import Busy, accelerator_watts, power_constants
from tiny import tiny_machine, tiny_run

SHARE = st.floats(0, 1)
FAMILY = st.sampled_from(["", "h100-sxm-80gb", "b200-sxm-180gb", "a100-sxm-80gb"])
TDP = 700.0
CARD = tiny_machine(kind="gpu", accelerator="h100-sxm-80gb", measured_flops={},
                    peak_flops={"bf16": 989e12, "fp8": 1979e12}, memory_bytes=80 * 2**30,
                    memory_bytes_per_second={"peak": 3.35e12}, link_bytes_per_second=int(450e9),
                    accelerators_per_node=8)
RUN = tiny_run(model={"layers": 16, "width": 2048, "heads": 32, "kv_heads": 8, "head_size": 64,
                      "ffn": 8192, "vocab": 128256, "context_tokens": 8192},
               recipe={"precision": "bf16", "dp_shard": 8, "sequence_tokens": 4096,
                       "micro_batch": 4, "global_batch": 32}, machine=CARD)


@settings(max_examples=50)
@given(SHARE, SHARE, SHARE, SHARE, FAMILY)
def test_more_busy_never_draws_less(compute, memory, link, more, family):
    constants = power_constants(family)
    least = accelerator_watts(Busy(compute, memory, link), TDP, constants)
    for name in ("compute", "memory", "link"):
        base = Busy(compute, memory, link)
        busier = replace(base, **{name: min(1.0, getattr(base, name) + more)})
        assert accelerator_watts(busier, TDP, constants) >= least * (1 - 1e-12)


@settings(max_examples=50)
@given(SHARE, SHARE, SHARE, FAMILY, st.floats(0, 800))
def test_watts_lie_between_idle_and_the_rated_power_or_the_cap(compute, memory, link, family, cap):
    constants = power_constants(family)
    drawn = accelerator_watts(Busy(compute, memory, link), TDP, constants, cap)
    bound = min(cap, TDP) if cap > 0 else TDP
    assert min(constants.idle * TDP, bound) * (1 - 1e-12) <= drawn <= bound
    if cap > 0:
        assert drawn <= accelerator_watts(Busy(compute, memory, link), TDP, constants)


def test_nothing_busy_draws_idle_power_and_all_busy_nearly_the_rated():
    constants = power_constants("h100")
    assert accelerator_watts(Busy(0.0, 0.0, 0.0), TDP, constants) == pytest.approx(
        constants.idle * TDP)
    assert accelerator_watts(Busy(1.0, 1.0, 1.0), TDP, constants) > 0.9 * constants.top * TDP


def test_work_in_half_of_the_time_draws_less_than_in_all_of_it():
    busy, constants = Busy(0.2, 0.4, 0.1, serving=True), power_constants("b200")
    half = busy.over(0.5)
    assert half == Busy(0.1, 0.2, 0.05, serving=True)
    assert accelerator_watts(half, TDP, constants) < accelerator_watts(busy, TDP, constants)


def test_arrays_give_what_numbers_give():
    busy = [Busy(0.0, 0.6, 0.0), Busy(0.4, 0.3, 0.1), Busy(1.0, 1.0, 1.0)]
    column = Busy(*(np.array([getattr(one, name) for one in busy])
                    for name in ("compute", "memory", "link")))
    constants = power_constants()
    assert list(accelerator_watts(column, TDP, constants)) == pytest.approx(
        [accelerator_watts(one, TDP, constants) for one in busy])


def test_families_have_constants_of_their_own_and_aliases_those_of_their_chip():
    assert power_constants("b200-sxm-180gb") == power_constants("gb200") != power_constants()
    assert power_constants("an accelerator of nobody's") == power_constants()
    assert power_constants("h100", without="Llama-3.1-70B") != power_constants("h100")
    assert power_constants("h100", without="never fitted") == power_constants("h100")


def test_a_memory_bound_server_draws_half_to_three_quarters_of_its_rated_power():
    drawn = accelerator_watts(Busy(0.02, 0.65, 0.0), 1.0, power_constants("h100"))
    assert 0.5 < drawn < 0.75


def test_constants_stand_on_many_architectures():
    for one in physics.constants(power.FILE):
        assert one.sources >= 10 and one.rows >= 100, one
    assert 0.02 < power.log_spread() < 0.3


def test_a_training_step_keeps_multipliers_busy_as_its_hfu_says():
    parts = time.step_parts(RUN.model, RUN.recipe, CARD)
    busy = power.of_step(parts, RUN.model, RUN.recipe, CARD)
    assert 0.1 < busy.compute < 0.8 and 0.1 < busy.memory < 1 and 0 < busy.link < 1
    assert not busy.serving


def test_a_step_that_waits_longer_is_less_busy():
    parts = time.step_parts(RUN.model, RUN.recipe, CARD)
    waiting = replace(parts, other=parts.other + parts.total)
    one, other = (power.of_step(each, RUN.model, RUN.recipe, CARD) for each in (parts, waiting))
    for name in ("compute", "memory", "link"):
        assert getattr(other, name) == pytest.approx(getattr(one, name) / 2)


def test_one_accelerator_sends_nothing_and_an_unknown_rate_has_no_shares():
    alone = replace(RUN.recipe, dp_shard=1)
    machine = replace(CARD, accelerators_per_node=1)
    parts = time.step_parts(RUN.model, alone, machine)
    assert power.of_step(parts, RUN.model, alone, machine).link == 0
    assert power.of_step(parts, RUN.model, alone, replace(machine, peak_flops={})) is None

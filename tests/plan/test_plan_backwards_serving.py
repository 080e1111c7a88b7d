from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from curbcut.physics import serving
from curbcut.physics.serving_traffic import Traffic as Load
from curbcut.plan.backwards.build import build
from curbcut.plan.backwards.question import COSTS, Traffic
from curbcut.plan.backwards.serving import served
from curbcut.plan.backwards.solve import solve
from curbcut.spec.nouns import ServeJob
from plan.backwards_samples import limited, machine, market, shapes

JOB = ServeJob(months=12.0)
H100 = machine("8xH100")


def test_servers_give_what_is_asked_and_one_fewer_would_not():
    asked = 50_000.0
    found = served(shapes(), H100, "bf16", Traffic(asked, JOB))
    for i, shape in enumerate(shapes()):
        if found.ranks[i] != 1 or not np.isfinite(found.replicas[i]):
            continue
        one = serving.server(shape, H100, "bf16")
        loads = 2.0 ** np.arange(11)
        met = serving.latency(shape, one, Load(concurrency=loads, prompt_tokens=JOB.prompt_tokens,
                                               output_tokens=JOB.output_tokens))
        good = (met.ttft_seconds <= JOB.ttft_seconds) & (met.tpot_seconds <= JOB.tpot_seconds)
        most = met.tokens_per_second[good].max()
        assert found.replicas[i] == np.ceil(asked / most)
        assert found.busy[i] == pytest.approx(asked / (found.replicas[i] * most))


def test_more_traffic_never_takes_fewer_accelerators():
    few, many = (served(shapes(), H100, "bf16", Traffic(rate, JOB)) for rate in (100.0, 1e5))
    assert (many.accelerators >= few.accelerators).all()
    assert (few.busy <= 1).all() and (many.busy <= 1 + 1e-9).all()
    assert np.isfinite(few.accelerators).any()


def test_what_no_accelerator_holds_or_serves_in_time_is_infinite():
    small = machine("1xrtx-3060")
    found = served(shapes(), small, "bf16", Traffic(10.0, JOB))
    held = np.array([2 * one.parameters <= small.memory_bytes for one in shapes()])
    assert np.isinf(found.accelerators[~held]).all()
    hasty = replace(JOB, ttft_seconds=1e-6)
    assert np.isinf(served(shapes(), H100, "bf16", Traffic(10.0, hasty)).accelerators).all()


def test_a_model_that_is_served_is_smaller_and_costs_its_servers():
    alone = limited(usd=3e3)
    beside = replace(alone, traffic=Traffic(2e4, replace(JOB, months=0.1)))
    plain, living = (solve(build(one, market(), shapes())) for one in (alone, beside))
    assert living.found
    sizes = [one.choices.shape(one.row).active_parameters for one in (plain, living)]
    assert sizes[1] <= sizes[0]
    assert living.score[living.row] > plain.score[plain.row]
    assert living.costs[living.row, 0] <= beside.planned("usd") * (1 + 1e-9)
    life = living.choices.life[living.row]
    ranks, replicas = living.choices.servers[living.row]
    rent = living.choices.rates[living.row, 0] / living.choices.machine(living.row).accelerators
    assert life[0] == pytest.approx(ranks * replicas * rent * beside.traffic.seconds)
    assert life[COSTS.index("seconds")] == 0


def test_serving_that_takes_the_whole_budget_leaves_nothing():
    beside = replace(limited(usd=50.0), traffic=Traffic(2e4, JOB))
    assert not solve(build(beside, market(), shapes())).found

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from curbcut.physics import memory, time
from curbcut.plan import machines, offers, space
from curbcut.plan.pricing import Pricer
from curbcut.spec import ModelShape, Place, Recipe
from plan.plan_samples import CPU

DENSE = ModelShape(layers=8, width=1024, heads=16, kv_heads=4, head_size=64, ffn=4096, vocab=32000,
                   context_tokens=4096, tied_embeddings=False)
SHAPES = {
    "dense": DENSE,
    "plain": replace(DENSE, feed_forward="plain", kv_heads=16),
    "sliding": replace(DENSE, attention="sliding", window_tokens=512, full_every=4),
    "sparse": replace(DENSE, experts=8, experts_per_token=2, shared_experts=1, expert_ffn=512,
                      dense_layers=1),
    "latent": replace(DENSE, attention="mla", kv_rank=128, query_rank=256, rope_size=32,
                      value_size=64, experts=8, experts_per_token=2, expert_ffn=512),
}
BASE = Recipe(sequence_tokens=2048, micro_batch=1, global_batch=32, precision="bf16",
              learning_rate=1e-3)


def fleet(name):
    return machines.build(machines.from_facts(name))


@pytest.mark.parametrize("machine", ["16xA100", "8xH100", "1xT4", "here"])
@pytest.mark.parametrize("kind", SHAPES)
def test_a_block_is_priced_as_its_recipes_are_one_by_one(kind, machine):
    shape, on = SHAPES[kind], CPU if machine == "here" else fleet(machine)
    pricer = Pricer(shape, on, memory_factor=1.25)
    choose = np.random.default_rng(7)
    whole = space.Space(shape, on, BASE, also=frozenset({"optimiser"}))
    for block in whole.blocks[::3]:
        seconds, peak = pricer.block(block)
        assert seconds.shape == peak.shape == block.shape
        for _ in range(6):
            place = tuple(int(choose.integers(size)) for size in block.shape)
            recipe = block.recipe(place)
            assert seconds[place] == pytest.approx(
                time.step_seconds(shape, recipe, on).value, rel=1e-9)
            assert peak[place] == pytest.approx(
                1.25 * memory.training(shape, recipe, on.kind)["peak"], rel=1e-9)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_the_parts_add_up_and_recompute_is_one_of_them(recompute):
    pricer = Pricer(DENSE, fleet("8xH100"))
    recipe = replace(BASE, tp=2, pp=2, dp_shard=2, recompute=recompute)
    groups = pricer.groups(recipe)
    assert sum(groups.values()) == pytest.approx(pricer.step(recipe).value, rel=1e-9)
    assert ("recompute" in groups) == (recompute != "none")
    if recompute == "full":
        assert groups["recompute"] > 0
        plain = pricer.groups(replace(recipe, recompute="none"))
        assert groups["matmul"] == plain["matmul"]


def test_a_part_of_a_block_is_priced_the_same():
    pricer = Pricer(DENSE, fleet("16xA100"))
    block = space.Space(DENSE, fleet("16xA100"), BASE).blocks[0]
    seconds, peak = pricer.block(block)
    free, last = (1, 2, 1, 0), len(block.columns["tp"])
    few, bytes_ = pricer.block(block.part(free, 3, last))
    np.testing.assert_allclose(few.reshape(-1), seconds[free][3:], rtol=1e-12)
    np.testing.assert_allclose(bytes_.reshape(-1), peak[free][3:], rtol=1e-12)


def test_no_rate_no_parts():
    pricer = Pricer(DENSE, replace(fleet("1xA100"), peak_flops={}))
    assert pricer.groups(BASE) == {}
    assert pricer.step(BASE).value is None


def test_a_power_limit_stretches_a_step_and_its_groups_and_saves_energy():
    whole = space.Space(DENSE, fleet("2xA100"), BASE)
    held = replace(whole, base=replace(whole.base, power_limit=0.6))
    offers_ = [offers.offer(one, Place(tenure="rent")) for one in (whole, held)]
    free, slow = (one.pricer.step(one.space.base) for one in offers_)
    assert slow.value > free.value
    groups = offers_[1].pricer.groups(held.base)
    assert sum(groups.values()) == pytest.approx(slow.value)
    assert groups["power limit"] > 0
    assert offers_[1].kwh.value * slow.value < offers_[0].kwh.value * free.value
    assert offers_[1].usd.value == offers_[0].usd.value

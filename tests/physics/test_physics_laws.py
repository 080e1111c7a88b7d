"""Laws that hold whatever the constants are: of time, of memory, and between the two."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.physics import activations, constants, goodput, memory, operations, rates, step, time
from curbcut.plan import machines
from curbcut.spec import ModelShape, Recipe

DENSE = ModelShape(layers=32, width=4096, heads=32, kv_heads=8, head_size=128, ffn=14336,
                   vocab=128256, tied_embeddings=False)
SHAPES = {
    "dense": DENSE, "tied": replace(DENSE, tied_embeddings=True),
    "plain": replace(DENSE, feed_forward="plain", ffn=16384, kv_heads=32),
    "window": replace(DENSE, attention="sliding", window_tokens=1024, full_every=4),
    "latent": replace(DENSE, attention="mla", kv_rank=512, query_rank=1536, rope_size=64,
                      value_size=128, kv_heads=32),
    "sparse": replace(DENSE, experts=64, experts_per_token=4, expert_ffn=2048, shared_experts=1,
                      dense_layers=2)}
STACKS = ("torch", "Megatron-LM", "NeMo", "torchtitan", "nobody's")
MACHINES = {name: machines.build(machines.from_facts(f"64x{name}"))
            for name in ("H100", "A100", "B200", "GB200", "TPU-v5p")}
ONE = {name: machines.build(machines.from_facts(f"1x{name}")) for name in ("H100", "A100", "T4")}
PARTS = [field.name for field in dataclasses.fields(step.Parts)]
COLLECTIVE = ("tensor", "experts", "context", "stages", "data")


@st.composite
def settled(draw, ranks=64):
    """A shape and a recipe of all its ranks."""
    shape = SHAPES[draw(st.sampled_from(sorted(SHAPES)))]
    tp, pp = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([1, 2, 4]))
    cp = draw(st.sampled_from([1, 2]))
    dp = ranks // (tp * pp * cp)
    apart = draw(st.sampled_from([1, 2])) if dp > 1 else 1
    micro = draw(st.sampled_from([1, 2, 4]))
    order = draw(st.sampled_from(["1f1b", "gpipe", "zero-bubble", "interleaved"]))
    return shape, Recipe(
        stack=draw(st.sampled_from(STACKS)), tp=tp, pp=pp, cp=cp, dp_shard=dp // apart,
        dp_replicate=apart, shard=draw(st.sampled_from(["optimiser", "gradients", "parameters"])),
        sequence_parallel=draw(st.booleans()) and tp > 1, pipeline=order,
        virtual_stages=2 if order == "interleaved" and pp > 1 else 1,
        context=draw(st.sampled_from(["ring", "ulysses"])),
        ep=draw(st.sampled_from([1, 2, 4])) if shape.experts else 1,
        sequence_tokens=draw(st.sampled_from([2048, 4096, 16384])), micro_batch=micro,
        global_batch=dp * micro * 8, precision=draw(st.sampled_from(["bf16", "fp32", "fp8"])),
        recompute=draw(st.sampled_from(["none", "selective", "full"])),
        offload=draw(st.sampled_from(["none", "optimiser", "activations"])),
        attention=draw(st.sampled_from(["fused", "math"])),
        chunked_loss=draw(st.booleans()), compile=draw(st.booleans()),
        optimiser=draw(st.sampled_from(["adamw", "muon", "adamw8", "adafactor"])),
        learning_rate=1e-4)


def parts(shape, recipe, machine):
    found = time.step_parts(shape, recipe, machine)
    return {name: float(getattr(found, name)) for name in PARTS}


def total(shape, recipe, machine):
    return sum(parts(shape, recipe, machine).values())


def how(**more):
    plain = {"sequence_tokens": 4096, "micro_batch": 1, "global_batch": 64, "precision": "bf16",
             "learning_rate": 1e-4, "dp_shard": 64}
    return Recipe(**(plain | more))


@settings(max_examples=50, deadline=None)
@given(settled(), st.sampled_from(sorted(MACHINES)))
def test_the_sum_of_the_parts_is_the_step_and_none_is_negative(chosen, name):
    shape, recipe = chosen
    machine = MACHINES[name]
    if machine.kind == "tpu":
        recipe = replace(recipe, precision="bf16")
    found = time.step_parts(shape, recipe, machine)
    each = parts(shape, recipe, machine)
    whole = time.step_seconds(shape, recipe, machine)
    assert float(found.total) == pytest.approx(sum(each.values()), rel=1e-9)
    assert whole.value == pytest.approx(float(found.total), rel=1e-9)
    assert sum(time.step_groups(shape, recipe, machine).values()) == pytest.approx(whole.value)
    assert whole.low < whole.value < whole.high
    for part, seconds in each.items():
        assert seconds >= -1e-9 * whole.value, part


@settings(max_examples=50, deadline=None)
@given(settled(), st.sampled_from(["memory_bytes_per_second", "link_bytes_per_second",
                                   "network_bytes_per_second", "peak_flops"]),
       st.floats(1.0, 10.0))
def test_a_machine_that_is_better_in_one_rate_is_never_slower(chosen, rate, factor):
    shape, recipe = chosen
    machine = MACHINES["H100"]
    base = getattr(machine, rate) or rates.default_network(machine)
    better = ({key: value * factor for key, value in base.items()} if isinstance(base, dict | type(
        machine.peak_flops)) else int(base * factor))
    before = replace(machine, **{rate: base if not isinstance(base, float) else int(base)})
    assert total(shape, recipe, replace(machine, **{rate: better})) <= total(
        shape, recipe, before) * (1 + 1e-9)


@settings(max_examples=40, deadline=None)
@given(settled(ranks=8), st.sampled_from(sorted(ONE)))
def test_a_world_of_one_has_no_collectives_nor_a_bubble(chosen, name):
    shape, recipe = chosen
    alone = replace(recipe, tp=1, pp=1, cp=1, ep=1, dp_shard=1, dp_replicate=1, virtual_stages=1,
                    sequence_parallel=False, pipeline="1f1b", outer_steps=1)
    found = parts(shape, alone, ONE[name])
    assert [found[part] for part in COLLECTIVE] == [0, 0, 0, 0, 0]
    assert found["bubble"] == pytest.approx(0, abs=1e-12)
    assert all(each.ranks == 1 or each.times == 0 or each.bytes_ == 0
               for each in operations.collectives(shape, alone))


@settings(max_examples=50, deadline=None)
@given(settled(), st.sampled_from(["tp", "pp", "cp", "ep", "dp"]))
def test_a_part_is_nothing_where_its_degree_is_one_and_something_where_it_is_more(chosen, degree):
    shape, recipe = chosen
    shape = replace(shape, tied_embeddings=False)
    one = ({"dp_shard": 1, "dp_replicate": 1, "cp": 1} if degree == "dp"
           else {degree: 1} | ({"virtual_stages": 1, "pipeline": "1f1b"} if degree == "pp" else {}))
    found = parts(shape, replace(recipe, **one), MACHINES["H100"])
    part = {"tp": "tensor", "pp": "stages", "cp": "context", "ep": "experts", "dp": "data"}[degree]
    assert found[part] == 0
    if degree == "pp":
        assert found["bubble"] == pytest.approx(0, abs=1e-12)
    more = dict.fromkeys(("dp_shard", "dp_replicate", "tp", "pp", "cp", "ep", "virtual_stages"), 1)
    other = replace(recipe, **more | {"pipeline": "1f1b"})
    if degree != "ep":
        name = "dp_shard" if degree == "dp" else degree
        assert parts(shape, replace(other, **{name: 8}), MACHINES["H100"])[part] > 0


@settings(max_examples=40, deadline=None)
@given(settled(), st.sampled_from([2, 3, 4]))
def test_more_to_do_takes_longer(chosen, factor):
    shape, recipe = chosen
    machine = MACHINES["H100"]
    before = total(shape, recipe, machine)
    assert total(shape, replace(recipe, global_batch=recipe.global_batch * factor),
                 machine) > before
    assert total(replace(shape, layers=shape.layers * factor), recipe, machine) > before
    assert total(replace(shape, vocab=shape.vocab * factor), recipe, machine) > before
    assert total(shape, replace(recipe, sequence_tokens=recipe.sequence_tokens * factor),
                 machine) > before


@settings(max_examples=40, deadline=None)
@given(settled())
def test_recompute_gives_memory_for_time(chosen):
    shape, recipe = chosen
    machine = MACHINES["H100"]
    modes = [replace(recipe, recompute=mode, compile=False)
             for mode in ("none", "selective", "full")]
    work = [sum(parts(shape, one, machine)[name] for name in ("matmul", "attention", "elementwise"))
            for one in modes]
    assert work[0] <= work[1] * (1 + 1e-9) and work[1] <= work[2] * (1 + 1e-9)
    assert work[0] < work[2]
    kept = [float(activations.layer_bytes(shape, one, memory.memory_constants(one.stack))[0])
            for one in modes]
    assert kept[0] >= kept[1] * (1 - 1e-9) and kept[1] >= kept[2] * (1 - 1e-9)
    assert kept[0] > kept[2]


@settings(max_examples=40, deadline=None)
@given(settled(), st.sampled_from(["H100", "B200", "GB200"]))
def test_a_lower_precision_never_slows_a_wide_matmul(chosen, name):
    shape, recipe = chosen
    wide = replace(shape, width=8192, heads=64, kv_heads=64, ffn=28672)
    wide = replace(wide, experts=0, experts_per_token=0, shared_experts=0, expert_ffn=0,
                   dense_layers=0)
    recipe = replace(recipe, ep=1, tp=1, dp_shard=64 // recipe.pp, dp_replicate=1, cp=1,
                     sequence_parallel=False, micro_batch=4)
    order = ["fp32", "bf16", "fp8"]
    seconds = [parts(wide, replace(recipe, precision=one), MACHINES[name])["matmul"]
               for one in order]
    assert seconds[0] > seconds[1] > seconds[2]


@pytest.mark.parametrize("name", ["H100", "B200", "A100"])
@pytest.mark.parametrize("inner", [512, 2048, 8192])
def test_a_matmul_of_more_takes_longer_and_never_beats_the_peak(name, inner):
    recipe, values = how(), constants.training_constants(name.casefold())
    chip = rates.chip(MACHINES[name], "bf16")
    before = 0.0
    for rows in (128, 1024, 8192, 65536):
        each = operations.Matmul("up", rows, inner, 4096, 1)
        seconds = float(step.matmul_seconds(each, recipe, chip, values, False, 0.0))
        assert seconds > before and seconds > 3 * each.flops / chip.flops
        again = float(step.matmul_seconds(each, recipe, chip, values, False, 1.0))
        assert seconds < again < 1.5 * seconds
        before = seconds


@settings(max_examples=50, deadline=None)
@given(one=st.floats(1e-9, 100), other=st.floats(1e-9, 100), power=st.floats(1, 64))
def test_joined_times_lie_between_the_longer_and_the_sum(one, other, power):
    found = step.joined(one, other, power)
    assert max(one, other) * (1 - 1e-9) <= found <= (one + other) * (1 + 1e-9) + 1e-29
    assert found == pytest.approx(step.joined(other, one, power))


@settings(max_examples=50, deadline=None)
@given(settled())
def test_the_peak_is_the_sum_of_its_kinds_and_grows_with_batch_and_sequence(chosen):
    shape, recipe = chosen
    found = memory.training(shape, recipe, "gpu")
    kinds = {key: value for key, value in found.items() if key != "peak"}
    assert min(kinds.values()) >= 0
    assert found["peak"] == pytest.approx(sum(kinds.values()), rel=1e-9)
    for field in ("micro_batch", "sequence_tokens"):
        more = replace(recipe, **{field: 2 * getattr(recipe, field)},
                       global_batch=recipe.global_batch * 2)
        assert memory.training(shape, more, "gpu")["peak"] >= found["peak"] * (1 - 1e-9), field
    wider = replace(shape, vocab=2 * shape.vocab)
    assert memory.training(wider, recipe, "gpu")["peak"] > found["peak"]


@settings(max_examples=40, deadline=None)
@given(settled())
def test_sharing_more_state_never_takes_more_of_it(chosen):
    shape, recipe = chosen
    recipe = replace(recipe, offload="none", ep=1)
    states = ("parameters", "gradients", "optimiser")
    each = [memory.training(shape, replace(recipe, shard=what), "gpu")
            for what in ("optimiser", "gradients", "parameters")]
    held = [sum(one[name] for name in states) for one in each]
    if recipe.pp > 1:  # a stage adds up whole gradients over the step, whatever is shared
        assert each[1]["gradients"] == pytest.approx(each[2]["gradients"])
        return
    assert held[0] >= held[1] * (1 - 1e-9) and held[1] >= held[2] * (1 - 1e-9)
    apart = replace(recipe, shard="optimiser", dp_shard=1,
                    dp_replicate=recipe.dp_shard * recipe.dp_replicate)
    alone = sum(memory.training(shape, apart, "gpu")[name] for name in states)
    assert alone >= held[0] * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(settled(), st.sampled_from([("adamw", "adamw8"), ("adamw", "muon"), ("adamw8",
                                                                            "adafactor")]))
def test_lighter_optimisers_hold_less(chosen, names):
    shape, recipe = chosen
    recipe = replace(recipe, offload="none")
    heavy, light = (memory.training(shape, replace(recipe, optimiser=name), "gpu")["optimiser"]
                    for name in names)
    assert light < heavy


@settings(max_examples=40, deadline=None)
@given(settled())
def test_what_is_offloaded_leaves_the_accelerator_and_costs_time(chosen):
    shape, recipe = chosen
    here = replace(recipe, offload="none")
    machine = MACHINES["H100"]
    peak = memory.training(shape, here, "gpu")["peak"]
    assert parts(shape, here, machine)["offload"] == 0
    for what in ("optimiser", "parameters", "activations"):
        away = replace(recipe, offload=what)
        assert parts(shape, away, machine)["offload"] > 0
        if what != "parameters":  # two gathered layers may be more than a stage's share of all
            assert memory.training(shape, away, "gpu")["peak"] <= peak * (1 + 1e-9)


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("tp", [1, 2, 8])
def test_activations_of_a_layer_are_finite_positive_and_fall_with_tensor_ranks(name, tp):
    shape, known = SHAPES[name], memory.memory_constants("")
    recipe = how(tp=tp, dp_shard=64 // tp, sequence_parallel=tp > 1)
    kept, again = activations.layer_bytes(shape, recipe, known)
    assert kept > 0 and again >= 0
    alone, _ = activations.layer_bytes(shape, how(), known)
    assert kept <= alone * (1 + 1e-9)
    full, redone = activations.layer_bytes(shape, replace(recipe, recompute="full"), known)
    assert full + redone >= kept * (1 - 1e-9)
    assert activations.attention_elements(shape, tp) > activations.projected_elements(shape, tp) > 0


@pytest.mark.parametrize(("precision", "half", "eighth", "bytes_"), [
    ("fp32", False, False, 4), ("tf32", False, False, 4), ("fp16", True, False, 2),
    ("bf16", True, False, 2), ("fp8", True, True, 2), ("mxfp8", True, True, 2),
    ("nvfp4", True, True, 2)])
def test_widths_of_each_precision_agree_between_time_and_memory(precision, half, eighth, bytes_):
    recipe = how(precision=precision)
    assert activations.half(recipe) == half and activations.eighth(recipe) == eighth
    assert activations.activation_bytes(recipe) == bytes_
    assert operations.element_bytes(recipe).activation == bytes_


def test_held_scores_grow_with_the_square_of_the_sequence_and_only_where_they_are_held():
    for block in (0.0, 512.0):
        short, long = (float(activations.held_scores(how(sequence_tokens=s), block))
                       for s in (4096, 8192))
        assert short < long <= 2 * short
    known = memory.memory_constants("")
    fused, math_ = (float(activations.whole_layer_bytes(
        DENSE, how(attention=kind, sequence_tokens=8192), known)) for kind in ("fused", "math"))
    assert math_ > 1.5 * fused


@settings(max_examples=50, deadline=None)
@given(save=st.floats(0.1, 2000), ranks=st.integers(1, 100_000), interval=st.floats(1, 1e5))
def test_time_is_worked_saved_lost_or_restarted_and_nothing_else(save, ranks, interval):
    found = goodput.goodput(save, ranks, interval)
    shares = (found.productive, found.checkpoints, found.lost, found.restarts)
    assert sum(shares) == pytest.approx(1, rel=1e-9) and min(shares) >= 0
    assert found.interval_seconds == interval
    assert goodput.goodput(2 * save, ranks, interval).productive < found.productive
    assert goodput.goodput(save, 2 * ranks, interval).productive < found.productive
    assert goodput.goodput(save, ranks, interval, restart_seconds=0).restarts == 0


@settings(max_examples=50, deadline=None)
@given(save=st.floats(0.1, 500), mean=st.floats(1, 1e6))
def test_the_best_interval_grows_with_the_cost_and_the_mean_and_never_beyond_it(save, mean):
    found = goodput.daly(save, mean)
    assert 0 < found <= max(mean, goodput.young(save, mean)) * (1 + 1e-9)
    assert goodput.daly(save, 2 * mean) >= found * (1 - 1e-9)
    assert goodput.young(4 * save, mean) == pytest.approx(2 * goodput.young(save, mean))


@pytest.mark.parametrize("name", constants.NAMES)
def test_no_constant_is_negative_or_endless_on_any_family(name):
    for family in (*constants.FAMILIES, "cpu", ""):
        for stack in STACKS:
            value = getattr(constants.training_constants(family, stack), name)
            assert 0 <= value < 1e15, (family, stack)


@pytest.mark.parametrize("name", sorted(MACHINES))
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "fp8", "mxfp8", "nvfp4"])
def test_a_chip_offers_every_precision_at_a_rate_no_slower_than_a_wider_one(name, precision):
    chip = rates.chip(MACHINES[name], precision)
    wide = rates.chip(MACHINES[name], "fp32")
    if precision in rates.WIDE and not MACHINES[name].peak_flops.get("fp32"):
        assert chip is None  # a TPU states none
        return
    assert chip.low_flops >= chip.flops > 0 and (wide is None or chip.flops >= wide.flops)
    assert chip.domain >= chip.per_node >= 1
    assert chip.nodes * chip.per_node == MACHINES[name].accelerators
    assert min(chip.link, chip.network, chip.bytes_per_second, chip.memory_bytes) > 0


def test_constants_of_columns_are_those_of_each_row():
    names = ["H100", "A100", "B200"]
    found = [how(stack=stack) for stack in ("Megatron-LM", "torchtitan", "nobody's")]
    for unseen in (False, True):
        many = constants.columns([MACHINES[name] for name in names], found, unseen=unseen)
        for place, (name, recipe) in enumerate(zip(names, found, strict=True)):
            one = constants.of(MACHINES[name], recipe, unseen=unseen)
            for field in (*constants.NAMES, *constants.FEATURES):
                assert getattr(many, field)[place] == getattr(one, field), field


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scaling_a_constant_moves_time_the_way_it_means(factor):
    plain = constants.training_constants("h100")
    chip, recipe = rates.chip(MACHINES["H100"], "bf16"), how()
    before = float(step.parts(DENSE, recipe, chip, plain).total)
    for name, rises in (("matmul", False), ("bandwidth", False), ("link_share", False),
                        ("attention", False), ("elementwise", True), ("optimiser_bytes", True),
                        ("step_seconds", True), ("straggler", True)):
        moved = constants.scaled(plain, {name: factor})
        after = float(step.parts(DENSE, recipe, chip, moved).total)
        assert (after >= before) if rises == (factor > 1) else (after <= before), name

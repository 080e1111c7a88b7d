from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ranks
from curbcut.errors import CurbcutError
from curbcut.train.parallel import build, pipeline, shrunken, tensor
from tiny import tiny_machine, tiny_run

LARGE = {"layers": 61, "width": 7168, "heads": 64, "kv_heads": 8, "head_size": 128, "ffn": 18432,
         "vocab": 129_280, "context_tokens": 8192}


def large(model=None, **recipe):
    return tiny_run(model={**LARGE, **(model or {})}, recipe={
        "sequence_tokens": 4096, "micro_batch": 1, "global_batch": 4096, "precision": "bf16",
        **recipe})


def forked(runs, seconds):
    del seconds
    return [ranks.spawn(shrunken.compared, run.recipe, run)[0] for run in runs]


def test_a_sound_layout_passes_in_fp32_and_in_its_own_precision():
    found = shrunken.check_gradients(large(tp=8, dp_shard=64), start=forked)
    assert found.layouts == ("dp_shard = 2 x tp = 2 (fp32)", "dp_shard = 2 x tp = 2 (bf16)")
    assert found.parameters > 30


def test_one_rank_has_nothing_to_be_checked():
    assert shrunken.check_gradients(large()).layouts == ()


def test_a_lost_embedding_gradient_is_named(monkeypatch):
    split = tensor.apply

    def losing(model, world, recipe):
        model = split(model, world, recipe)
        if world.degree("tp") > 1:
            model.model.embed_tokens.register_forward_hook(lambda m, given, out: out.detach())
        return model

    monkeypatch.setattr(build.tensor, "apply", losing)
    with pytest.raises(CurbcutError, match=r"model\.embed_tokens\.weight.*tp = 2 \(fp32\)"):
        shrunken.check_gradients(large({"tied_embeddings": False}, tp=4), start=forked)


def test_a_gradient_that_is_counted_twice_is_named(monkeypatch):
    monkeypatch.setattr(pipeline, "tied_apart", lambda model, recipe: ())
    with pytest.raises(CurbcutError, match=r"model\.embed_tokens\.weight.*pp = 2"):
        shrunken.check_gradients(large(pp=4, precision="fp32"), start=forked)


def test_the_fresh_process_finds_the_same():
    # this process has threads of torch's pools by now; the fresh one has none
    found = shrunken.check_gradients(large({"layers": 64}, pp=8, dp_replicate=4, precision="fp32"))
    assert found.layouts == ("pp = 2 x dp_replicate = 2 (fp32, 1f1b)",) and found.parameters == 20


def test_what_a_rank_fails_with_is_told():
    small = shrunken.shrunken(large(pp=2, precision="fp32"))[0]
    odd = replace(small, model=replace(small.model, head_size=15))
    with pytest.raises(CurbcutError, match=r"the small model failed: rank .: InputError: .*head"):
        shrunken.from_fresh_process([odd], 60.0)


@settings(max_examples=80)
@given(st.fixed_dictionaries({name: st.sampled_from([1, 2, 8]) for name in (
    "pp", "dp_replicate", "dp_shard", "cp", "tp")}),
    st.sampled_from(["1f1b", "interleaved", "zero-bubble", "dualpipev", "gpipe"]),
    st.booleans(), st.integers(1, 8))
def test_every_pair_of_degrees_is_tried_on_few_ranks_and_runs(degrees, kind, experts, kv_heads):
    from curbcut.spec import checks
    from curbcut.train import refusals

    model = {"experts": 64, "experts_per_token": 8, "expert_ffn": 512} if experts else {}
    degrees = degrees | ({"tp": 1} if experts else {})
    run = large({"kv_heads": kv_heads, **model}, pipeline=kind, **degrees,
                ep=min(degrees["dp_shard"], 8) if experts else 1)
    if kind == "dualpipev":
        run = replace(run, model=replace(run.model, tied_embeddings=False))
    found = shrunken.shrunken(run)
    kinds = {name for name, degree in degrees.items() if degree > 1}
    tried = [{name for name in degrees if getattr(small.recipe, name) > 1} for small in found]
    assert set().union(*tried) == kinds
    assert all(any({one, other} <= pair for pair in tried) for one in kinds for other in kinds)
    for small in found:
        assert small.recipe.ranks <= shrunken.MOST_RANKS and small.model.width <= 64
        machine = tiny_machine(accelerators_per_node=small.recipe.ranks)
        checks.recipe(small.model, small.recipe, machine)
        refusals.check(small.model, small.recipe, machine)

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from curbcut.errors import InputError
from curbcut.train import refusals
from tiny import tiny_run

RUN = tiny_run()


@pytest.mark.parametrize(("field", "value", "said"), [
    ("ep", 2, "ep = 2"),
    ("outer_steps", 50, "outer_steps = 50"),
    ("precision", "fp16", 'precision = "fp16"'),
    ("precision", "mxfp8", 'precision = "mxfp8"'), ("precision", "nvfp4", 'precision = "nvfp4"'),
    ("precision", "fp8", "no fp8 rate"), ("offload", "activations", "offload"),
    ("offload", "optimiser", "offload")])
def test_what_is_only_priced_is_refused_by_name(tmp_path, tiny_corpus, field, value, said):
    from curbcut.meter.clock import SystemClock
    from curbcut.spec import Account
    from curbcut.train.session import open_session

    run = replace(RUN, recipe=replace(RUN.recipe, **{field: value}))
    assert said in refusals.reason(run.model, run.recipe, run.machine)
    with pytest.raises(InputError) as caught:
        open_session(run, tmp_path, tiny_corpus, SystemClock(), Account())
    assert said in caught.value.what and "not run" in caught.value.what
    assert caught.value.mend


@pytest.mark.parametrize("changes", [
    {"attention": "sliding", "window_tokens": 8}, {"feed_forward": "plain"},
    {"experts": 4, "experts_per_token": 1}])
def test_shapes_that_the_decoder_is_not(changes):
    assert "decoder" in refusals.reason(replace(RUN.model, **changes), RUN.recipe, RUN.machine)


EXPERTS = {"experts": 4, "experts_per_token": 2, "expert_ffn": 32}


@pytest.mark.parametrize(("recipe", "where"), [
    ({"tp": 2, "dp_shard": 2, "ep": 2}, "recipe.tp"), ({"dp_replicate": 2, "ep": 2}, "recipe.ep"),
    ({"dp_shard": 4, "ep": 3}, "recipe.ep"),
    ({"dp_shard": 2, "ep": 2, "shard": "optimiser"}, "recipe.shard")])
def test_layouts_of_experts_that_do_not_run_name_field_and_mend(recipe, where):
    shape, how = replace(RUN.model, **EXPERTS), replace(RUN.recipe, **recipe)
    with pytest.raises(InputError, match="not run") as caught:
        refusals.check(shape, how, RUN.machine)
    assert caught.value.where == where and "recipe." in caught.value.mend


@pytest.mark.parametrize("recipe", [
    {}, {"dp_shard": 2, "ep": 2}, {"dp_shard": 4, "ep": 2}, {"cp": 2, "ep": 2},
    {"dp_replicate": 2}, {"dp_replicate": 2, "dp_shard": 2, "ep": 2}, {"pp": 2},
    {"dp_shard": 2, "shard": "optimiser"}])
def test_layouts_of_experts_that_run(recipe):
    shape, how = replace(RUN.model, **EXPERTS), replace(RUN.recipe, **recipe)
    assert refusals.reason(shape, how, RUN.machine) == ""


def test_what_runs_has_no_reason_against_it():
    assert refusals.reason(RUN.model, RUN.recipe, RUN.machine) == ""
    for precision in ("bf16", "tf32"):
        recipe = replace(RUN.recipe, precision=precision)
        assert refusals.reason(RUN.model, recipe, RUN.machine) == ""
    assert refusals.reason(RUN.model, RUN.recipe, replace(RUN.machine, kind="tpu"))


def test_the_refusals_need_no_torch():
    code = "import sys; import curbcut.train.refusals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

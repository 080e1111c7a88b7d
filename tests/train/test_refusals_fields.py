"""Every field of a recipe and of a serving job is run as it says, or refused by its name."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError
from curbcut.plan.serving_ways import RUN as WAYS
from curbcut.serve.ways import refuse_unknown_ways
from curbcut.spec.nouns import Recipe, ServeJob
from curbcut.train import refusals
from tiny import tiny_machine, tiny_run

RUN = tiny_run(machine=tiny_machine(measured_flops={"fp32": 1e12, "bf16": 2e12, "fp8": 3e12}))
RANKS = ("dp_replicate", "dp_shard", "tp", "pp", "cp", "ep")
RUNS_ANY = {"stack", "stack_version", "sequence_tokens", "micro_batch", "global_batch", "attention",
            "learning_rate", "beta1", "beta2", "weight_decay", "clip_norm", "schedule",
            "warmup_fraction", "decay_fraction", "compile", "on_spike", "spike_factor",
            "context", "sequence_parallel", "checkpoint_every_steps", "keep_checkpoints",
            "checkpoint_interval", "checkpoint_async", "evaluate_every_steps", "balance_loss",
            "pipeline", "virtual_stages", "shard", "offload",
            "optimiser", "recompute", "chunked_loss", "mup_base_width", "z_loss", "ema_decay"}
"""Fields of which training runs each value."""
CHOICES = {name: get_args(kind) for name, kind in get_type_hints(Recipe).items()
           if get_args(kind) and all(isinstance(one, str) for one in get_args(kind))}


def reason(**changes: Any) -> str:
    return refusals.reason(RUN.model, replace(RUN.recipe, **changes), RUN.machine)


def test_each_field_is_run_as_it_is_or_refused_or_a_degree():
    # a field that is added to the recipe must be trained, or refused: never ignored
    names = {field.name for field in fields(Recipe)}
    assert names == RUNS_ANY | set(refusals.TRAINED) | set(RANKS)
    assert not RUNS_ANY & set(refusals.TRAINED)


@pytest.mark.parametrize(("name", "value"), [
    (name, value) for name, known in refusals.TRAINED.items()
    for value in CHOICES.get(name, ()) if value not in known])
def test_each_word_that_training_does_not_know_is_refused_with_those_it_does(name, value):
    assert reason(**{name: value}) == f'{name} = "{value}"'
    with pytest.raises(InputError) as caught:
        refusals.check(RUN.model, replace(RUN.recipe, **{name: value}), RUN.machine)
    assert caught.value.where == f"recipe.{name}"
    for known in refusals.TRAINED[name]:
        assert f'"{known}"' in caught.value.mend


@pytest.mark.parametrize(("name", "value"), [
    (name, value) for name, known in refusals.TRAINED.items()
    for value in known if value in CHOICES.get(name, ())])
def test_each_word_that_it_knows_is_not(name, value):
    assert reason(**{name: value}) == ""


@pytest.mark.parametrize("name", sorted(set(refusals.TRAINED) - set(CHOICES)))
def test_counts_and_flags_are_refused_by_name_as_a_file_would_say_them(name):
    known = refusals.TRAINED[name][0]
    other = (not known) if isinstance(known, bool) else 2
    said = str(other).lower()
    assert reason(**{name: other}) == f"{name} = {said}"
    with pytest.raises(InputError) as caught:
        refusals.check(RUN.model, replace(RUN.recipe, **{name: other}), RUN.machine)
    assert caught.value.mend == f"choose {str(known).lower()}"


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries({"dp_replicate": st.integers(1, 64), "dp_shard": st.integers(1, 64),
                              "shard": st.sampled_from(CHOICES["shard"])}))
def test_data_parallel_ranks_run_in_any_number(degrees):
    assert reason(**degrees) == ""


@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries({}, optional={
    name: st.sampled_from(values) for name, values in CHOICES.items()
    if name in refusals.TRAINED}))
def test_a_recipe_is_refused_exactly_where_one_of_its_words_is(words):
    refused = [name for name, known in refusals.TRAINED.items()
               if name in words and words[name] not in known]
    found = reason(**words)
    assert bool(found) == bool(refused)
    if refused:
        assert found.split(" = ")[0] in refused


@pytest.mark.parametrize("kind", ["tpu", "other"])
def test_a_machine_of_another_kind_is_refused_by_its_kind(kind):
    machine = replace(RUN.machine, kind=kind)
    assert kind in refusals.reason(RUN.model, RUN.recipe, machine)
    with pytest.raises(InputError, match=kind) as caught:
        refusals.check(RUN.model, RUN.recipe, machine)
    assert caught.value.where == "machine.kind" and caught.value.mend


JOB = ServeJob()
OTHER = {"weight_precision": "nvfp4", "cache_precision": "fp8"}
NOT_RUN = tuple(WAYS["own"])
"""Fields of which our own engine runs some values only."""


def test_each_way_of_serving_is_run_or_refused():
    # counts of latency, traffic and lengths are what is asked for, not ways
    asked = {"requests_per_second", "prompt_tokens", "output_tokens", "max_batch", "max_tokens",
             "ttft_seconds", "tpot_seconds", "acceptance", "months", "prefix_hit_rate",
             "drafter_parameters"}
    # these run whatever they say
    asked |= {"replicas", "chunk_tokens", "drafted_tokens"}
    assert {field.name for field in fields(ServeJob)} == asked | set(NOT_RUN)


@pytest.mark.parametrize("name", NOT_RUN)
def test_a_refused_way_says_value_and_default(name):
    value = OTHER.get(name, 3)
    with pytest.raises(InputError) as caught:
        refuse_unknown_ways(replace(JOB, **{name: value}))
    assert f"serve.{name} = {value}" in caught.value.what
    assert f"serve.{name} = {getattr(JOB, name)}" in caught.value.mend
    refuse_unknown_ways(replace(JOB, **{name: getattr(JOB, name)}))


@settings(max_examples=30, deadline=None)
@given(names=st.sets(st.sampled_from(NOT_RUN), min_size=1, max_size=4))
def test_of_several_ways_the_first_is_named(names):
    job = replace(JOB, **{name: OTHER.get(name, 3) for name in names})
    with pytest.raises(InputError) as caught:
        refuse_unknown_ways(job)
    first = next(name for name in NOT_RUN if name in names)
    assert caught.value.what.startswith(f"serve.{first} = ")

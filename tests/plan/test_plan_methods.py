from __future__ import annotations

from importlib import import_module
from typing import get_args, get_type_hints

import pytest

from curbcut.plan import shapes
from curbcut.plan.methods import PRICED
from curbcut.plan.space import FREE_NAMES, ROW_NAMES
from curbcut.spec import Recipe
from curbcut.spec.methods import CATALOGUE
from curbcut.train.methods import RUNS


@pytest.mark.parametrize("name", sorted(PRICED))
def test_each_priced_method_is_known_and_its_function_exists(name):
    assert name in {method.name for method in CATALOGUE}
    module, _, function = PRICED[name].partition(":")
    assert callable(getattr(import_module(module), function))


def test_the_family_of_shapes_spans_the_scales_and_is_well_formed():
    family = list(shapes.family(4096, 1024))
    sizes = [shape.parameters for shape in family]
    assert min(sizes) < 1_000_000
    assert max(sizes) > 5_000_000_000
    for shape in family:
        assert shape.heads * shape.head_size == shape.width
        assert shape.heads % shape.kv_heads == 0
        assert shape.ffn % 64 == 0
        assert 2.3 < shape.ffn / shape.width < 3.1


def test_every_value_of_a_recipe_that_the_search_tries_is_a_method_that_is_priced():
    """What the search may choose is in the catalogue, so that nobody meets a name unexplained."""
    named = {"optimiser": "zero-1", "gradients": "zero-2", "parameters": "sharded-data-parallel",
             "selective": "selective-recompute", "full": "recompute",
             "interleaved": "interleaved-pipeline", "zero-bubble": "zero-bubble-pipeline",
             "gpipe": "pipeline-parallel", "1f1b": "pipeline-parallel", "ring": "context-parallel",
             "bf16": "bf16-master-weights", "activations": "activation-offload",
             "adamw": "fused-optimiser"}
    plain = {"none", "fp32"}
    hints = get_type_hints(Recipe)
    for field in (*FREE_NAMES, *ROW_NAMES):
        for value in set(get_args(hints[field])) - plain:
            name = "offload" if field == "offload" and value != "activations" else named.get(
                value, value)
            assert name in PRICED, (field, value)


def test_methods_that_only_the_plan_knows_are_refused_by_training():
    for name in ("diloco", "fp16", "mxfp8", "nvfp4", "lora", "sliding-window"):
        assert name in PRICED and name not in RUNS

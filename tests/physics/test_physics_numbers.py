"""Formulas meet floats and arrays alike."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.physics import numbers
from curbcut.spec.nouns import ModelShape, Recipe

SHAPE = ModelShape(layers=2, width=64, heads=4, kv_heads=2, head_size=16, ffn=128, vocab=256)
FINITE = st.floats(0.01, 1e9)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8))
@settings(max_examples=50)
def test_arrays_and_floats_agree(pairs: list[tuple[float, float]]) -> None:
    one, other = (np.array(column) for column in zip(*pairs, strict=True))
    for function in (numbers.larger, numbers.smaller):
        assert list(function(one, other)) == [function(a, b) for a, b in pairs]
    assert list(numbers.ceiling(one)) == [numbers.ceiling(a) for a, _ in pairs]
    assert list(numbers.log2(one)) == pytest.approx([numbers.log2(a) for a, _ in pairs])
    chosen = numbers.where(one > other, one, -other)
    assert list(chosen) == [numbers.where(a > b, a, -b) for a, b in pairs]
    assert list(numbers.is_not(one > other)) == [numbers.is_not(a > b) for a, b in pairs]


def test_plain_numbers_need_no_numpy() -> None:
    program = ("import sys; from curbcut.physics import numbers as n; "
               "n.where(n.larger(1, 2.0) > n.ceiling(1.5), 1, n.log2(8)); "
               "n.is_not(True); n.smaller(1, 2); sys.exit('numpy' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_choice_compares_by_name() -> None:
    column = numbers.Choice.of(["full", "none", "full"])
    assert list(column == "full") == [True, False, True]
    assert list(column != "full") == [False, True, False]
    assert list(column == "never") == [False] * 3


def test_columns_have_the_attributes_of_the_noun() -> None:
    wide = ModelShape(layers=3, width=128, heads=4, kv_heads=4, head_size=32, ffn=256, vocab=300,
                      attention="sliding", tied_embeddings=False)
    columns = numbers.columns([SHAPE, wide])
    assert list(columns.layers) == [2, 3]
    assert list(columns.parameters) == [SHAPE.parameters, wide.parameters]
    assert list(columns.attention == "sliding") == [False, True]
    assert list(columns.tied_embeddings) == [True, False]
    with pytest.raises(AttributeError, match="no column 'nothing'"):
        _ = columns.nothing


def test_columns_are_replaced_in_a_copy() -> None:
    recipe = Recipe(sequence_tokens=8, micro_batch=1, global_batch=4, precision="fp32",
                    learning_rate=1e-3)
    columns = numbers.columns([recipe, recipe])
    changed = columns.with_columns(tp=np.array([1.0, 2.0]))
    assert list(changed.tp) == [1, 2] and list(columns.tp) == [1, 1]
    assert list(changed.global_batch) == [4, 4]


def test_a_name_that_no_row_has_gives_flags_of_the_columns_own_shape():
    upright = numbers.Choice(np.array([[0], [1]], np.int8), ("full", "none"))
    for name in ("full", "none", "selective"):
        assert (upright == name).shape == (2, 1)
        assert (upright != name).shape == (2, 1)
    assert not (upright == "selective").any()

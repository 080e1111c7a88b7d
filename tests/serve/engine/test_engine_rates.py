import itertools

import pytest
import torch

from curbcut.errors import InputError
from curbcut.serve.engine import matrices, rates


def test_rates_are_parameters_over_seconds():
    ticks = itertools.count(step=0.25)
    found = rates.rates("same", (1, 3), repeats=2, matrices=2, seconds=lambda: next(ticks))
    assert found == {1: 2 * rates.OUTPUTS * rates.INPUTS / 0.25,
                     3: 2 * rates.OUTPUTS * rates.INPUTS / 0.25}


def test_each_pass_meets_each_matrix_with_the_rows_asked_for(monkeypatch):
    seen = []

    def make(weight, bias):
        assert weight.dtype == torch.float32
        return lambda x: seen.append((id(weight), *x.shape))

    monkeypatch.setattr(matrices, "KINDS", {"same": make})
    rates.rates("same", (4,), dtype=torch.float32, repeats=1, matrices=3)
    assert seen[:3] == seen[3:] and len({one for one, *_ in seen}) == 3
    assert {tuple(shape) for _, *shape in seen} == {(4, rates.INPUTS)}


def test_a_kind_without_kernels_has_no_rates(monkeypatch):
    def refuse(weight, bias):
        raise InputError("no kernels", where="here", mend="none")

    monkeypatch.setattr(matrices, "KINDS", {"int4": refuse})
    assert rates.rates("int4") == {}
    with pytest.raises(InputError):
        rates.rates("int5")

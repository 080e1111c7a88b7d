from __future__ import annotations

import pytest
import torch
from torch import nn

from curbcut.train.sums import Sums, settled


def parameters(dtype=torch.bfloat16, **values):
    compute = {name: nn.Parameter(torch.zeros(4, dtype=dtype)) for name in values}
    return compute, lambda **now: [setattr(compute[name], "grad", None if value is None else
                                           torch.full_like(compute[name], value))
                                   for name, value in now.items()]


def test_terms_add_up_in_fp32_and_are_freed():
    compute, give = parameters(a=0)
    sums = Sums()
    for value in (256.0, 0.5, 0.5):
        give(a=value)
        sums.add(compute, compute)
        assert compute["a"].grad is None
    assert sums.tensors["a"].dtype == torch.float32
    assert sums.tensors["a"].tolist() == [257.0] * 4


def test_memory_is_kept_and_written_over_in_the_next_step():
    compute, give = parameters(a=0)
    sums = Sums()
    give(a=3.0)
    sums.add(compute, compute)
    first = sums.tensors["a"].data_ptr()
    sums.begun.clear()
    give(a=5.0)
    sums.add(compute, compute)
    assert sums.tensors["a"].data_ptr() == first and sums.tensors["a"].tolist() == [5.0] * 4


def test_what_had_no_gradient_in_the_first_micro_batch_starts_afresh_in_the_second():
    compute, give = parameters(a=0, b=0)
    sums = Sums()
    give(a=1.0, b=7.0)
    sums.add(compute, compute)
    sums.begun.clear()
    give(a=1.0, b=None)
    sums.add(compute, compute)
    assert sums.begun == {"a"}
    give(a=1.0, b=2.0)
    sums.add(compute, compute)
    assert sums.tensors["a"].tolist() == [2.0] * 4
    assert sums.tensors["b"].tolist() == [2.0] * 4, "last step's 7 must not be in it"


def test_only_the_names_asked_for_are_taken():
    compute, give = parameters(a=0, b=0)
    give(a=1.0, b=1.0)
    sums = Sums()
    sums.add(compute, ["b"])
    assert set(sums.tensors) == {"b"} and compute["a"].grad is not None


def test_memory_can_be_given():
    compute, give = parameters(a=0)
    flat, sums = torch.zeros(8), Sums()
    sums.hold("a", compute["a"], flat[4:])
    give(a=2.0)
    sums.add(compute, compute)
    assert flat.tolist() == [0.0] * 4 + [2.0] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plain_gradient_is_settled_as_it_is(dtype):
    gradient = torch.ones(3, dtype=dtype)
    assert settled(gradient, nn.Parameter(gradient.clone())) is gradient

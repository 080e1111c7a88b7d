from __future__ import annotations

import pytest
import torch

from curbcut.errors import InputError
from curbcut.model.decoder import Decoder
from curbcut.train import precision
from tiny import tiny_run


def split(kind):
    model = Decoder(tiny_run().model)
    return model, precision.split_weights(model, kind)


def test_fp32_shares_tensors_and_bf16_does_not():
    _, same = split("fp32")
    assert not same.split
    model, apart = split("bf16")
    assert apart.split
    assert {p.dtype for p in apart.masters.values()} == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_masters_start_from_the_unrounded_weights():
    model = Decoder(tiny_run().model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    weights = precision.split_weights(model, "bf16")
    assert all(torch.equal(before[n], p) for n, p in weights.masters.items())


def test_small_updates_survive_in_the_masters():
    _, weights = split("bf16")
    name = next(iter(weights.masters))
    master = weights.masters[name]
    with torch.no_grad():
        master.fill_(1.0)
        for _ in range(100):
            master += 1e-4
    precision.publish_masters(weights)
    assert weights.compute[name].float().mean().item() == pytest.approx(1.01, abs=4e-3)


def test_gradients_add_up_in_fp32():
    _, weights = split("bf16")
    name, compute = next(iter(weights.compute.items()))
    for value in (256.0, 0.5, 0.5):
        compute.grad = torch.full_like(compute, value)
        precision.collect_gradients(weights)
        assert compute.grad is None
    precision.reduce_gradients(weights)
    # 256.5 does not exist in bf16: a bf16 sum would still be 256.
    assert torch.equal(weights.masters[name].grad, torch.full_like(weights.masters[name], 257.0))


def test_a_precision_that_does_not_run_is_refused():
    with pytest.raises(InputError, match="can be planned but not run"):
        split("mxfp8")

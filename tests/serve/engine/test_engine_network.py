from dataclasses import replace

import pytest
import torch

from curbcut.model.decoder import Decoder
from curbcut.serve.engine.cache import PagedCache, StepView
from curbcut.serve.engine.matrices import Plain
from curbcut.serve.engine.network import Network
from curbcut.serve.engine.packed import Packed, packable
from curbcut.serve.engine.threads import without_workers
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=97,
                   context_tokens=64, qk_norm=True)
CPU = torch.device("cpu")


def view_of(shape, count, dtype=torch.float32):
    cache = PagedCache(shape, 8, 8, dtype, CPU)
    return StepView(cache, [(list(range(8)), 0, count)], shape.heads // shape.kv_heads)


def test_hidden_states_are_the_decoders_and_weights_stay_as_they_were():
    model = Decoder(replace(SHAPE, qkv_bias=True, qk_norm=False)).requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tokens = torch.randint(97, (21,))
    network = Network(model)
    found = network.hidden(tokens, view_of(model.shape, 21))
    torch.testing.assert_close(found, model(tokens[None])[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.logits(found), model.logits(found), atol=1e-4, rtol=1e-4)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_each_matrix_can_be_touched_in_place():
    model = Decoder(SHAPE).requires_grad_(False)
    own = model.model.layers[1]
    extra = {"out": torch.randn_like(own.self_attn.o_proj.weight) * 0.05,
             "down": torch.randn_like(own.mlp.down_proj.weight) * 0.05}
    seen = []

    def touch(layer, name, read, made):
        seen.append((layer, name, read.shape[1], made.shape[1]))
        if layer == 1 and name in extra:
            made += read @ extra[name].T
    tokens = torch.arange(9)
    found = Network(model).hidden(tokens, view_of(SHAPE, 9), touch)
    own.self_attn.o_proj.weight += extra["out"]
    own.mlp.down_proj.weight += extra["down"]
    torch.testing.assert_close(found, model(tokens[None])[0], atol=1e-5, rtol=1e-4)
    assert seen == [(layer, *one) for layer in (0, 1) for one in (
        ("qkv", 32, 64), ("out", 32, 32), ("gate_up", 32, 96), ("down", 48, 32))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 5, 33])
@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_matrix_is_the_plain_one(dtype, rows, biased):
    weight = torch.randn(50, 34).to(dtype)
    if not packable(weight):
        pytest.skip(f"this CPU packs no {dtype}")
    bias = torch.randn(50).to(dtype) if biased else None
    x = torch.randn(rows, 34).to(dtype)
    near = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    packed, plain = Packed(weight, bias), Plain(weight, bias)
    torch.testing.assert_close(packed(x), plain(x), atol=near * 10, rtol=near)
    assert packed.bytes_ == plain.bytes_


def test_other_dtypes_are_not_packed():
    assert not packable(torch.zeros(4, 4, dtype=torch.float64))


def test_threads_are_as_before_even_after_a_failure():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), without_workers():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before

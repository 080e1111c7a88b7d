import math

import pytest
import torch
import torch.nn.functional as F

from curbcut.errors import InputError
from curbcut.model import kernels
from curbcut.model.config import config
from curbcut.model.decoder import Decoder, math_attention
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=97,
                   context_tokens=64)


def shape(**changes):
    from dataclasses import replace
    return replace(SHAPE, **changes)


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"tied_embeddings": False},
                                     {"head_size": 16, "kv_heads": 4}])
def test_parameters_are_as_many_as_the_shape_says(changes):
    model = Decoder(shape(**changes))
    assert sum(p.numel() for p in model.parameters()) == shape(**changes).parameters


def test_weights_depend_on_the_seed_only():
    one, two = Decoder(SHAPE), Decoder(SHAPE, "math")
    one.init_weights(7)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    two.init_weights(7)
    torch.set_num_threads(threads)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    two.init_weights(8)
    assert not torch.equal(one.head_weight, two.head_weight)


def test_residual_projections_start_smaller():
    model = Decoder(shape(layers=8, width=128, ffn=256))
    block = model.model.layers[0]
    assert block.mlp.up_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for matrix in (block.mlp.down_proj, block.self_attn.o_proj):
        assert matrix.weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.05)
    assert torch.equal(block.input_layernorm.weight, torch.ones(128))


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_both_attentions_agree_in_value_and_gradient(kv_heads):
    one, two = (Decoder(shape(kv_heads=kv_heads, qk_norm=True), k) for k in ("math", "fused"))
    tokens = torch.randint(0, 97, (3, 17))
    for model in (one, two):
        model.logits(model(tokens)).square().mean().backward()
    torch.testing.assert_close(one(tokens), two(tokens), atol=1e-5, rtol=1e-5)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-6, rtol=1e-4)


def test_masked_attention_is_torch_s():
    q, k, v = torch.randn(2, 6, 5, 8), torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    mask = torch.zeros(2, 1, 5, 9).masked_fill(torch.rand(2, 1, 5, 9) < 0.3, -math.inf)
    mask[..., 0] = 0
    expected = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    torch.testing.assert_close(math_attention(q, k, v, mask), expected, atol=1e-6, rtol=1e-5)


def test_a_model_that_has_served_can_train():
    model = Decoder(SHAPE, "math")
    tokens = torch.randint(0, 97, (1, 31))
    with torch.inference_mode():
        quiet = model(tokens)
    loud = model(tokens)
    loud.sum().backward()
    assert torch.equal(quiet, loud)


def test_the_future_is_not_seen():
    model = Decoder(SHAPE, "math")
    tokens = torch.randint(0, 97, (1, 12))
    changed = tokens.clone()
    changed[0, 8:] = (changed[0, 8:] + 1) % 97
    assert torch.equal(model(tokens)[0, :8], model(changed)[0, :8])
    assert not torch.equal(model(tokens)[0, 8:], model(changed)[0, 8:])


def test_positions_given_are_positions_counted():
    model = Decoder(SHAPE)
    tokens = torch.randint(0, 97, (2, 10))
    positions = torch.arange(10).expand(2, 10)
    assert torch.equal(model(tokens), model(tokens, positions=positions))


def test_attention_sees_distances_not_places():
    model = Decoder(SHAPE)
    tokens = torch.randint(0, 97, (1, 10))
    torch.testing.assert_close(model(tokens), model(tokens, positions=torch.arange(20, 30)[None]),
                               atol=1e-5, rtol=1e-4)


def test_longer_than_the_context_still_computes():
    assert Decoder(SHAPE)(torch.zeros(1, 70, dtype=torch.long)).shape == (1, 70, 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_is_the_library_s(dtype):
    x = torch.randn(4, 6, 32, dtype=dtype, requires_grad=True)
    weight = (1 + torch.randn(32) / 10).to(dtype).requires_grad_()
    grad = torch.randn(4, 6, 32, dtype=dtype)
    ours = kernels.rms_norm(x, weight, 1e-6)
    mine = torch.autograd.grad(ours, (x, weight), grad)
    wide_x, wide_weight = (t.detach().double().requires_grad_() for t in (x, weight))
    exact = F.rms_norm(wide_x, (32,), wide_weight, 1e-6)
    truth = torch.autograd.grad(exact, (wide_x, wide_weight), grad.double())
    allowed = {torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    for a, b in zip((ours, *mine), (exact, *truth), strict=True):
        torch.testing.assert_close(a.double(), b, atol=allowed * 3, rtol=allowed)


def test_kernels_pass_gradcheck():
    x = torch.randn(2, 3, 2, 8, dtype=torch.double, requires_grad=True)
    weight = torch.randn(8, dtype=torch.double, requires_grad=True)
    cos, sin = (torch.randn(1, 3, 1, 4, dtype=torch.double) for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, w: kernels.rms_norm(a, w, 1e-6), (x, weight))
    # gradcheck holds only for true rotations: cos^2 + sin^2 = 1
    length = (cos.square() + sin.square()).sqrt()
    assert torch.autograd.gradcheck(lambda a: kernels.rotate(a, cos / length, sin / length), (x,))


@pytest.mark.parametrize(("changes", "what"), [
    ({"experts": 8}, "experts without expert_ffn"),
    ({"attention": "sliding"}, "sliding attention"),
    ({"attention": "mla"}, "mla attention"), ({"kv_heads": 3}, "kv_heads"),
    ({"head_size": 7}, "odd head size"), ({"feed_forward": "plain"}, "plain feed-forward"),
    ({"full_every": 2}, "full_every"), ({"kv_rank": 8}, "kv_rank"), ({"rope_size": 8}, "rope_size"),
    ({"shared_experts": 1}, "shared_experts"), ({"dense_layers": 1}, "dense_layers")])
def test_a_shape_that_cannot_be_built_is_refused_by_name(changes, what):
    with pytest.raises(InputError, match=f"cannot be built with .*{what}"):
        Decoder(shape(**changes))
    with pytest.raises(InputError, match=what):
        config(shape(**changes))


def test_bf16_stays_near_fp32():
    model = Decoder(shape(qk_norm=True), "math")
    tokens = torch.randint(0, 97, (2, 32))
    exact = model.logits(model(tokens))
    rough = model.to(torch.bfloat16)
    logits = rough.logits(rough(tokens))
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max() + 0.02


def test_trains():
    torch.manual_seed(0)
    model = Decoder(SHAPE, "math")
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tokens = torch.randint(0, 97, (1, 33))
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model.logits(model(tokens[:, :-1]))[0], tokens[0, 1:])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(97), rel=0.05) and losses[-1] < 0.5

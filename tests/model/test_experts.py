"""The sparse feed-forward: against plain loops, its gradients, its balance, its names on disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.model import experts, grouped, weights
from curbcut.model.decoder import Decoder
from curbcut.model.initial import initial
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=3, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=97,
                   context_tokens=64, experts=6, experts_per_token=2, expert_ffn=24, qk_norm=True,
                   tied_embeddings=False)
TOKENS = torch.arange(40).view(2, 20) * 7 % 97


def layer_of(dtype=torch.float64, **changes) -> experts.SparseFeedForward:
    torch.manual_seed(0)
    layer = experts.SparseFeedForward(replace(SHAPE, **changes))
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer.to(dtype)


def by_hand(layer: experts.SparseFeedForward, x: torch.Tensor) -> torch.Tensor:
    """One token after the other, as the papers write it."""
    silu, made = torch.nn.functional.silu, layer.experts
    out = []
    for token in x:
        probabilities = (layer.gate.weight @ token).softmax(-1)
        best = probabilities.argsort(descending=True)[:layer.gate.top]
        total = probabilities[best].sum()
        sums = sum(probabilities[e] / total * (made.down_proj[e] @ (
            silu(made.gate_proj[e] @ token) * (made.up_proj[e] @ token))) for e in best)
        if layer.shared_experts is not None:
            sums = sums + layer.shared_experts(token)
        out.append(sums)
    return torch.stack(out)


@pytest.mark.parametrize("changes", [{}, {"experts_per_token": 1}, {"experts_per_token": 6},
                                     {"shared_experts": 2}, {"experts": 1, "experts_per_token": 1}])
def test_output_and_gradients_are_those_of_a_loop_over_tokens(changes):
    layer = layer_of(**changes)
    x = torch.randn(11, SHAPE.width, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(11, SHAPE.width, dtype=torch.float64)
    wanted = [x, *layer.parameters()]
    ours, theirs = layer(x), by_hand(layer, x)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(torch.autograd.grad(ours, wanted, slope),
                    torch.autograd.grad(theirs, wanted, slope), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 4))
def test_grouped_linear_is_a_matmul_a_group(sizes, inner, outer):
    rows = torch.randn(sum(sizes), inner, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(len(sizes), outer, inner, dtype=torch.float64, requires_grad=True)
    ours = grouped.grouped_linear(rows, weight, torch.tensor(sizes), sizes)
    theirs = torch.cat([part @ one.T for part, one in zip(rows.split(sizes), weight, strict=True)])
    assert torch.equal(ours, theirs)
    slope = torch.randn_like(theirs)
    for a, b in zip(torch.autograd.grad(ours, (rows, weight), slope),
                    torch.autograd.grad(theirs, (rows, weight), slope), strict=True):
        torch.testing.assert_close(a, b)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 99))
def test_rows_come_back_in_the_order_of_tokens(tokens, top, seed):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, 3, dtype=torch.float64, generator=source, requires_grad=True)
    shares = torch.rand(tokens, top, dtype=torch.float64, generator=source, requires_grad=True)
    order = torch.randperm(tokens * top, generator=source)
    inverse = order.argsort()
    back = grouped.mix(grouped.spread(x, order, inverse), shares, order, inverse)
    torch.testing.assert_close(back, x * shares.sum(1, keepdim=True))
    assert torch.autograd.gradcheck(lambda a, b: grouped.mix(
        grouped.spread(a, order, inverse), b, order, inverse), (x, shares))


def test_the_router_is_fp32_whatever_the_weights_are():
    layer = layer_of(torch.bfloat16)
    route = layer.gate(torch.randn(9, SHAPE.width, dtype=torch.bfloat16))
    assert route.probabilities.dtype == route.weights.dtype == torch.float32
    torch.testing.assert_close(route.probabilities.sum(1), torch.ones(9))
    torch.testing.assert_close(route.weights.sum(1), torch.ones(9))
    assert route.counts.sum() == 9 * SHAPE.experts_per_token
    assert layer(torch.randn(9, SHAPE.width, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_balance_loss_is_added_to_the_gradient_and_never_to_the_value():
    layer, x = layer_of(), torch.randn(2, 7, SHAPE.width, dtype=torch.float64)
    slope = torch.randn_like(x)
    plain = layer(x)
    (before,) = torch.autograd.grad(plain, [layer.gate.weight], slope)
    layer.gate.balance = 0.3
    balanced = layer(x)
    assert torch.equal(plain, balanced)
    (after,) = torch.autograd.grad(balanced, [layer.gate.weight], slope)
    flat = x.flatten(0, 1)
    probabilities = (flat @ layer.gate.weight.T).softmax(-1)
    often = layer.gate(flat).counts / len(flat)
    loss = 0.3 * SHAPE.experts * (often * probabilities.mean(0)).sum()
    (wanted,) = torch.autograd.grad(loss, [layer.gate.weight])
    torch.testing.assert_close(after - before, wanted)


def test_balance_is_the_same_under_recompute():
    layer, x = layer_of(), torch.randn(7, SHAPE.width, dtype=torch.float64, requires_grad=True)
    layer.gate.balance = 0.3
    plain = torch.autograd.grad(layer(x).sum(), [x, *layer.parameters()])
    again = torch.autograd.grad(
        torch.utils.checkpoint.checkpoint(layer, x, use_reentrant=False).sum(),
        [x, *layer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def train(balance: float) -> tuple[list[float], float]:
    """Losses of 60 steps on a text that favours few tokens, and the busiest expert's share."""
    model = Decoder(replace(SHAPE, layers=2), "math")
    for _, layer in experts.sparse(model):
        layer.gate.balance = balance
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    source, losses = torch.Generator().manual_seed(0), []
    for step in range(60):
        if step == 50:
            experts.loads(model)
        starts = torch.randint(0, 5, (8, 1), generator=source)
        tokens = (starts + torch.arange(21) ** 2) % 13
        loss = model(tokens[:, :-1], targets=tokens[:, 1:])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses, experts.busiest(experts.loads(model))


def test_a_tiny_mixture_learns_and_the_balance_loss_keeps_its_experts_busy():
    plain, plainly = train(0.0)
    losses, balanced = train(0.05)
    assert losses[-1] < 0.5 * losses[0] and plain[-1] < 0.5 * plain[0]
    assert balanced < plainly and balanced < 1.6


def test_loads_count_each_token_once_for_each_of_its_experts():
    model = Decoder(replace(SHAPE, dense_layers=1))
    model(TOKENS)
    found = experts.loads(model)
    assert sorted(found) == ["model.layers.1.mlp", "model.layers.2.mlp"]
    assert all(sum(one) == TOKENS.numel() * 2 for one in found.values())
    assert experts.loads(model) == {} and experts.busiest({}) is None
    assert experts.busiest({"a": [2, 0, 1, 1], "b": [1, 1, 1, 1]}) == 2.0


def test_parameters_are_those_the_shape_counts():
    for changes in ({}, {"shared_experts": 2, "dense_layers": 2}, {"qk_norm": False}):
        shape = replace(SHAPE, **changes)
        with torch.device("meta"):
            model = Decoder(shape)
        assert sum(p.numel() for p in model.parameters()) == shape.parameters


def test_each_expert_starts_from_its_own_name():
    stack = initial("model.layers.1.mlp.experts.down_proj", (6, 32, 24), SHAPE, 3)
    one = initial("model.layers.1.mlp.experts.4.down_proj.weight", (32, 24), SHAPE, 3)
    assert torch.equal(stack[4], one) and not torch.equal(stack[3], one)
    assert stack.std() == pytest.approx(0.02 / 6**0.5, rel=0.05)
    up = initial("model.layers.1.mlp.experts.up_proj", (6, 24, 32), SHAPE, 3)
    assert up.std() == pytest.approx(0.02, rel=0.05)


LOADED = {"Qwen3MoeForCausalLM": {}, "Qwen3MoeForCausalLM, dense first": {"dense_layers": 2},
          "Qwen3MoeForCausalLM, tied": {"tied_embeddings": True},
          "MixtralForCausalLM": {"qk_norm": False, "rope_theta": 1e6, "ffn": 24}}


@pytest.mark.parametrize("name", LOADED)
def test_transformers_loads_what_we_save_with_equal_logits(tmp_path, name):
    transformers = pytest.importorskip("transformers")
    shape = replace(SHAPE, **LOADED[name])
    model = Decoder(shape)
    model.init_weights(5)
    weights.save(model, shape, tmp_path)
    theirs, told = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float32)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    assert type(theirs).__name__ == name.split(",")[0]
    with torch.no_grad():
        ours = model.logits(model(TOKENS))
        assert (ours - theirs.eval()(TOKENS).logits).abs().max() <= 1e-4
    theirs.save_pretrained(tmp_path / "back")
    loaded, found = weights.load(tmp_path / "back")
    assert found == shape
    for (key, a), b in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(a, b), key


def test_names_on_disk_are_those_of_qwen3_moe(tmp_path):
    from safetensors.torch import load_file
    weights.save(Decoder(SHAPE), SHAPE, tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert found["model.layers.0.mlp.gate.weight"].shape == (6, 32)
    assert found["model.layers.2.mlp.experts.5.gate_proj.weight"].shape == (24, 32)
    assert found["model.layers.2.mlp.experts.0.down_proj.weight"].shape == (32, 24)


@pytest.mark.parametrize("changes", [{"shared_experts": 2}, {"qk_norm": False, "dense_layers": 1},
                                     {"shared_experts": 1, "dense_layers": 2}])
def test_what_no_architecture_says_has_a_layout_of_ours(tmp_path, changes):
    shape = replace(SHAPE, **changes)
    model = Decoder(shape)
    model.init_weights(2)
    weights.save(model, shape, tmp_path)
    assert weights.config(shape)["model_type"] == "curbcut_moe"
    loaded, found = weights.load(tmp_path)
    assert found == shape
    with torch.no_grad():
        assert torch.equal(model(TOKENS), loaded(TOKENS))


def test_a_folder_without_one_expert_names_it(tmp_path):
    from safetensors.torch import load_file, save_file

    from curbcut.errors import DamagedFile
    weights.save(Decoder(SHAPE), SHAPE, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    del tensors[name]
    save_file(tensors, path)
    with pytest.raises(DamagedFile, match=f"{name} is missing"):
        weights.load(tmp_path)


@pytest.mark.parametrize(("changes", "named"), [
    ({"norm_topk_prob": False}, "norm_topk_prob"), ({"decoder_sparse_step": 2}, "sparse_step"),
    ({"mlp_only_layers": [1]}, "mlp_only_layers"), ({"num_experts_per_tok": -1}, "experts_per")])
def test_a_mixture_that_routes_otherwise_is_refused(changes, named):
    from curbcut.errors import InputError
    with pytest.raises(InputError, match=named):
        weights.shape_of(weights.config(SHAPE) | changes)


@pytest.mark.parametrize("name", ["Qwen3-30B-A3B", "Qwen3-235B-A22B", "Qwen3-Coder-30B-A3B",
                                  "Mixtral-8x7B", "Mixtral-8x22B"])
def test_presets_with_experts_are_built_and_their_published_size_is_met(name):
    from curbcut.facts import presets
    from curbcut.spec import codec
    shape = codec.build(ModelShape, presets.shape(name))
    with torch.device("meta"):
        model = Decoder(shape)
    built = sum(p.numel() for p in model.parameters())
    assert built == shape.parameters
    assert built == pytest.approx(presets.published_parameters(name), rel=0.02)
    told = weights.shape_of(weights.config(shape))
    assert replace(told, ffn=shape.ffn, preset=name) == shape


@pytest.mark.gpu
def test_the_grouped_kernel_is_the_loop():
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    layer = layer_of(torch.bfloat16).cuda()
    x = torch.randn(64, SHAPE.width, dtype=torch.bfloat16, device="cuda")
    assert grouped.fused(x, layer.experts.gate_proj)
    slope, wanted = torch.randn_like(x), list(layer.parameters())
    fast = [layer(x), *torch.autograd.grad(layer(x), wanted, slope)]
    counts = layer.gate(x).counts.tolist()
    plain = layer.double()
    slow = [plain(x.double()), *torch.autograd.grad(plain(x.double()), wanted, slope.double())]
    assert sum(counts) == 128
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0.05, atol=0.05)

"""What autograd really saves in our decoder against the formula, and the peak of real tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from curbcut.model import loss
from curbcut.model.decoder import Decoder
from curbcut.physics import activations, memory
from curbcut.physics.memory_constants import memory_constants
from curbcut.spec import ModelShape, Recipe

RECIPE = Recipe(sequence_tokens=256, micro_batch=2, global_batch=2, precision="fp32",
                learning_rate=1e-3)
SHAPE = ModelShape(layers=2, width=128, heads=4, kv_heads=4, head_size=32, ffn=384, vocab=512)
SHAPES = [SHAPE, replace(SHAPE, qk_norm=True), replace(SHAPE, kv_heads=2),
          replace(SHAPE, width=256, heads=8, kv_heads=1, ffn=512, qk_norm=True),
          replace(SHAPE, width=192, heads=6, kv_heads=3, ffn=640, tied_embeddings=False)]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def saved_bytes(shape: ModelShape, recipe: Recipe) -> int:
    """Bytes of the unique storages that autograd keeps over one forward pass, weights apart."""
    model = Decoder(shape, recipe.attention).to(DTYPES[recipe.precision])
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.zeros((recipe.micro_batch, recipe.sequence_tokens), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = model(tokens)
    assert hidden.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["math", "fused"])
@pytest.mark.parametrize("shape", SHAPES)
def test_bytes_that_a_layer_saves(shape, attention, precision):
    recipe = replace(RECIPE, attention=attention, precision=precision)
    two, four = (saved_bytes(replace(shape, layers=n), recipe) for n in (2, 4))
    tokens = recipe.micro_batch * recipe.sequence_tokens
    counted = (four - two) / 2 / tokens
    formula = activations.whole_layer_bytes(shape, recipe, memory_constants("torch", "cpu"))
    assert formula == pytest.approx(counted, rel=0.015)
    # the elements, as elementwise time counts them, leave out the copy of fused attention's output
    elements = memory.layer_elements(shape, recipe) * memory.activation_bytes(recipe)
    assert elements == pytest.approx(counted, rel=0.08)


@pytest.mark.parametrize("attention", ["math", "fused"])
def test_bytes_that_the_whole_model_saves(attention):
    recipe = replace(RECIPE, attention=attention)
    shape = replace(SHAPE, layers=6)
    known = memory_constants("torch", "cpu")
    formula = memory.activations(shape, recipe, known)
    formula += 2 * 4 * recipe.micro_batch * recipe.sequence_tokens * shape.width  # the last norm
    assert formula == pytest.approx(saved_bytes(shape, recipe), rel=0.04)


def test_states_of_a_real_optimiser():
    model = Decoder(SHAPE, "math")
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.zeros((1, 4), dtype=torch.long)).sum().backward()
    optimiser.step()
    held = sum(p.nbytes + p.grad.nbytes for p in model.parameters())
    held += sum(value.nbytes for state in optimiser.state.values()
                for name, value in state.items() if name != "step")
    parts = memory.training(SHAPE, RECIPE, "cpu")
    assert held == parts["parameters"] + parts["gradients"] + parts["optimiser"]


def traced_peak(shape: ModelShape, recipe: Recipe) -> int:
    """Bytes of tensors alive at the fullest moment of a training step, by the profiler's count of
    what the allocator gave and took back.
    """
    model = Decoder(shape, recipe.attention)
    optimiser = torch.optim.AdamW(model.parameters(), foreach=False)
    tokens = torch.zeros((recipe.micro_batch, recipe.sequence_tokens), dtype=torch.long)

    def step() -> None:
        hidden = model(tokens).flatten(0, 1)
        loss.head_loss(hidden, model.head_weight, tokens.flatten()).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    step()
    loss._scratch.clear()  # kept from step to step: the traced one makes it again
    before = sum(p.nbytes for p in model.parameters())
    before += sum(value.nbytes for state in optimiser.state.values() for value in state.values())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU],
                                profile_memory=True) as traced:
        step()
    events = [event for event in traced.profiler.kineto_results.events()
              if event.name() == "[memory]"]
    held, peak = before, before
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    assert peak > before
    return peak


@pytest.mark.parametrize(("shape", "changed"), [
    ({}, {}), ({"layers": 8}, {}), ({}, {"attention": "fused"}),
    ({}, {"micro_batch": 8, "global_batch": 8}), ({"vocab": 8192}, {}),
    ({"width": 256, "heads": 8, "kv_heads": 2, "ffn": 704, "qk_norm": True}, {}),
    ({"experts": 4, "experts_per_token": 2, "expert_ffn": 192}, {})])
def test_peak_of_a_traced_step(shape, changed):
    recipe = replace(RECIPE, **{"attention": "math", "micro_batch": 4, "global_batch": 4,
                                **changed})
    shape = replace(SHAPE, **{"layers": 4, **shape})
    parts = memory.training(shape, recipe, "cpu")
    assert parts["peak"] - parts["overhead"] == pytest.approx(traced_peak(shape, recipe), rel=0.07)

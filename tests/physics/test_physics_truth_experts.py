"""A mixture of experts: FLOPs, messages and kept bytes of our own against what the physics says."""

from __future__ import annotations

from dataclasses import replace

import pytest

import ranks
from curbcut.physics import activations, flops, operations
from curbcut.physics.memory_constants import memory_constants
from curbcut.spec import ModelShape, Recipe
from tiny import tiny_run

torch = pytest.importorskip("torch")
from torch.distributed.tensor import DTensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from curbcut.model.decoder import Decoder  # noqa: E402

SPARSE = {"experts": 4, "experts_per_token": 2, "expert_ffn": 24}
SHAPE = ModelShape(layers=3, width=64, heads=4, kv_heads=2, head_size=16, ffn=96, vocab=101,
                   qk_norm=True, tied_embeddings=False, **SPARSE)
KINDS = {"alltoall_base_": "all_to_all", "_allgather_base_": "all_gather",
         "_reduce_scatter_base_": "reduce_scatter"}


class Heard(TorchDispatchMode):
    """Bytes and number of messages by kind; counts of tokens go as integers and are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_: dict[str, int] = {}
        self.times: dict[str, int] = {}

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        kind = KINDS.get(op.__name__.partition(".")[0])
        if op.namespace == "c10d" and kind and args[1].is_floating_point():
            size = args[1].nbytes if kind != "all_gather" else args[0].nbytes
            self.bytes_[kind] = self.bytes_.get(kind, 0) + size
            self.times[kind] = self.times.get(kind, 0) + 1
        return op(*args, **(kwargs or {}))


def heard(place, run, applied):
    from curbcut.train.parallel import build
    if not applied:
        build.experts.apply = lambda model, world, recipe: model
        build.sharded.experts.shard = lambda *given, **options: None
    _, _, passes = build.build(run, place)
    rows = run.recipe.global_batch // (run.recipe.dp_replicate * run.recipe.dp_shard)
    source = torch.Generator().manual_seed(place.data_rank)
    tokens = torch.randint(0, run.model.vocab, (rows, run.recipe.sequence_tokens),
                           generator=source)
    with Heard() as ears:
        passes.gradients(tokens, tokens)
    return ears.bytes_, ears.times


LAYOUTS = {"ep 2": {"dp_shard": 2, "ep": 2}, "ep 4": {"dp_shard": 4, "ep": 4, "micro_batch": 1},
           "ep 2 x fsdp 2": {"dp_shard": 4, "ep": 2, "micro_batch": 1},
           "made again": {"dp_shard": 2, "ep": 2, "recompute": "full"},
           "accumulated": {"dp_shard": 2, "ep": 2, "micro_batch": 1}}


def mean_over_ranks(told, part):
    kinds = {kind for one in told for kind in one[part]}
    return {kind: sum(one[part].get(kind, 0) for one in told) / len(told) for kind in kinds}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_messages_are_those_of_the_real_layout(layout):
    """A rank gets as many rows as its experts are asked for: even only as a mean over ranks."""
    run = tiny_run(model=SPARSE | {"shared_experts": 1, "dense_layers": 1, "layers": 3},
                   recipe=LAYOUTS[layout])
    told = ranks.spawn(heard, run.recipe, run, True)
    foretold = operations.collectives(run.model, run.recipe)
    for kind, found in mean_over_ranks(told, 0).items():
        said = sum(one.step_bytes for one in foretold if one.kind == kind)
        assert found == pytest.approx(said), kind
    exchanges = sum(one.times for one in foretold if one.kind == "all_to_all")
    assert mean_over_ranks(told, 1)["all_to_all"] == exchanges


def test_no_message_is_heard_where_experts_are_not_spread():
    run = tiny_run(model=SPARSE, recipe=LAYOUTS["ep 2"])
    assert all("all_to_all" not in one[0] for one in ranks.spawn(heard, run.recipe, run, False))


@pytest.mark.parametrize("changes", [{}, {"experts_per_token": 1}, {"experts_per_token": 4},
                                     {"shared_experts": 2, "dense_layers": 1}])
def test_flops_of_the_sparse_decoder_are_exact(changes):
    shape = replace(SHAPE, **changes)
    model = Decoder(shape, "math")
    tokens = torch.arange(2 * 150).view(2, 150) % shape.vocab
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model.logits(model(tokens))
    with FlopCounterMode(display=False) as training:
        model.logits(model(tokens)).sum().backward()
    expected = flops.forward_flops(shape, 150, "blocks").total * tokens.numel()
    assert forward.get_total_flops() == round(expected)
    assert training.get_total_flops() == round(flops.TRAINING_OVER_FORWARD * expected)
    assert sum(p.numel() for p in model.parameters()) == shape.parameters


def saved_bytes(shape: ModelShape, recipe: Recipe) -> int:
    """Bytes of the unique storages that autograd keeps over one forward pass, weights apart."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[recipe.precision]
    model = Decoder(shape, recipe.attention).to(dtype)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    tokens = torch.zeros((recipe.micro_batch, recipe.sequence_tokens), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        assert model(tokens).requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("changes", [
    {}, {"experts_per_token": 1, "expert_ffn": 96}, {"experts_per_token": 4},
    {"shared_experts": 2}, {"width": 256, "expert_ffn": 64, "experts": 16}])
def test_bytes_that_a_sparse_layer_saves(changes, precision):
    shape = replace(SHAPE, **{"width": 128, "head_size": 32, **changes})
    recipe = Recipe(sequence_tokens=256, micro_batch=2, global_batch=2, precision=precision,
                    learning_rate=1e-3)
    two, four = (saved_bytes(replace(shape, layers=n), recipe) for n in (2, 4))
    counted = (four - two) / 2 / (recipe.micro_batch * recipe.sequence_tokens)
    known = memory_constants("torch", "cpu")
    formula = activations.whole_layer_bytes(replace(shape, layers=2), recipe, known)
    assert formula == pytest.approx(counted, rel=0.015)

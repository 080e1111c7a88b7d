"""Collectives against those that torch's own DDP, FSDP2 and tensor parallelism start on our
decoder, counted on one CPU under a fake process group of up to 64 ranks.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import pytest

from curbcut.physics import operations
from curbcut.spec import ModelShape, Recipe

torch = pytest.importorskip("torch")
pytest.importorskip("torch.testing._internal.distributed.fake_pg")
import torch.distributed as dist  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributed.device_mesh import init_device_mesh  # noqa: E402
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard  # noqa: E402
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard  # noqa: E402
from torch.distributed.tensor import parallel as tensor  # noqa: E402
from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from curbcut.model.decoder import Decoder  # noqa: E402

SHAPE = {"layers": 3, "width": 64, "heads": 8, "kv_heads": 8, "head_size": 8, "ffn": 128,
         "vocab": 128, "tied_embeddings": False}
MICRO_BATCH, SEQUENCE = 2, 32
KINDS = {"_allgather_base_": "all_gather", "_reduce_scatter_base_": "reduce_scatter",
         "allreduce_": "all_reduce", "all_reduce": "all_reduce",
         "all_gather_into_tensor": "all_gather", "reduce_scatter_tensor": "reduce_scatter"}


class Heard(TorchDispatchMode):
    """Every collective that is started: kind and bytes of payload, as `Collective` says them."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: Counter = Counter()

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        name = op.__name__.partition(".")[0]
        if op.namespace in ("c10d", "_c10d_functional") and name in KINDS:
            kind, sizes = KINDS[name], [x.nbytes for x in _tensors(args)]
            if name == "all_gather_into_tensor":  # the functional form is handed the part alone
                sizes = [sizes[0] * args[1]]
            self.messages[kind, max(sizes)] += 1
        return op(*args, **(kwargs or {}))


def _tensors(value) -> list:
    if isinstance(value, torch.Tensor):
        return [value]
    return [x for part in value for x in _tensors(part)] if isinstance(value, (list, tuple)) else []


@contextmanager
def world(ranks: int):
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Scored(nn.Module):
    """The decoder with its head and the loss, so that whatever wraps it sees one forward."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1])[None]  # of the whole sequence, were it shared
        hidden = self.decoder(tokens, positions)
        head = getattr(self.decoder, "lm_head", self.decoder.logits)
        return F.cross_entropy(head(hidden).flatten(0, 1).float(), tokens.flatten())


def shape_of(**changes) -> ModelShape:
    return ModelShape(**(SHAPE | changes))


def recipe_of(accumulation: int = 1, precision: str = "fp32", **degrees) -> Recipe:
    data = degrees.get("dp_replicate", 1) * degrees.get("dp_shard", 1)
    return Recipe(sequence_tokens=SEQUENCE, micro_batch=MICRO_BATCH, precision=precision,
                  global_batch=MICRO_BATCH * accumulation * data, learning_rate=1e-3, **degrees)


def heard(model: nn.Module, accumulation: int = 1, once: bool = False) -> Counter:
    """Messages of a step; with `once` replicas are told to meet in its last micro-batch alone."""
    tokens = torch.zeros(MICRO_BATCH, SEQUENCE, dtype=torch.long)
    with Heard() as ears, tensor.loss_parallel():
        for micro in range(accumulation):
            if once:
                model.set_requires_all_reduce(micro == accumulation - 1)
            model(tokens).backward()
    return ears.messages


def foretold(shape: ModelShape, recipe: Recipe, elements=None, leave: str = "") -> Counter:
    found = operations.collectives(shape, recipe, elements)
    said: Counter = Counter()
    for each in found:
        if each.name != leave:
            said[each.kind, int(each.bytes_)] += each.times
    return said


def sharded(shape: ModelShape, mesh, **options) -> nn.Module:
    model = Scored(Decoder(shape))
    for block in model.decoder.model.layers:
        fully_shard(block, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


@pytest.mark.parametrize(("ranks", "tied"), [(8, False), (16, True), (64, False)])
def test_ddp_reduces_every_gradient_once(ranks, tied):
    """DDP's buckets are of another size than a layer; their sum and kind are the same."""
    shape, recipe = shape_of(tied_embeddings=tied), recipe_of(dp_replicate=ranks)
    sizes = []

    def hook(state, bucket):
        sizes.append(bucket.buffer().nbytes)
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    with world(ranks):
        model = nn.parallel.DistributedDataParallel(Scored(Decoder(shape)))
        model.register_comm_hook(None, hook)
        heard(model)
    found = operations.collectives(shape, recipe)
    assert {(each.kind, each.ranks) for each in found} == {("all_reduce", ranks)}
    assert sum(each.step_bytes for each in found) == sum(sizes) == 4 * shape.parameters


@pytest.mark.parametrize(("ranks", "accumulation", "tied", "layers"), [
    (8, 1, False, 3), (8, 3, False, 2), (16, 2, True, 4), (32, 1, False, 2), (64, 2, False, 3)])
def test_fsdp_gathers_twice_and_scatters_once_a_layer_and_micro_batch(ranks, accumulation, tied,
                                                                      layers):
    shape = shape_of(tied_embeddings=tied, layers=layers)
    with world(ranks):
        model = sharded(shape, init_device_mesh("cpu", (ranks,)))
        messages = heard(model, accumulation)
    assert messages == foretold(shape, recipe_of(accumulation, dp_shard=ranks))


@pytest.mark.parametrize("ranks", [8, 64])
def test_fsdp_in_bf16_with_gradients_reduced_in_fp32(ranks):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    with world(ranks):
        model = sharded(shape_of(), init_device_mesh("cpu", (ranks,)), mp_policy=policy)
        messages = heard(model)
    recipe = recipe_of(precision="bf16", dp_shard=ranks)
    assert operations.element_bytes(recipe) == operations.ElementBytes(2, 2, 2)
    assert messages == foretold(shape_of(), recipe, operations.ElementBytes(2, 4, 2))


@pytest.mark.parametrize(("replicas", "shards"), [(2, 4), (4, 16), (2, 32)])
def test_hsdp_reduces_what_was_scattered_over_replicas(replicas, shards):
    with world(replicas * shards):
        mesh = init_device_mesh("cpu", (replicas, shards), mesh_dim_names=("replica", "shard"))
        messages = heard(sharded(shape_of(), mesh), 2, once=True)
    assert messages == foretold(shape_of(), recipe_of(2, dp_replicate=replicas, dp_shard=shards))


def cut(shape: ModelShape, mesh, along: bool) -> Scored:
    """Tensor parallelism as torchtitan does it, with the loss on pieces of the vocabulary. Our
    norms have kernels of their own that know no DTensor: torch's stand in, with the same weights.
    """
    model = Scored(Decoder(shape))
    kept = Shard(1) if along else Replicate()

    def whole(*rest):
        return tensor.PrepareModuleInput(input_layouts=(kept, *rest), use_local_output=False,
                                         desired_input_layouts=(Replicate(), *rest))

    columns, rows = tensor.ColwiseParallel, tensor.RowwiseParallel
    plan = {"self_attn": whole(None, None), "mlp": whole(), "self_attn.q_proj": columns(),
            "self_attn.k_proj": columns(), "self_attn.v_proj": columns(),
            "self_attn.o_proj": rows(output_layouts=kept), "mlp.gate_proj": columns(),
            "mlp.up_proj": columns(), "mlp.down_proj": rows(output_layouts=kept)}
    ends = {"decoder.model.embed_tokens": rows(input_layouts=Replicate(), output_layouts=kept),
            "decoder.lm_head": columns(input_layouts=kept, output_layouts=Shard(-1),
                                       use_local_output=False)}
    if along:
        norms = tensor.SequenceParallel
        for block in model.decoder.model.layers:
            block.input_layernorm = nn.RMSNorm(shape.width)
            block.post_attention_layernorm = nn.RMSNorm(shape.width)
        model.decoder.model.norm = nn.RMSNorm(shape.width)
        plan |= {"input_layernorm": norms(use_local_output=True),
                 "post_attention_layernorm": norms(use_local_output=True)}
        ends["decoder.model.norm"] = norms(use_local_output=True)
    for block in model.decoder.model.layers:
        tensor.parallelize_module(block, mesh, plan)
    tensor.parallelize_module(model, mesh, ends)
    return model


@pytest.mark.parametrize(("tp", "accumulation", "layers"), [(2, 1, 3), (8, 2, 2), (8, 1, 4)])
def test_tensor_parallelism_reduces_activations_twice_each_way(tp, accumulation, layers):
    shape = shape_of(layers=layers)
    with world(tp):
        messages = heard(cut(shape, init_device_mesh("cpu", (tp,)), False), accumulation)
    assert messages == foretold(shape, recipe_of(accumulation, tp=tp))


@pytest.mark.parametrize("tp", [2, 8])
def test_sequence_parallelism_gathers_and_scatters_in_their_place(tp):
    shape, recipe = shape_of(), recipe_of(tp=tp, sequence_parallel=True)
    with world(tp):
        model = cut(shape, init_device_mesh("cpu", (tp,)), True)
        messages = heard(model)
        partial = [p.grad for p in model.parameters() if p.grad.placements == (Partial(),)]
        with Heard() as ears:  # gradients of norms are summed when they are asked for
            for grad in partial:
                grad.redistribute(placements=(Replicate(),))
    assert messages == foretold(shape, recipe, leave="tp norms")
    asked = sum(size * times for (kind, size), times in ears.messages.items())
    (norms,) = (x for x in operations.collectives(shape, recipe) if x.name == "tp norms")
    assert asked == norms.step_bytes


def test_fsdp_and_tensor_parallelism_together_on_64_ranks():
    shape, recipe = shape_of(), recipe_of(2, dp_shard=8, tp=8)
    with world(64):
        mesh = init_device_mesh("cpu", (8, 8), mesh_dim_names=("dp", "tp"))
        model = cut(shape, mesh["tp"], False)
        for block in model.decoder.model.layers:
            fully_shard(block, mesh=mesh["dp"])
        fully_shard(model, mesh=mesh["dp"])
        messages = heard(model, 2)
    assert messages == foretold(shape, recipe)
    strides = {each.kind: each.stride for each in operations.collectives(shape, recipe)}
    assert strides == {"all_gather": 8, "reduce_scatter": 8, "all_reduce": 1}

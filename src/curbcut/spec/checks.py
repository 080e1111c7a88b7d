"""What cannot be: each rule that a shape, a machine and a recipe must keep, said in one place.

Every refusal names the field, its value and the nearest valid one. The search builds only what
passes here, and a test holds the two equal. Where tensor-parallel ranks outnumber the key and value
heads, each head is kept by several ranks: `tp` must then be a multiple of `kv_heads`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from curbcut.errors import InputError
from curbcut.spec.nouns import Machine, ModelShape, Recipe

MOST: Mapping[str, int] = {
    "model.layers": 100_000, "model.width": 10**7, "model.heads": 10**6, "model.kv_heads": 10**6,
    "model.head_size": 10**6, "model.ffn": 10**8, "model.vocab": 10**9, "model.experts": 10**6,
    "model.shared_experts": 10**6, "model.expert_ffn": 10**8, "model.context_tokens": 2**27,
    "model.window_tokens": 2**27, "recipe.sequence_tokens": 2**24, "recipe.micro_batch": 10**7,
    "recipe.global_batch": 10**8, "recipe.outer_steps": 10**6, "train.tokens": 10**16,
}
"""Beyond these no model, text or batch is near, and a slip of the hand is."""
MOST_SHARE: Mapping[str, float] = {"recipe.power_limit": 1.0, "recipe.ema_decay": 1.0}
"""Shares that are of a whole."""
MOST_ACCELERATORS = 2**20
"""More than any published machine has, by a factor of five."""
DEGREES = ("dp_replicate", "dp_shard", "tp", "pp", "cp")
"""Degrees whose product is the ranks; `ep` lies within the data- and context-parallel ones."""
LEAST_VIRTUAL = 2


def refuse(name: str, value: object, what: str, nearest: Iterable[object]) -> InputError:
    """The error for field `name` of `value`: what is wrong with it, and what would be right."""
    said = " or ".join(_quoted(one) for one in nearest)
    return InputError(f"{name} = {_quoted(value)} {what}",
                      mend=f"nearest: {said}" if said else "leave it out")


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def near(value: int, most: int, holds: Callable[[int], bool]) -> list[int]:
    """The largest number below and the smallest above `value`, up to `most`, of which it holds."""
    reach = range(1, 1 + min(max(most, 1), 1 << 20))
    below = next((n for n in range(min(value, len(reach)), 0, -1) if holds(n)), None)
    above = next((n for n in range(value + 1, len(reach) + 1) if holds(n)), None)
    return [n for n in (below, above) if n is not None]


def magnitudes(values: Mapping[str, Any]) -> None:
    """Raises InputError for a dotted value beyond `MOST`, or for a number that is not finite."""
    for key, value in values.items():
        for name, number in _numbers(key, value):
            if not math.isfinite(number):
                raise InputError(f"{name} = {number} is not a number one can plan with",
                                 mend="give a finite number")
            if number < 0:
                raise refuse(name, number, "is below nothing", [0])
        if key in MOST_SHARE and value > MOST_SHARE[key]:
            raise refuse(key, value, "is more than the whole", [MOST_SHARE[key]])
        if key in MOST and isinstance(value, int) and value > MOST[key]:
            raise refuse(key, value, "is beyond what can be planned", [MOST[key]])


def _numbers(key: str, value: Any) -> list[tuple[str, float]]:
    if isinstance(value, Mapping):
        return [(f"{key}.{name}", float(v)) for name, v in value.items()
                if isinstance(v, (int, float))]
    return [(key, value)] if isinstance(value, float) else []


def machine(machine: Machine) -> None:
    """Raises InputError for a machine that nobody has."""
    if machine.accelerators > MOST_ACCELERATORS:
        raise refuse("machine: accelerators", machine.accelerators,
                     "are more than can be planned", [MOST_ACCELERATORS])
    domain = machine.domain_accelerators
    if domain and domain % machine.accelerators_per_node:
        whole = -(-domain // machine.accelerators_per_node) * machine.accelerators_per_node
        raise refuse("machine.domain_accelerators", domain, "are not whole nodes", [whole])


def shape(shape: ModelShape) -> None:
    """Raises InputError for dimensions that make no model."""
    magnitudes({f"model.{f.name}": getattr(shape, f.name) for f in fields(shape)})
    if shape.heads % shape.kv_heads:
        raise refuse("model.kv_heads", shape.kv_heads, f"does not divide {shape.heads} heads",
                     near(shape.kv_heads, shape.heads, lambda n: shape.heads % n == 0))
    _attention(shape)
    if shape.experts:
        _experts(shape)
        return
    for name in ("experts_per_token", "shared_experts", "expert_ffn", "dense_layers"):
        if getattr(shape, name):
            raise refuse(f"model.{name}", getattr(shape, name), "needs experts (model.experts)",
                         [0])


def _attention(shape: ModelShape) -> None:
    kind = shape.attention
    if kind == "sliding" and not shape.window_tokens:
        raise refuse("model.window_tokens", 0, 'means no window, and model.attention = "sliding"',
                     [min(4096, shape.context_tokens)])
    if kind != "sliding":
        for name in ("window_tokens", "full_every"):
            if getattr(shape, name):
                raise refuse(f"model.{name}", getattr(shape, name),
                             'needs model.attention = "sliding"', [0])
    if shape.full_every > shape.layers:
        raise refuse("model.full_every", shape.full_every, f"is beyond {shape.layers} layers",
                     [shape.layers])
    if kind == "mla" and not shape.kv_rank:
        raise refuse("model.kv_rank", 0, 'means no compression, and model.attention = "mla"', [512])
    if kind != "mla":
        for name in ("query_rank", "kv_rank", "rope_size", "value_size"):
            if getattr(shape, name):
                raise refuse(f"model.{name}", getattr(shape, name),
                             'needs model.attention = "mla"', [0])


def _experts(shape: ModelShape) -> None:
    if not 1 <= shape.experts_per_token <= shape.experts:
        raise refuse("model.experts_per_token", shape.experts_per_token,
                     f"is not among 1 to {shape.experts} experts",
                     [1 if shape.experts_per_token < 1 else shape.experts])
    if not shape.expert_ffn:
        raise refuse("model.expert_ffn", 0, "gives experts no width", [shape.ffn])
    if shape.dense_layers >= shape.layers:
        raise refuse("model.dense_layers", shape.dense_layers,
                     f"leaves no layer of {shape.layers} with experts", [shape.layers - 1])


def precisions(machine: Machine) -> tuple[str, ...]:
    """Precisions whose matmul rate on this machine is known, probed or stated.

    A chip with an fp4 rate has the block-scaled formats (mxfp8, nvfp4).
    """
    stated = {**machine.measured_flops, **machine.peak_flops}
    known = [name for name in stated
             if machine.measured_flops.get(name) or machine.peak_flops.get(name)]
    if "fp4" in known:
        known = [name for name in known if name != "fp4"] + ["mxfp8", "nvfp4"]
    return tuple(dict.fromkeys(known))


RUN_AS: Mapping[str, str] = {"tf32": "fp32", "fp16": "bf16"}
"""Precisions that run at another one's rate where none of their own is stated."""


def recipe(shape: ModelShape, recipe: Recipe, machine: Machine) -> None:
    """Raises InputError for the first rule that a complete `recipe` breaks."""
    asked({f.name: getattr(recipe, f.name) for f in fields(recipe)}, shape, machine)
    data = recipe.dp_replicate * recipe.dp_shard
    if (data * recipe.cp) % recipe.ep:
        raise refuse("recipe.ep", recipe.ep, "does not divide the data- and context-parallel "
                     f"ranks ({data * recipe.cp})",
                     near(recipe.ep, data * recipe.cp, lambda n: data * recipe.cp % n == 0
                          and shape.experts % n == 0))
    unit = recipe.micro_batch * data
    if recipe.global_batch % unit:
        raise InputError(
            f"recipe.global_batch = {recipe.global_batch} is no multiple of micro_batch "
            f"{recipe.micro_batch} x {data} data-parallel ranks",
            mend=f"nearest: {_multiples(recipe.global_batch, unit)}")
    if recipe.outer_steps > 1 and recipe.dp_replicate == 1:
        raise refuse("recipe.outer_steps", recipe.outer_steps, "needs replicas that can be apart "
                     "(recipe.dp_replicate = 1)", [1])
    _schedule(recipe)


def _multiples(value: int, unit: int) -> str:
    below, above = value // unit * unit, -(-value // unit) * unit
    return f"{below} or {above}" if below else f"{above}"


def _schedule(recipe: Recipe) -> None:
    """Micro-batches that an interleaved or a two-way pipeline needs."""
    waves = recipe.accumulation
    if recipe.pipeline == "interleaved" and recipe.pp > 1 and waves % recipe.pp:
        raise InputError(f'recipe.pipeline = "interleaved" needs micro-batches in whole rounds of '
                         f"{recipe.pp} stages, and a rank has {waves}",
                         mend='nearest: "1f1b", or a micro_batch or global_batch that gives '
                              f"{-(-waves // recipe.pp) * recipe.pp}")
    if recipe.pipeline == "dualpipev" and recipe.pp > 1 and waves < 2 * recipe.pp:
        raise InputError(f'recipe.pipeline = "dualpipev" needs {2 * recipe.pp} micro-batches, and '
                         f"a rank has {waves}", mend='nearest: "1f1b", or smaller micro-batches')


def asked(values: Mapping[str, Any], shape: ModelShape | None, machine: Machine) -> None:
    """Raises InputError for the first rule that recipe fields break, as far as they are said.

    What `values` leave out is still free: rules about it are not held yet.
    """
    _asked(values, shape, machine, lambda name: _accepted(name, values, shape, machine))


Offer = Callable[[str], list[int]]
"""The nearest values of a field that all rules accept, with all else as it is."""


def _accepted(name: str, values: Mapping[str, Any], shape: ModelShape | None,
              machine: Machine) -> list[int]:
    """The neighbours of a degree that break no rule. Where all degrees are said and multiply to the
    machine, data-parallel ones follow the new value, for none would be right with theirs.
    """
    total, kept = machine.accelerators, dict(values)
    if math.prod(int(values.get(one, 1)) for one in DEGREES) == total:
        kept = {key: value for key, value in values.items() if not key.startswith("dp_")}
    return near(int(values.get(name, 1)), total, lambda n: total % n == 0
                and _sound(kept | {name: n}, shape, machine))


def _sound(values: Mapping[str, Any], shape: ModelShape | None, machine: Machine) -> bool:
    try:
        _asked(values, shape, machine, lambda name: [])
    except InputError:
        return False
    return True


def _asked(values: Mapping[str, Any], shape: ModelShape | None, machine: Machine,
           offer: Offer) -> None:
    magnitudes({f"recipe.{name}": value for name, value in values.items()})
    _precision(values, machine)
    said = {name: int(values.get(name, 1)) for name in (*DEGREES, "ep")}
    product = math.prod(said[name] for name in DEGREES)
    whole = all(name in values for name in ("dp_replicate", "dp_shard"))
    total = machine.accelerators
    if total % product or (whole and product != total):
        raise _not_the_machine({name: said[name] for name in DEGREES}, machine, offer)
    if shape is not None:
        _splits(values, said, shape, offer)
        _stages(values, said, shape, offer)
    _sequence(values, said, offer)
    if values.get("offload", "none") != "none" and machine.kind == "cpu":
        raise refuse("recipe.offload", values["offload"], "has nowhere to go: a CPU's memory is "
                     "the host's", ["none"])


def _precision(values: Mapping[str, Any], machine: Machine) -> None:
    wanted, known = values.get("precision"), precisions(machine)
    if wanted is None or not known or wanted in known or RUN_AS.get(wanted) in known:
        return
    wide = ("nvfp4", "mxfp8", "fp8", "bf16", "fp16", "tf32", "fp32")
    behind = [name for name in wide[wide.index(wanted) + 1:] if name in known]
    raise refuse("recipe.precision", wanted, f"has no known rate on {machine.accelerator} "
                 f"(known: {', '.join(known)})", (behind or list(known))[:1])


def _not_the_machine(said: Mapping[str, int], machine: Machine, offer: Offer) -> InputError:
    """Degrees that do not multiply to the machine; the largest that can be mended alone is."""
    total, said = machine.accelerators, {name: n for name, n in said.items() if n > 1}
    product = math.prod(said.values())
    order = sorted(said, key=lambda one: -said[one]) or ["dp_shard"]
    nearest = next((" or ".join(f"recipe.{name} = {n}" for n in mend)
                    for name in order if (mend := offer(name))), f"a machine of {product}")
    listed = " x ".join(f"recipe.{one} = {n}" for one, n in said.items()) or "recipe: 1 rank"
    listed += f" = {product} ranks" if len(said) > 1 else ""
    return InputError(f"{listed} does not multiply to the {total} accelerators of {machine.name}",
                      mend=f"nearest: {nearest}")


def _splits(values: Mapping[str, Any], said: Mapping[str, int], shape: ModelShape,
            offer: Offer) -> None:
    """What tensor-, context- and expert-parallel ranks share must divide."""
    tp, cp, ep = said["tp"], said["cp"], said["ep"]
    for divides, what in ((heads_split, f"does not divide {shape.heads} heads"),
                          (kv_split, f"neither divides {shape.kv_heads} key and value heads nor "
                                     "is a multiple of them"),
                          (ffn_split, f"does not divide the feed-forward's {_inner(shape)}")):
        if not divides(shape, tp):
            raise refuse("recipe.tp", tp, what, offer("tp"))
    if cp > 1 and values.get("context") == "ulysses" and not ulysses_valid(shape, tp, cp):
        raise refuse("recipe.cp", cp, f'with context = "ulysses" shares {shape.heads // tp} heads '
                     f"({shape.kv_heads} key and value heads in all)",
                     offer("cp"))
    if ep > 1 and not shape.experts:
        raise refuse("recipe.ep", ep, "needs a model with experts (model.experts = 0)", [1])
    if ep > 1 and shape.experts % ep:
        raise refuse("recipe.ep", ep, f"does not divide {shape.experts} experts",
                     near(ep, shape.experts, lambda n: shape.experts % n == 0))


def _inner(shape: ModelShape) -> str:
    if not shape.experts:
        return f"{shape.ffn}"
    return f"{shape.expert_ffn} of an expert" + (f" or {shape.ffn}" if shape.dense_layers else "")


def heads_split(shape: ModelShape, tp: int) -> bool:
    """Whether `tp` ranks share the query heads."""
    return shape.heads % tp == 0


def kv_split(shape: ModelShape, tp: int) -> bool:
    """Whether `tp` ranks share the key and value heads, or each head is kept by several of them.

    MLA's latent is kept whole by every rank.
    """
    return shape.attention == "mla" or shape.kv_heads % tp == 0 or tp % shape.kv_heads == 0


def ffn_split(shape: ModelShape, tp: int) -> bool:
    """Whether `tp` ranks share the inner width of each feed-forward."""
    dense = not shape.experts or shape.dense_layers
    return not (dense and shape.ffn % tp) and not (shape.experts and shape.expert_ffn % tp)


def tp_valid(shape: ModelShape, tp: int) -> bool:
    """Whether `tp` ranks can share each layer."""
    return heads_split(shape, tp) and kv_split(shape, tp) and ffn_split(shape, tp)


def ulysses_valid(shape: ModelShape, tp: int, cp: int) -> bool:
    """Whether heads can be exchanged among `cp` ranks of each of `tp` (arXiv:2309.14509)."""
    return heads_split(shape, tp * cp) and kv_split(shape, tp * cp)


def _stages(values: Mapping[str, Any], said: Mapping[str, int], shape: ModelShape,
            offer: Offer) -> None:
    pp, virtual = said["pp"], int(values.get("virtual_stages", 1))
    kind = values.get("pipeline")
    if pp > shape.layers:
        raise refuse("recipe.pp", pp, f"is beyond {shape.layers} layers", offer("pp"))
    if kind == "dualpipev" and pp > 1 and 2 * pp > shape.layers:
        raise refuse("recipe.pp", pp, f'with pipeline = "dualpipev" needs {2 * pp} layers, and '
                     f"the model has {shape.layers}", offer("pp"))
    if virtual == 1 and not (kind == "interleaved" and pp > 1 and "virtual_stages" in values):
        return
    if kind is not None and kind != "interleaved":
        raise refuse("recipe.virtual_stages", virtual, f'needs pipeline = "interleaved", not '
                     f'"{kind}"', [1])
    if "pp" in values and pp == 1:
        raise refuse("recipe.virtual_stages", virtual, "needs stages (recipe.pp = 1)", [1])
    if virtual < LEAST_VIRTUAL or shape.layers % (pp * virtual):
        most = shape.layers // pp
        what = (f"of {pp} stages does not divide {shape.layers} layers" if virtual > 1
                else "interleaves nothing")
        nearest = [n for n in near(virtual, most, lambda n: shape.layers % (pp * n) == 0)
                   if n >= LEAST_VIRTUAL]
        if not nearest and kind == "interleaved" and pp > 1:
            raise InputError(f"recipe.virtual_stages = {virtual} {what}",
                             mend='nearest: 1, with recipe.pipeline = "1f1b"')
        raise refuse("recipe.virtual_stages", virtual, what, nearest or [1])


def _sequence(values: Mapping[str, Any], said: Mapping[str, int], offer: Offer) -> None:
    tokens, cp, tp = values.get("sequence_tokens"), said["cp"], said["tp"]
    if tokens is None:
        return
    if tokens % cp:
        raise refuse("recipe.cp", cp, f"does not divide a sequence of {tokens} tokens",
                     offer("cp"))
    if values.get("sequence_parallel") and tokens // cp % tp:
        raise refuse("recipe.tp", tp, f"with sequence_parallel does not divide {tokens // cp} "
                     "tokens a rank", offer("tp"))

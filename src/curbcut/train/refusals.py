"""What can be planned but not trained by this version, by name. Imports no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

from curbcut.errors import InputError
from curbcut.model.config import check_runnable
from curbcut.spec import checks
from curbcut.spec.nouns import Machine, ModelShape, Recipe

TRAINED: Mapping[str, tuple[object, ...]] = {
    "outer_steps": (1,), "precision": ("bf16", "fp32", "tf32", "fp8"), "power_limit": (1.0,),
}
"""Values of recipe fields that training knows; the other values are priced only."""


def check(shape: ModelShape, recipe: Recipe, machine: Machine) -> None:
    """Raises InputError naming the first field that plan prices and training does not run."""
    for name, known in TRAINED.items():
        value = getattr(recipe, name)
        if value not in known:
            raise InputError(f"{name} = {_quoted(value)} can be planned but not run by this "
                             "version", where=f"recipe.{name}",
                             mend=f"choose {' or '.join(_quoted(one) for one in known)}")
    if machine.kind not in ("cpu", "gpu"):
        raise InputError(f"machines of kind {machine.kind!r} can be planned but not run",
                         where="machine.kind", mend="plan with machine.name = \"here\"")
    _check_fp8(recipe, machine)
    _check_resting(recipe, machine)
    _check_dealt(recipe)
    _check_pieces(recipe)
    _check_experts(shape, recipe)
    _check_pipeline(shape, recipe)
    check_runnable(shape)


def _check_fp8(recipe: Recipe, machine: Machine) -> None:
    """What fp8 matmuls need: torchao, a chip that has them, and whole matrices."""
    mend = 'set recipe.precision = "bf16"'
    if recipe.precision != "fp8":
        return
    if "fp8" not in checks.precisions(machine):
        raise InputError(f"no fp8 rate of {machine.accelerator} is known, and fp8 can be planned "
                         "but not run by this version on it", where="recipe.precision", mend=mend)
    if importlib.util.find_spec("torchao") is None:
        raise InputError("fp8 needs torchao, which is not installed, and can be planned but not "
                         "run by this version without it", where="recipe.precision",
                         mend=f"pip install 'curbcut[fp8]', or {mend}")
    if recipe.tp > 1:
        raise InputError(f"fp8 with tp = {recipe.tp} can be planned but not run by this version",
                         where="recipe.precision", mend=f"{mend}, or recipe.tp = 1")


def _check_resting(recipe: Recipe, machine: Machine) -> None:
    """What can rest in host memory, and where: not in the memory that it lies in."""
    if recipe.offload == "none":
        return
    if machine.kind == "cpu":
        raise InputError(f"offload = {_quoted(recipe.offload)} on a CPU moves nothing, for its "
                         "memory is the host's: it can be planned but not run by this version",
                         where="recipe.offload", mend='set recipe.offload = "none"')
    _check_resting_states(recipe)
    if recipe.offload == "activations" and recipe.compile:
        raise InputError("offload = \"activations\" with compile = true can be planned but not run "
                         "by this version", where="recipe.offload",
                         mend='set recipe.compile = false, or recipe.offload = "none"')


def _check_resting_states(recipe: Recipe) -> None:
    """FSDP's shards rest with all that belongs to them; whole weights only without it."""
    cut = recipe.shard != "optimiser" and recipe.dp_shard * recipe.cp > 1
    if recipe.offload == "parameters" and not cut:
        raise InputError("offload = \"parameters\" of weights that each rank holds whole can be "
                         "planned but not run by this version", where="recipe.offload",
                         mend='set recipe.shard = "parameters" and recipe.dp_shard = 2 or more, '
                         'or recipe.offload = "optimiser"')
    if recipe.offload == "optimiser" and cut:
        raise InputError(f"offload = \"optimiser\" with shard = {_quoted(recipe.shard)} can be "
                         "planned but not run by this version", where="recipe.offload",
                         mend='set recipe.offload = "parameters", with which the optimiser rests '
                         'too, or recipe.shard = "optimiser"')
    if recipe.offload == "optimiser" and recipe.tp > 1:
        raise InputError(f"offload = \"optimiser\" with tp = {recipe.tp} can be planned but not "
                         "run by this version", where="recipe.offload",
                         mend='set recipe.offload = "none" or recipe.tp = 1')


def _check_dealt(recipe: Recipe) -> None:
    """ZeRO-1 deals whole tensors among ranks that all hold the same ones."""
    if recipe.shard == "optimiser" and recipe.ep > 1:
        raise InputError(f"shard = \"optimiser\" with ep = {recipe.ep} can be planned but not run "
                         "by this version", where="recipe.shard",
                         mend='set recipe.shard = "parameters" or recipe.ep = 1')


def _check_experts(shape: ModelShape, recipe: Recipe) -> None:
    """Experts are spread within the ranks that share states: whole ones, or parts of all."""
    sharing = recipe.dp_shard * recipe.cp
    if recipe.ep > 1 and sharing % recipe.ep:
        raise InputError(f"ep = {recipe.ep} over {sharing} ranks that share states (dp_shard x cp) "
                         "can be planned but not run by this version", where="recipe.ep",
                         mend=f"set recipe.dp_shard = {recipe.ep} in the place of replicas, or "
                         "recipe.ep = 1")
    if recipe.ep > 1 and recipe.tp > 1:
        raise InputError(f"tp = {recipe.tp} with ep = {recipe.ep} can be planned but not run by "
                         "this version", where="recipe.tp",
                         mend=f"set recipe.tp = 1 and recipe.dp_shard = "
                         f"{recipe.dp_shard * recipe.tp}, or recipe.ep = 1")


def _check_pieces(recipe: Recipe) -> None:
    """Each context-parallel rank has two pieces of a sequence, so that all have as much to do."""
    tokens, cut = recipe.sequence_tokens, 2 * recipe.cp
    if recipe.cp > 1 and tokens % cut:
        both = (tokens // cut * cut, -(-tokens // cut) * cut)
        near = " or ".join(str(one) for one in both if one)
        raise InputError(f"a sequence of {tokens} tokens in {cut} pieces of unequal length can be "
                         "planned but not run by this version",
                         where="recipe.sequence_tokens", mend=f"set it to {near}")


def _check_pipeline(shape: ModelShape, recipe: Recipe) -> None:
    """What torch's schedules ask for: whole rounds, a backward pass that can be split in two."""
    if recipe.pp == 1:
        return
    rounds = max(1, recipe.accumulation // recipe.pp)
    if recipe.pipeline == "zero-bubble" and recipe.accumulation % rounds:
        near = recipe.pp * rounds * recipe.global_batch // recipe.accumulation
        raise InputError(f"zero-bubble with {recipe.accumulation} micro-batches in {rounds} equal "
                         "rounds can be planned but not run by this version",
                         where="recipe.global_batch",
                         mend=f'set it to {near}, or recipe.pipeline = "1f1b"')
    if recipe.pipeline in ("zero-bubble", "dualpipev") and recipe.compile:
        raise InputError(f"pipeline = {_quoted(recipe.pipeline)} splits the backward pass, which "
                         "with compile = true can be planned but not run by this version",
                         where="recipe.pipeline",
                         mend='set recipe.compile = false, or recipe.pipeline = "1f1b"')
    cut = recipe.shard != "optimiser" and recipe.dp_shard * recipe.cp > 1
    if recipe.pipeline == "dualpipev" and shape.tied_embeddings and cut:
        raise InputError(f"pipeline = \"dualpipev\" with tied embeddings and shard = "
                         f"{_quoted(recipe.shard)} can be planned but not run by this version",
                         where="recipe.pipeline", mend='set recipe.shard = "optimiser", or '
                         'recipe.pipeline = "zero-bubble"')


def _quoted(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def reason(shape: ModelShape, recipe: Recipe, machine: Machine) -> str:
    """Why this recipe is priced only; "" for one that runs here."""
    try:
        check(shape, recipe, machine)
    except InputError as error:
        return error.what.replace(" can be planned but not run by this version", "")
    return ""

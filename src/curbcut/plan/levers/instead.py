"""Other questions than this run: an open model adapted, pruned or distilled. And what-ifs."""

from __future__ import annotations

from dataclasses import replace

from curbcut.facts import accelerators, constants
from curbcut.physics import time
from curbcut.plan.levers.case import Aim, Case, Factor, Refusal, published

LORA_FORWARD_AND_BACK = 2 / 3
"""Matmuls of a step without the weights' own gradients: 4 of 6 FLOPs a parameter and token."""
QLORA_PARAMETERS, QLORA_HOURS, QLORA_CHIP = 65e9, 24.0, "rtx-a6000"
"""One 48 GB GPU fine-tuned 65B parameters in a day (QLoRA, arXiv 2305.14314, abstract)."""


def lora_tokens() -> tuple[float, float, float]:
    """Most tokens that QLoRA's day can have seen (middle, low, high): the GPU's FLOPs at the facts'
    utilisation over 4 a parameter and token.
    """
    peak = accelerators.accelerator(QLORA_CHIP).peak_flops["bf16"]
    use = constants.constant("mfu_gpu")
    most = peak * QLORA_HOURS * 3600 / (4 * QLORA_PARAMETERS)
    return most * use.value, most * use.low, most * use.high


def lora(case: Case, _: Aim) -> Case | Refusal:
    """An open model of this size fine-tuned: few tokens, no gradients of weights, no optimiser."""
    run = case.run
    middle, low, high = lora_tokens()
    if run.train.tokens <= middle:
        return Refusal("the run is no longer than a fine-tuning")
    parts = time.step_parts(run.model, run.recipe, run.machine)
    if parts is None:
        return Refusal(f"no rate of {run.machine.accelerator} is known")
    less = float(parts.matmul) * (1 - LORA_FORWARD_AND_BACK) + float(parts.optimiser)
    faster = float(parts.total) / (float(parts.total) - less)
    found = case.with_factor(Factor("lora", "step", faster, faster, faster))
    tokens = [run.train.tokens / each for each in (middle, high, low)]
    return replace(found, factors=(*found.factors, Factor("lora", "tokens", *tokens)),
                   changed=(*found.changed, f"{middle / 1e6:.0f}M tokens of fine-tuning"))


def prune_and_distil(case: Case, _: Aim) -> Case | Refusal:
    """A larger open model pruned to this size."""
    return case.with_factor(published("prune-and-distil"))


def analog(case: Case, _: Aim) -> Case | Refusal:
    """Matmuls in analog memory: their power alone, as if they trained as well."""
    if not case.run.machine.watts:
        return Refusal(f"no power of {case.run.machine.accelerator} is known")
    return case.with_factor(published("analog-in-memory", "matmul watts"))


def energy_based(case: Case, _: Aim) -> Case | Refusal:
    """An energy-based model that learns as its authors extrapolate."""
    return case.with_factor(published("energy-based-model"))

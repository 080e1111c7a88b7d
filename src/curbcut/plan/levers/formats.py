"""Data formats: the precision of matmuls. Speed by the physics, lost quality by the literature."""

from __future__ import annotations

from typing import get_args

from curbcut.plan.levers.case import Aim, Case, Refusal, published
from curbcut.spec import checks
from curbcut.spec.nouns import Precision

NARROW: tuple[Precision, ...] = ("fp8", "mxfp8", "nvfp4")


def bf16(case: Case, _: Aim) -> Case | Refusal:
    """bf16 matmuls with fp32 masters, from fp32."""
    if case.run.recipe.precision not in ("fp32", "tf32"):
        narrow = case.run.recipe.precision in NARROW
        return Refusal(f"in {case.run.recipe.precision} already" if narrow else
                       f"already on: {case.run.recipe.precision}")
    if "bf16" not in checks.precisions(case.run.machine):
        return Refusal(f"no bf16 rate of {case.run.machine.accelerator} is known")
    return case.with_recipe(precision="bf16")


def fp8(case: Case, _: Aim) -> Case | Refusal:
    """8-bit floating-point matmuls."""
    return _narrow(case, "fp8")


def mxfp8(case: Case, _: Aim) -> Case | Refusal:
    """8-bit matmuls with a scale a block."""
    return _narrow(case, "mxfp8")


def nvfp4(case: Case, _: Aim) -> Case | Refusal:
    """4-bit matmuls with a scale a block."""
    return _narrow(case, "nvfp4")


def _narrow(case: Case, precision: Precision) -> Case | Refusal:
    assert precision in get_args(Precision)
    if case.run.recipe.precision == precision:
        return Refusal("already on")
    if case.run.recipe.precision in NARROW:
        return Refusal(f"in {case.run.recipe.precision} already")
    if precision not in checks.precisions(case.run.machine):
        return Refusal(f"no {precision} on {case.run.machine.accelerator}")
    changed = case.with_recipe(precision=precision)
    if not changed.fits():
        return Refusal("does not fit into memory", fits=False)
    return changed.with_factor(published(precision))

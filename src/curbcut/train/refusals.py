"""What can be planned but not trained by this version, by name. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping

from curbcut.errors import InputError
from curbcut.model.config import check_runnable
from curbcut.spec.nouns import Machine, ModelShape, Recipe

TRAINED: Mapping[str, tuple[object, ...]] = {
    "outer_steps": (1,), "precision": ("bf16", "fp32", "tf32"), "power_limit": (1.0,),
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
    check_runnable(shape)


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

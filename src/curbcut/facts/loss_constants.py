"""Constants around the scaling laws: repetition, small runs, experts, optimisers, tokenizers."""

from __future__ import annotations

from curbcut.facts.constants import Constant, named, of_file

FILE = "loss_constants"


def constant(name: str) -> Constant:
    """The constant `name`; raises UnknownName with the nearest names."""
    return named(FILE, name, "constant of the loss laws")


def value(name: str) -> float:
    """Its middle alone."""
    return constant(name).value


def constants() -> list[Constant]:
    """All constants, in the order of the file."""
    return list(of_file(FILE).values())

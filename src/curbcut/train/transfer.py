"""muP: a learning rate that was tuned on one width, carried over to another.

Yang et al. 2022 (arXiv:2203.03466, tables 3 and 8), in the form that changes first weights and
rates only, so that the network and its export stay as they are. With r = width / mup_base_width:

    parameter              first weights   Adam's rate   Muon's rate   weight decay
    embedding, other gains 1               1                           1
    matrices of the blocks r^-1/2          1/r           r^-1/2        1 / rate
    router of experts      1/r             1/r                         1 / rate
    last norm's gain       1/r             1/r                         none
    untied head            1               1                           1

The last norm's gain is the table's output multiplier 1/r: scores are head . (gain * x), and a
multiplier of a weight under Adam is that weight and its rate multiplied (lemma J.1 there). So a
tied head needs nothing more, and nor does a reader of the exported folder.

Muon's updates have a spectral norm of 0.2 sqrt(max(m, n)) times the rate, where the spectral
condition wants sqrt(m / n) (Yang, Simon and Bernstein 2023, arXiv:2310.17813): r^-1/2 is between
them. Decay grows as the rate falls, so that rate x decay stays (Dey et al. 2025, arXiv:2505.01618).
Heads keep their size and grow in number, so the scores' 1/sqrt(d) stays.
"""

from __future__ import annotations

from curbcut.spec import ModelShape, Recipe

LAST_NORM = "model.norm.weight"
ROUTER = ".mlp.gate.weight"


def ratio(shape: ModelShape, recipe: Recipe) -> float:
    """Width over the width that the rate was tuned on; 1 where it was tuned on this one."""
    return shape.width / recipe.mup_base_width if recipe.mup_base_width else 1.0


def is_matrix_of_block(name: str, dims: int) -> bool:
    """Whether a parameter is a matrix inside a block, or a stack of them; routers are not."""
    return dims >= 2 and ".layers." in name and not name.endswith(ROUTER)


def first_factor(name: str, dims: int, width_ratio: float) -> float:
    """What the first value of a parameter is multiplied by."""
    if is_matrix_of_block(name, dims):
        return float(width_ratio ** -0.5)
    return 1 / width_ratio if name == LAST_NORM or name.endswith(ROUTER) else 1.0


def rate_factor(name: str, dims: int, width_ratio: float, *, muon: bool = False) -> float:
    """What the learning rate of a parameter is multiplied by."""
    if is_matrix_of_block(name, dims):
        return float(width_ratio ** (-0.5 if muon else -1))
    return 1 / width_ratio if name == LAST_NORM or name.endswith(ROUTER) else 1.0

"""Seconds of a collective: latency, then bytes over the slower of the links that it crosses.

A group of ranks that are `stride` apart has as many of them in one fast domain as fit; the rest of
it lies across the network. Rings and their hierarchies move 2 (n-1)/n of an all-reduce's payload
and (n-1)/n of a gather's or a scatter's (Thakur et al. 2005); inside and across run at once, so the
slower counts. What crosses the network is shared by the group's ranks of a node, each with its own
card.
"""

from __future__ import annotations

from curbcut.physics.constants import TrainingConstants
from curbcut.physics.numbers import Number, larger, smaller, where
from curbcut.physics.operations import Collective
from curbcut.physics.rates import Chip

HOPS = 0.2
"""Share of a collective's start that each further rank of a domain adds."""


def seconds(each: Collective, chip: Chip, constants: TrainingConstants,
            experts_per_token: Number = 1) -> Number:
    """Seconds of one message of this collective; 0 in a group of one."""
    ranks, stride = larger(1.0 * each.ranks, 1.0), larger(1.0 * each.stride, 1.0)
    if each.name.startswith("expert "):
        # Expert groups are folded over tensor-parallel ranks: neighbours stand side by side.
        stride = 1.0
    inside = smaller(ranks, larger(1.0, chip.domain / stride // 1))
    outside = ranks / inside
    link = chip.link * constants.link_share
    card = (chip.network / chip.per_node * constants.network_share
            * outside ** -constants.decline)
    if each.kind == "send":
        found = _send(each.bytes_, stride >= chip.domain, link, card, constants)
    elif each.kind == "all_to_all":
        found = _exchange(each.bytes_, inside, outside, link, card, constants, experts_per_token)
    else:
        passes: dict[str, Number] = {"all_reduce": 2.0, "reduce_scatter": constants.reduce_scatter}
        twice = passes.get(each.kind, 1.0)
        found = _ring(twice, each.bytes_, inside, outside, link, card, constants)
    return where(ranks > 1, found, 0.0)


def _send(bytes_: Number, crossing: Number, link: Number, card: Number,
          constants: TrainingConstants) -> Number:
    return (bytes_ / where(crossing, card, link) + constants.link_latency
            + where(crossing, constants.network_latency, 0.0))


def _ring(twice: Number, bytes_: Number, inside: Number, outside: Number, link: Number,
          card: Number, constants: TrainingConstants) -> Number:
    near = twice * bytes_ * (inside - 1) / inside / link
    far = twice * bytes_ * (outside - 1) / outside / inside ** constants.rails / card
    hop = constants.network_latency * where(constants.high_latency > 0, constants.slow_fabric, 1.0)
    start = constants.link_latency * (1 + HOPS * (inside - 1)) + hop * (outside - 1)
    return larger(near, far) + twice * start


def _exchange(bytes_: Number, inside: Number, outside: Number, link: Number, card: Number,
              constants: TrainingConstants, experts_per_token: Number) -> Number:
    """Each token goes to the ranks of its experts; with `single_dispatch` only once to each rank
    and once to each domain (DeepSeek-V3, arXiv:2412.19437, section 3.2.2), routing taken as even.
    """
    ranks, copies = inside * outside, larger(1.0 * experts_per_token, 1.0)
    once = constants.single_dispatch > 0
    near_share = where(once, ranks / copies * (1 - (1 - 1 / ranks) ** copies), 1.0)
    near = bytes_ * (inside - 1) / ranks * near_share
    far = where(once, bytes_ / copies * (outside - 1) * (1 - (1 - 1 / outside) ** copies),
                bytes_ * (ranks - inside) / ranks)
    return (larger(near / link, far / card) / constants.all_to_all + 2 * constants.link_latency
            + where(outside > 1, 2 * constants.network_latency, 0.0))

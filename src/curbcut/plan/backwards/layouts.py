"""The handful of layouts that the coarse table tries on each machine, as columns of recipes.

A row is one way to place the ranks of one count of accelerators; the exact search of the second
stage tries all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

NODE = 8
"""Accelerators of a node beyond which tensor parallelism does not go."""


MICRO_BATCHES = (1, 4, 16)
"""Sequences a rank computes at once that are tried without recompute; with it, the middle one."""


@dataclass(frozen=True)
class Layout:
    """How the ranks of a machine are placed."""

    accelerators: int
    dp_shard: int
    tp: int
    pp: int
    recompute: str
    micro_batch: int

    @property
    def data_ranks(self) -> int:
        """Ranks that each see other sequences."""
        return self.accelerators // (self.tp * self.pp)


def layouts(accelerators: int, per_node: int) -> Iterator[Layout]:
    """The layouts of one count, few communications first."""
    for tp, pp in _cuts(accelerators, per_node):
        ranks = accelerators // (tp * pp)
        node = max(1, min(ranks, per_node // tp))
        for shard in sorted({1, node, ranks} if pp == 1 else {1, ranks}):
            for recompute, micros in (("none", MICRO_BATCHES), ("full", MICRO_BATCHES[1:2])):
                for micro in micros:
                    yield Layout(accelerators, shard, tp, pp, recompute, micro)


def _cuts(accelerators: int, per_node: int) -> Iterator[tuple[int, int]]:
    """Tensor- and pipeline-parallel degrees that divide the machine."""
    node = min(NODE, per_node)
    for tp in sorted({1, min(2, node), node}):
        for pp in (1, 8, 16) if tp == node else (1,):
            if accelerators % (tp * pp) == 0 and (pp == 1 or tp * pp <= accelerators):
                yield tp, pp

"""How a pipeline cuts a model: which rank holds which stages, and which layers a stage has.

A stage is a run of layers that micro-batches pass at once; a rank holds one, or several when the
schedule interleaves or folds the pipeline. Imports no torch.

    gpipe, 1f1b, zero-bubble    rank r: stage r
    interleaved                 rank r: stages r, r + p, r + 2p, ... (Narayanan et al. 2021,
                                arXiv:2104.04473, section 2.2)
    dualpipev                   rank r: stages r and 2p - 1 - r, a V (DeepSeek-V3,
                                arXiv:2412.19437)

Layers are dealt out evenly where they divide among the ranks. Where they do not, they are cut by
work: the head counts as the layers whose matmuls it equals, so its rank gets fewer. Both as
`physics.pipeline.slowest` prices them.
"""

from __future__ import annotations

from dataclasses import dataclass

from curbcut.physics import flops
from curbcut.spec.nouns import ModelShape, Recipe


@dataclass(frozen=True)
class Stage:
    """Some layers of the model, and who holds them."""

    index: int
    """Place in the order of a forward pass, from 0."""
    count: int
    """Stages of the whole pipeline."""
    rank: int
    """Place of its holder along the pipeline."""
    layers: range

    @property
    def first(self) -> bool:
        """Whether tokens enter here."""
        return self.index == 0

    @property
    def last(self) -> bool:
        """Whether the loss is made here."""
        return self.index == self.count - 1


def holders(recipe: Recipe) -> list[int]:
    """The rank along the pipeline that holds each stage, in the stages' order."""
    ranks = list(range(recipe.pp))
    if recipe.pp > 1 and recipe.pipeline == "interleaved":
        return ranks * recipe.virtual_stages
    if recipe.pp > 1 and recipe.pipeline == "dualpipev":
        return ranks + ranks[::-1]
    return ranks


def stages(shape: ModelShape, recipe: Recipe) -> list[Stage]:
    """All stages of the pipeline, in order."""
    held = holders(recipe)
    counts, begin, found = _layers(shape, recipe, held), 0, []
    for index, (rank, count) in enumerate(zip(held, counts, strict=True)):
        found.append(Stage(index, len(held), rank, range(begin, begin + count)))
        begin += count
    return found


def _layers(shape: ModelShape, recipe: Recipe, held: list[int]) -> list[int]:
    """Layers of each stage: one for each, and one after the other to whom has least to do.

    Alike items on machines of unequal head start: the greedy order is the best one. Of two ranks
    with as much to do the earlier gets it, of a rank's stages the one with fewer layers.
    """
    counts = [1] * len(held)
    even = shape.layers % recipe.pp == 0
    work = [0.0 if even or rank != held[-1] else head_layers(shape, recipe)
            for rank in range(recipe.pp)]
    for rank in held:
        work[rank] += 1.0
    for _ in range(shape.layers - len(held)):
        rank = min(range(recipe.pp), key=lambda one: (work[one], one))
        stage = min((s for s, holder in enumerate(held) if holder == rank),
                    key=lambda one: (counts[one], one))
        counts[stage] += 1
        work[rank] += 1.0
    return counts


def head_layers(shape: ModelShape, recipe: Recipe) -> float:
    """The head as a number of layers: its FLOPs over those of the mean layer."""
    spent = flops.forward_flops(shape, recipe.sequence_tokens)
    return float(spent.head * shape.layers / (spent.total - spent.head))

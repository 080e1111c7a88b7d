"""A part of a decoder: the layers of some stages of a pipeline, under their own names."""

from __future__ import annotations

from torch import Tensor, nn

from curbcut.model.decoder import Decoder
from curbcut.spec import Recipe
from curbcut.train.parallel.stages import Stage, stages

EMBEDDING = "model.embed_tokens.weight"


class Part(Decoder):
    """The decoder's layers of some stages. Names are those of the whole; what is elsewhere is None.

    The embedding is held where tokens enter and, when it is the head too, where the loss is made.
    Called with hidden states [b, s, width] where its first layer is not the model's, and returns
    them where its last one is not.
    """

    def __init__(self, whole: Decoder, held: tuple[Stage, ...]) -> None:
        nn.Module.__init__(self)
        for name, value in vars(whole).items():
            if name not in vars(self):  # not what makes it a module
                setattr(self, name, value)
        self.held = held
        first, last = any(one.first for one in held), any(one.last for one in held)
        tied = self.shape.tied_embeddings
        wanted = {str(i) for one in held for i in one.layers}
        layers = nn.ModuleList()
        for name, block in whole.model.layers.named_children():
            if name in wanted:
                layers.add_module(name, block)  # under its number in the whole model
        trunk = nn.Module()
        trunk.register_module("embed_tokens", whole.model.embed_tokens
                              if first or (last and tied) else None)
        trunk.register_module("layers", layers)
        trunk.register_module("norm", whole.model.norm if last else None)
        self.register_module("model", trunk)
        if not tied:
            self.register_module("lm_head", whole.lm_head if last else None)
        self._parts: list[Part] = []

    @property
    def parts(self) -> list[Part]:
        """A part for each stage: what a schedule calls. They share all modules with this one."""
        if len(self.held) == 1:
            return [self]
        if not self._parts:
            self._parts = [Part(self, (one,)) for one in self.held]
        return self._parts

    def enter(self, tokens: Tensor) -> Tensor:
        """tokens [b, s], or hidden states [b, s, width] of the stage before."""
        return super().enter(tokens) if self.held[0].first else tokens

    def leave(self, hidden: Tensor, targets: Tensor | None) -> Tensor:
        """Hidden states for the stage behind; on the last one as the whole model."""
        return super().leave(hidden, targets) if self.held[-1].last else hidden


def parts(model: Decoder) -> list[Decoder]:
    """What is called on this rank: the model, or each stage's part of it.

    Methods before this one in the order of `build` may still exchange blocks, none behind may.
    """
    return list(model.parts) if isinstance(model, Part) else [model]


def tied_apart(model: Decoder, recipe: Recipe) -> tuple[str, ...]:
    """Masters that another rank along the pipeline holds too."""
    if not isinstance(model, Part) or not model.shape.tied_embeddings:
        return ()
    every = stages(model.shape, recipe)
    ends = {every[0].rank, every[-1].rank}
    return (EMBEDDING,) if len(ends) == 2 and model.held[0].rank in ends else ()

"""Small random models of transformers' own, and pieces that drive a runner over them at random."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from curbcut.serve.engine.interface import Asked, Sampling
from curbcut.serve.engine.request import Piece

VOCAB = 61
SIZES = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
MOE = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
OURS = {
    "Llama": ("Llama", {}),
    "Llama 3.1": ("Llama", {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    "Llama, stretched": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0,
                                                       "rope_theta": 1e4}, "head_dim": 16}),
    "Qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "Qwen3": ("Qwen3", {"head_dim": 16}),
    "Mistral": ("Mistral", {"sliding_window": None}),
    "Mistral, a window as long as the context": ("Mistral", {"sliding_window": 256,
                                                             "head_dim": 16}),
    "Qwen3-MoE": ("Qwen3Moe", MOE | {"num_experts": 6, "norm_topk_prob": True}),
    "Mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}),
}
"""Shapes that our own engine runs: class of transformers, and what its config says besides."""
OTHERS = {
    "Mistral, a short window": ("Mistral", {"sliding_window": 8}),
    "Qwen2-MoE": ("Qwen2Moe", MOE | {"num_experts": 4, "shared_expert_intermediate_size": 24}),
    "Gemma 2": ("Gemma2", {"sliding_window": 8, "head_dim": 8}),
    "GPT-2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "Mamba": ("Mamba", {"state_size": 4, "num_hidden_layers": 2}),
}
"""Shapes that only the other one runs."""


def build(kind: str, **changes):
    """A model with weights so large that its distributions are sharp, and no zero bias."""
    import transformers

    sizes = SIZES if kind not in ("GPT2", "Mamba") else {"vocab_size": VOCAB, "hidden_size": 32}
    if kind == "GPT2":
        sizes = {"vocab_size": VOCAB}
    config = getattr(transformers, f"{kind}Config")(**sizes | changes)
    torch.manual_seed(7)
    name = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    model = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.5)
            elif parameter.ndim > 1:
                parameter.mul_(25)
            elif "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


@torch.no_grad()
def whole(model, tokens):
    """transformers' logits of each position of one sequence, [s, vocab]."""
    return model(torch.tensor([tokens])).logits[0].float()


ASKED = Asked(prompt="", sampling=Sampling(max_tokens=1))


@dataclass(eq=False)
class Row:
    """What a runner sees of a request."""

    ticket: int
    tokens: list[int]
    pages: list[int] = field(default_factory=list)
    drafts: list[int] = field(default_factory=list)
    computed: int = 0
    asked: Asked = ASKED


def largest_difference(runner, model, chance, *, longest=7, rows=3):
    """Reads ragged sequences in random pieces through `runner`, with preemption and rejected
    drafts, and returns how far any logit is from the whole sequence's own.
    """
    asked = [Row(i, [chance.randrange(VOCAB) for _ in range(chance.randint(1, 28))])
             for i in range(rows)]
    truth = [whole(model, row.tokens) for row in asked]
    free = list(range(runner.pages))
    chance.shuffle(free)
    worst = 0.0
    while any(row.computed < len(row.tokens) for row in asked):
        pieces = [_piece(runner, row, free, chance, longest) for row in asked
                  if row.computed < len(row.tokens) and chance.random() < 0.8]
        pieces.sort(key=lambda piece: piece.count > 1)
        logits = runner.run(pieces) if pieces else torch.empty(0, VOCAB)
        at = 0
        for piece in pieces:
            row, end = piece.request, piece.start + piece.count
            mine = truth[row.ticket][end - piece.wanted: end]
            worst = max(worst, *(logits[at: at + piece.wanted] - mine).abs().flatten().tolist())
            at, row.computed = at + piece.wanted, end
        assert at == len(logits)
    return worst


def _piece(runner, row, free, chance, longest):
    if row.computed and chance.random() < longest / 70:  # preempted: it starts over elsewhere
        free += row.pages
        row.pages, row.computed = [], 0
        runner.forget(row)
    elif row.computed and chance.random() < 0.2:        # drafts were rejected
        row.computed = max(0, row.computed - chance.randint(1, longest))
    count = min(chance.randint(1, longest), len(row.tokens) - row.computed)
    end = row.computed + count
    while len(row.pages) * runner.page_tokens < end:
        row.pages.append(free.pop(0))
    return Piece(row, row.computed, count, chance.choice((1, count)))

"""A mixture of experts is served like any other model.

Tolerance: who else is in a batch changes a row's scores by at most 1e-5 in fp32. A token's experts
are its own, no capacity is shared, but a matmul of more rows may add up in another order.
"""

import random
from dataclasses import replace

import pytest
import torch

from curbcut.model.decoder import Decoder
from curbcut.serve.engine.request import Piece
from curbcut.serve.engine.runner import TorchRunner
from curbcut.spec import ModelShape

SPARSE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=264,
                    context_tokens=128, qk_norm=True, experts=6, experts_per_token=2,
                    expert_ffn=24)


class Row:
    """As much of a request as a runner reads."""

    def __init__(self, tokens, pages):
        self.tokens, self.pages, self.drafts = tokens, pages, []
        self.asked = type("Asked", (), {"adapter": ""})


@pytest.mark.parametrize("changes", [{}, {"shared_experts": 1, "dense_layers": 1}])
def test_ragged_rows_equal_the_model_without_a_cache(changes):
    chance = random.Random(0)
    model = Decoder(replace(SPARSE, **changes)).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(15)
    runner = TorchRunner(model, 4 * 32, page_tokens=8)
    rows = [Row([chance.randrange(264) for _ in range(chance.randint(2, 20))],
                list(range(4 * place, 4 * place + 4))) for place in range(4)]
    runner.run([Piece(row, 0, len(row.tokens) - 1, 0) for row in rows])
    for _ in range(6):
        logits = runner.run([Piece(row, len(row.tokens) - 1, 1, 1) for row in rows])
        for found, row in zip(logits, rows, strict=True):
            alone = model.logits(model(torch.tensor([row.tokens])))[0, -1]
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)
            row.tokens.append(chance.randrange(264))

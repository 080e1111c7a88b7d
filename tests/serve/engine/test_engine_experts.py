"""A folder with a mixture of experts is served like any other.

Tolerance: who else is in a batch changes a row's scores by at most 1e-5 in fp32. A token's experts
are its own, no capacity is shared, but a matmul of more rows may add up in another order.
"""

from __future__ import annotations

import queue
import random
from dataclasses import replace

import pytest
import torch

from curbcut.model import weights
from curbcut.model.decoder import Decoder
from curbcut.serve.engine import text
from curbcut.serve.engine.interface import Sampling
from curbcut.serve.engine.local import LocalEngine
from curbcut.serve.engine.runner import Runner
from curbcut.spec import ModelShape

SPARSE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=264,
                    context_tokens=128, qk_norm=True, experts=6, experts_per_token=2,
                    expert_ffn=24)


def sparse_model(shape=SPARSE) -> Decoder:
    model = Decoder(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(15)
    return model


def whole_text(heard: queue.Queue) -> str:
    shown = ""
    while True:
        delta = heard.get(timeout=30)
        shown += delta.text
        if delta.finish is not None:
            return shown


@pytest.mark.parametrize("changes", [{}, {"shared_experts": 1, "dense_layers": 1}])
def test_ragged_rows_equal_the_model_without_a_cache(changes):
    chance = random.Random(0)
    model = sparse_model(replace(SPARSE, **changes))
    runner = Runner(model, 4, 64)
    rows = [[chance.randrange(264) for _ in range(chance.randint(1, 20))] for _ in range(4)]
    for row, tokens in enumerate(rows):
        runner.prefill(row, tokens)
    for _ in range(6):
        for tokens in rows:
            tokens.append(chance.randrange(264))
        logits = runner.decode([tokens[-1] for tokens in rows])
        for found, tokens in zip(logits, rows, strict=True):
            with torch.no_grad():
                alone = model.logits(model(torch.tensor([tokens])))[0, -1]
            torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)


def test_a_sparse_folder_answers_as_transformers_does_alone_and_together(tmp_path, folder):
    from transformers import AutoModelForCausalLM
    weights.save(sparse_model(), SPARSE, tmp_path / "model", folder)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(theirs).__name__ == "Qwen3MoeForCausalLM"
    engine = LocalEngine(weights.load(tmp_path / "model")[0], text.load(tmp_path / "model"),
                         max_batch=4)
    prompts, greedy = ([5, 6, 7], [200] * 9, list(range(40))), Sampling(max_tokens=12,
                                                                        temperature=0)
    try:
        heard = [queue.Queue() for _ in prompts]
        for prompt, one in zip(prompts, heard, strict=True):
            engine.submit(prompt, greedy, one.put)
        shown = [whole_text(one) for one in heard]
    finally:
        engine.close()
    for prompt, answer in zip(prompts, shown, strict=True):
        said = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)
        assert answer == engine.vocabulary.decode(said[0, len(prompt):].tolist())

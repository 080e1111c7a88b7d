"""Recorded steps; where there is no GPU, a recorder that only holds on to the work."""

import random

import pytest
import torch

from curbcut.model.decoder import Decoder
from curbcut.serve.engine.cache import PagedCache, StepView
from curbcut.serve.engine.graphs import CudaRecorder, DecodeGraphs
from curbcut.serve.engine.network import Network
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=97,
                   context_tokens=128, qk_norm=True)


class Recorder:
    """Counts what it records."""

    def __init__(self):
        self.recorded = 0

    def __call__(self, work):
        self.recorded += 1
        return work


def decoded_by(recorder, device="cpu"):
    """Sequences that go on token by token through recorded steps: logits found, and right ones."""
    chance = random.Random(0)
    with torch.device(device):
        model = Decoder(SHAPE).to(device).requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(6 if parameter.ndim > 1 else 1)
    cache = PagedCache(SHAPE, 64, 8, torch.float32, torch.device(device))
    network = Network(model)
    graphs = DecodeGraphs(network, cache, 2, recorder)
    order = chance.sample(range(64), 64)
    texts = [[chance.randrange(97) for _ in range(chance.randint(3, 70))] for _ in range(5)]
    pages = [order[i * 12: (i + 1) * 12] for i in range(5)]
    for text, own in zip(texts, pages, strict=True):
        fed = torch.tensor(text, device=device)
        network.hidden(fed, StepView(cache, [(own, 0, len(text))], 2))
    found, right = [], []
    for step in range(10):
        live = chance.sample(range(5), 5 - step % 3)
        for i in live:
            texts[i].append(chance.randrange(97))
        spans = [(pages[i], len(texts[i]) - 1, 1) for i in live]
        before = cache.store.clone()
        found.append(graphs.logits([texts[i][-1] for i in live], spans))
        changed = (cache.store != before).flatten(3).any(-1).any(0).nonzero().tolist()
        assert sorted(changed) == sorted([own[at // 8], at % 8] for own, at, _ in spans)
        right += [model.logits(model(torch.tensor([texts[i]], device=device)))[0, -1]
                  for i in live]
    return torch.cat(found), torch.stack(right)


def test_filled_up_steps_give_each_row_what_is_its_own():
    recorder = Recorder()
    found, right = decoded_by(recorder)
    torch.testing.assert_close(found, right, atol=1e-4, rtol=0)
    assert recorder.recorded < 5  # 4 or 8 rows, 8 or 16 pages


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_graphs_of_a_gpu_give_the_same():
    found, right = decoded_by(CudaRecorder(), "cuda")
    torch.testing.assert_close(found, right, atol=1e-3, rtol=0)

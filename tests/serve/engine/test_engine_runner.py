"""The runner gives the plain decoder's scores, whatever is computed with what and when.

Tolerance: 1e-4 of a logit in fp32, for logits of a few units. Company in a batch changes a row's
scores by rounding only (a matmul of more rows may add up in another order).
"""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.model.decoder import Decoder
from curbcut.serve.engine.request import Piece
from curbcut.serve.engine.runner import TorchRunner
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=97,
                   context_tokens=320)
SHAPES = {
    "llama": SHAPE,
    "qwen3": replace(SHAPE, qk_norm=True, tied_embeddings=False),
    "no groups": replace(SHAPE, kv_heads=4),
    "one key head": replace(SHAPE, kv_heads=1),
    "experts": replace(SHAPE, qk_norm=True, experts=6, experts_per_token=2, expert_ffn=24),
    "shared experts": replace(SHAPE, experts=6, experts_per_token=2, expert_ffn=24,
                              shared_experts=1, dense_layers=1),
}
_MODELS = {}


def model_of(name, dtype=torch.float32):
    if (name, dtype) not in _MODELS:
        model = Decoder(SHAPES[name])
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(8)
        _MODELS[name, dtype] = model.to(dtype).requires_grad_(False)
    return _MODELS[name, dtype]


def alone(model, tokens):
    """All logits of one sequence by the plain decoder, [n, vocab]."""
    return model.logits(model(torch.tensor([tokens])))[0].float()


def asking(tokens, pages, known=None):
    """A request as the runner sees it: of its tokens the first are known, the others drafts."""
    known = len(tokens) if known is None else known
    return SimpleNamespace(tokens=tokens[:known], drafts=tokens[known:], pages=pages,
                           asked=SimpleNamespace(adapter=""))


def spread_out(chance, count, pages_each, pages):
    """Pages for each of `count` requests, in no order."""
    order = list(range(pages))
    chance.shuffle(order)
    return [order[i * pages_each: (i + 1) * pages_each] for i in range(count)]


@pytest.mark.parametrize("name", SHAPES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), page_tokens=st.sampled_from([1, 4, 16]),
       most=st.sampled_from([1, 7, 40, 200]))
def test_ragged_pieces_in_any_order_equal_the_plain_decoder(name, seed, page_tokens, most):
    chance, model = random.Random(seed), model_of(name)
    lengths = [chance.randint(1, 60) for _ in range(4)] + [chance.randint(129, 260)]
    each = -(-max(lengths) // page_tokens)
    runner = TorchRunner(model, each * page_tokens * 6, page_tokens=page_tokens)
    own = spread_out(chance, len(lengths), each, runner.pages)
    texts = [[chance.randrange(97) for _ in range(length)] for length in lengths]
    requests = [asking(text, pages) for text, pages in zip(texts, own, strict=True)]
    right = [alone(model, text) for text in texts]
    done = [0] * len(texts)
    while any(at < len(text) for at, text in zip(done, texts, strict=True)):
        pieces, expected = [], []
        for i in chance.sample(range(len(texts)), len(texts)):
            count = min(chance.choice([1, 1, 2, 3, 8, 9, most]), len(texts[i]) - done[i])
            if count and chance.random() < 0.7:
                wanted = chance.choice([0, 1, count])
                pieces.append(Piece(requests[i], done[i], count, wanted))
                done[i] += count
                expected.append(right[i][done[i] - wanted: done[i]])
        if pieces:
            before = runner.cache.store.clone()
            torch.testing.assert_close(runner.run(pieces), torch.cat(expected), atol=1e-4, rtol=0)
            assert_others_untouched(runner, before, pieces)


def assert_others_untouched(runner, before, pieces):
    """Only the slots of the pieces' own new positions may have changed."""
    size = runner.page_tokens
    written = torch.zeros(runner.pages, size, dtype=torch.bool)
    for piece in pieces:
        for at in range(piece.start, piece.start + piece.count):
            written[piece.request.pages[at // size], at % size] = True
    changed = (runner.cache.store != before).flatten(3).any(-1).any(0)
    assert not (changed & ~written).any()
    assert changed[written].all()


def test_pages_that_are_shared_serve_both():
    chance, model = random.Random(1), model_of("qwen3")
    runner = TorchRunner(model, 320, page_tokens=4)
    text = [chance.randrange(97) for _ in range(20)]
    ends = [text[:16] + [chance.randrange(97) for _ in range(5)] for _ in range(2)]
    first, second = (asking(end, [7, 3, 9, 1, *last]) for end, last in
                     zip(ends, ([4, 5], [11, 2]), strict=True))
    runner.run([Piece(first, 0, 16, 0)])
    found = runner.run([Piece(second, 16, 5, 1), Piece(first, 16, 5, 1)])
    right = torch.stack([alone(model, ends[1])[-1], alone(model, ends[0])[-1]])
    torch.testing.assert_close(found, right, atol=1e-4, rtol=0)


def test_drafts_are_fed_after_the_known_tokens():
    model = model_of("llama")
    runner = TorchRunner(model, 64)
    tokens = [5, 80, 11, 2, 64, 3]
    found = runner.run([Piece(asking(tokens, [2], known=3), 0, 6, 4)])
    torch.testing.assert_close(found, alone(model, tokens)[2:], atol=1e-4, rtol=0)


def test_no_logits_wanted_are_none_given():
    runner = TorchRunner(model_of("llama"), 64)
    assert runner.run([Piece(asking([1, 2, 3], [0]), 0, 3, 0)]).shape == (0, 97)


@pytest.mark.parametrize("name", ["llama", "no groups"])
def test_bf16_is_as_near_to_fp32_as_the_plain_decoder_in_bf16(name):
    chance = random.Random(2)
    tokens = [chance.randrange(97) for _ in range(150)]
    right = alone(model_of(name), tokens)
    plain = (alone(model_of(name, torch.bfloat16), tokens) - right).square().mean().sqrt()
    runner = TorchRunner(model_of(name, torch.bfloat16), 160)
    request = asking(tokens, list(range(10)))
    found = torch.cat([runner.run([Piece(request, 0, 140, 140)]),
                       *(runner.run([Piece(request, at, 1, 1)]) for at in range(140, 150))])
    assert found.dtype == torch.float32
    assert (found - right).square().mean().sqrt() < 1.3 * plain


def test_a_context_that_is_asked_for_bounds_the_shapes_own():
    assert TorchRunner(model_of("llama"), 64, context_tokens=100).context_tokens == 100
    assert TorchRunner(model_of("llama"), 64, context_tokens=9999).context_tokens == 320


@pytest.mark.parametrize("length", [1, 17, 300])
def test_an_embedding_is_the_mean_of_hidden_states_and_touches_no_page(length, monkeypatch):
    monkeypatch.setattr("curbcut.serve.engine.runner.EMBEDDED_TOKENS", 128)
    chance, model = random.Random(3), model_of("qwen3")
    runner = TorchRunner(model, 64)
    prompt = [chance.randrange(97) for _ in range(length)]
    mean = model(torch.tensor([prompt]))[0].mean(0)
    torch.testing.assert_close(runner.embed(prompt), mean / mean.norm(), atol=1e-5, rtol=0)
    assert not runner.cache.store.any()

"""The engine on real weights: the same answers alone and in any company."""

import queue

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pretend import asked

from curbcut.model import weights
from curbcut.model.decoder import Decoder
from curbcut.serve.engine import text
from curbcut.serve.engine.local import LocalEngine
from curbcut.serve.engine.runner import TorchRunner
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=8, ffn=48, vocab=264,
                   context_tokens=64, qk_norm=True)


class Listener:
    def __init__(self):
        self.deltas = queue.Queue()

    def __call__(self, delta):
        self.deltas.put(delta)

    def all(self):
        found = []
        while not found or found[-1].finish is None:
            found.append(self.deltas.get(timeout=60))
        return found

    def ids(self):
        return [token for delta in self.all() for token in delta.ids]


def engine_on(model, vocabulary, tokens=512, page_tokens=4, dtype=None, **how):
    runner = TorchRunner(model if dtype is None else model.to(dtype), tokens,
                         page_tokens=page_tokens)
    return LocalEngine(runner, vocabulary, careful=True, **how)


@pytest.fixture(scope="module")
def vocabulary(folder):
    return text.load(folder)


@pytest.fixture(scope="module")
def model():
    """Random, but sure of itself."""
    torch.manual_seed(0)
    model = Decoder(SHAPE).requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(15)
    return model


def plain(model, prompt, count):
    """Greedy answer of the decoder that trains: no cache, no pages, no batch."""
    tokens = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            tokens.append(int(model.logits(model(torch.tensor([tokens]))[0, -1]).argmax()))
    return tokens[len(prompt):]


def test_greedy_is_what_transformers_generates(folder, vocabulary):
    from transformers import AutoModelForCausalLM
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    engine = engine_on(weights.load(folder)[0].requires_grad_(False), vocabulary)
    try:
        for prompt in ([5, 6, 7], [200] * 9, list(range(40))):
            expected = theirs.generate(torch.tensor([prompt]), max_new_tokens=30, do_sample=False)
            listener = Listener()
            engine.submit(asked(prompt, 30), listener)
            deltas = listener.all()
            tokens = expected[0, len(prompt):].tolist()
            assert "".join(delta.text for delta in deltas) == vocabulary.decode(tokens)
            assert deltas[-1].tokens == len(tokens)
    finally:
        engine.close()


class Repeats:
    """Drafts the newest tokens again: sometimes right, mostly wrong."""

    def __call__(self, requests):
        for one in requests:
            one.drafts = one.tokens[-3:]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_alone_and_in_any_batch_the_greedy_answer_is_one(model, vocabulary, data):
    """fp32: over ragged batches, chunks, page sizes, shared prompts, drafts and preemption, the
    tokens are those of the plain decoder. (In bf16 a sum in another order may turn a near tie
    around; `test_bf16_differs_by_rounding_only` says how far scores can differ.)
    """
    page_tokens = data.draw(st.sampled_from([1, 3, 4, 16]))
    engine = engine_on(model, vocabulary, data.draw(st.integers(64, 160)), page_tokens,
                       max_batch=data.draw(st.integers(1, 6)),
                       step_tokens=data.draw(st.integers(1, 24)),
                       draft=data.draw(st.sampled_from([None, Repeats()])))
    start = data.draw(st.lists(st.integers(0, 263), max_size=20))
    try:
        listeners, wanted = [], []
        for _ in range(data.draw(st.integers(1, 6))):
            prompt = start + data.draw(st.lists(st.integers(0, 263), min_size=1, max_size=20))
            count = data.draw(st.integers(1, 20))
            listeners.append(Listener())
            wanted.append(plain(model, prompt, count))
            engine.submit(asked(prompt, count, ignore_end=True), listeners[-1])
        assert [listener.ids() for listener in listeners] == wanted
    finally:
        engine.close()


def test_preemption_on_real_pages_changes_no_answer(model, vocabulary):
    engine = engine_on(model, vocabulary, 64, 4, max_batch=4)
    try:
        prompts = [[i, i + 1, 7, 8, 9] for i in range(4)]
        listeners = [Listener() for _ in prompts]
        for prompt, listener in zip(prompts, listeners, strict=True):
            engine.submit(asked(prompt, 24, ignore_end=True), listener)
        answers = [listener.ids() for listener in listeners]
        assert answers == [plain(model, prompt, 24) for prompt in prompts]
        assert engine.stats().preempted > 0 and engine.stats().used_pages == 0
    finally:
        engine.close()


def test_bf16_differs_by_rounding_only(vocabulary):
    """In a batch or alone, log-probabilities of the same tokens agree to a few ulps of bf16."""
    torch.manual_seed(1)
    engine = engine_on(Decoder(SHAPE).requires_grad_(False), vocabulary, dtype=torch.bfloat16,
                       max_batch=8)
    prompts = [[3 * i % 264 for i in range(k, k + 4 + k)] for k in range(8)]

    def odds(prompts):
        listeners = [Listener() for _ in prompts]
        for place, (prompt, listener) in enumerate(zip(prompts, listeners, strict=True)):
            engine.submit(asked(prompt, 1, prompt_logprobs=0, salt=str(place)), listener)
        return [[one.logprob for one in listener.all()[0].prompt_odds[1:]]
                for listener in listeners]

    try:
        together = odds(prompts)
        alone = [odds([prompt])[0] for prompt in prompts]
        for one, other in zip(together, alone, strict=True):
            assert one == pytest.approx(other, abs=2**-5)
    finally:
        engine.close()


def test_draws_with_a_seed_are_the_same_in_any_company(model, vocabulary):
    def answers(batch):
        engine = engine_on(model, vocabulary, max_batch=batch)
        listeners = [Listener() for _ in range(5)]
        for place, listener in enumerate(listeners):
            engine.submit(asked([place, 4], 12, temperature=1.3, seed=place, top_p=0.9),
                          listener)
        found = [listener.ids() for listener in listeners]
        engine.close()
        return found

    assert answers(1) == answers(5)


def test_embeddings_do_not_depend_on_what_runs(model, vocabulary):
    engine = engine_on(model, vocabulary)
    try:
        alone = engine.embed([(1, 2, 3)])[0]
        listener = Listener()
        engine.submit(asked([1, 2, 3], 40, ignore_end=True), listener)
        assert engine.embed([(1, 2, 3), (9,)])[0] == alone
        assert sum(x * x for x in alone) == pytest.approx(1)
        assert len(listener.ids()) == 40
    finally:
        engine.close()

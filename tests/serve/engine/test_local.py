"""The engine on real weights: the same answers alone and in any company."""

import copy
import queue

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.model import weights
from curbcut.model.decoder import Decoder
from curbcut.serve.engine import text
from curbcut.serve.engine.local import LocalEngine
from curbcut.serve.engine.runner import TorchRunner
from curbcut.spec import ModelShape
from pretend import asked

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
    return LocalEngine(runner, vocabulary, **how)


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

    def __call__(self, requests, record):
        for one in requests:
            one.drafts = one.tokens[-3:]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_alone_and_in_any_batch_the_greedy_answer_is_one(model, vocabulary, data):
    """fp32: over ragged batches, chunks, page sizes, shared prompts, drafts and preemption, the
    tokens are those of the plain decoder. (A sum in another order may turn a near tie around:
    see `test_company_turns_near_ties_around_and_nothing_else`.)
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


def odds_of(model, vocabulary, prompts, dtype, **how):
    """Greedy answers as odds, each token with the likeliest two there."""
    engine = engine_on(copy.deepcopy(model), vocabulary, dtype=dtype, **how)
    listeners = [Listener() for _ in prompts]
    for place, (prompt, listener) in enumerate(zip(prompts, listeners, strict=True)):
        engine.submit(asked(prompt, 40, ignore_end=True, logprobs=2, salt=str(place)), listener)
    found = [[odds for delta in listener.all() for odds in delta.odds] for listener in listeners]
    engine.close()
    return found


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-5)])
def test_company_turns_near_ties_around_and_nothing_else(vocabulary, dtype, most):
    """Each token has a twin, as likely as itself but for rounding. Alone and in a batch whose
    steps cut the prompts up, log-probabilities are equal within `most`, and answers part only
    where two tokens are that near.
    """
    model = Decoder(SHAPE).requires_grad_(False)
    model.head_weight[1::2] = model.head_weight[::2] * (1 + torch.finfo(dtype).eps)
    prompts = [[(3 * i + k) % 264 for i in range(1 + k % 23)] for k in range(12)]
    alone = odds_of(model, vocabulary, prompts, dtype, max_batch=1, tokens=64)
    company = odds_of(model, vocabulary, prompts, dtype, max_batch=8, step_tokens=11)
    for one, other in zip(alone, company, strict=True):
        for mine, yours in zip(one, other, strict=True):
            if mine.token != yours.token:
                assert mine.logprob - dict(mine.top)[yours.token] < most
                assert yours.logprob - dict(yours.top)[mine.token] < most
                break
            assert mine.logprob == pytest.approx(yours.logprob, abs=most)


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

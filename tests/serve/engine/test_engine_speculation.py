import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError
from curbcut.model import weights
from curbcut.serve.engine import text
from curbcut.serve.engine.drafting import ModelDrafter, of_folder
from curbcut.serve.engine.interface import Asked, Sampling
from curbcut.serve.engine.local import LocalEngine
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.runner import TorchRunner
from curbcut.serve.engine.sampler import begin, take
from curbcut.serve.engine.speculation import Lookup, Speculator

VOCAB = 6


class NoText:
    size, end_tokens = VOCAB, frozenset()


def request(tokens=(1, 2, 3), ticket=0, **how):
    sampling = Sampling(**({"max_tokens": 99, "seed": 1} | how))
    made = Request(ticket=ticket, asked=Asked(prompt=tuple(tokens), sampling=sampling),
                   deliver=lambda delta: None, tokens=list(tokens), prompt_tokens=len(tokens),
                   text=None, sampling=sampling)
    begin(made, NoText, 10**6)
    return made


def guess(tokens, most=4, **how):
    [found] = Lookup(**how).draft([request(tokens)], [most])
    return found


def test_look_up_goes_on_as_the_text_did():
    assert guess([5, 1, 2, 3, 9, 9, 1, 2]) == [3, 9, 9, 1]
    assert guess([1, 2, 7, 0, 1, 2, 8, 0, 1, 2]) == [8, 0, 1, 2]          # the newest of equals
    assert guess([4, 1, 2, 7, 0, 1, 2, 8, 4, 1, 2]) == [7, 0, 1, 2]       # the longest run first
    assert guess([1, 2, 3, 2]) == [] and guess([1]) == [] and guess([1, 1]) == []
    assert guess([3, 7, 7, 7], most=3) == [7, 7, 7]                       # on and on


@settings(max_examples=60, deadline=None)
@given(tokens=st.lists(st.integers(0, 3), min_size=1, max_size=40), cut=st.integers(1, 40))
def test_look_up_finds_what_a_plain_search_finds(tokens, cut):
    def plain(text, longest=8):
        for length in range(min(longest, len(text) - 1), 1, -1):
            for start in range(len(text) - 1, length - 1, -1):
                if text[start - length: start] == text[-length:]:
                    return [text[start + at % (len(text) - start)] for at in range(5)]
        return []

    lookup, made = Lookup(), request(tokens[: min(cut, len(tokens))])
    lookup.draft([made], [5])                                             # then it grows
    made.tokens += tokens[cut:]
    assert lookup.draft([made], [5]) == [plain(made.tokens)]


def answers(drafts_of, count, **how):
    """First three tokens of many answers of one process that has a memory of one token."""
    table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(4)) * 1.5
    found = []
    for seed in range(count):
        made = request((1,), seed=seed, **how)
        while made.answered < 3:
            made.drafts = drafts_of(made)
            fed = [made.tokens[-1], *made.drafts]
            end = len(made.tokens)
            [taken] = take(table[fed], [Piece(made, end - 1, len(fed), len(fed))])
            made.tokens += [one.token for one in taken]
        found.append(tuple(made.answer[:3]))
    return table, found


def test_drafts_keep_the_distribution():
    table, found = answers(lambda made: [made.tokens[-1], 2, 2][: made.answered + 1], 2000,
                           temperature=0.8, top_p=0.9)
    counts = Counter(found)
    likely = {}
    chain = table.double() / 0.8
    near = chain.softmax(-1)
    order = near.sort(dim=-1, descending=True, stable=True)
    kept = order.values.masked_fill(order.values.cumsum(-1) - order.values >= 0.9, 0)
    near = torch.zeros_like(near).scatter(1, order.indices, kept / kept.sum(-1, keepdim=True))
    for one in range(VOCAB):
        for two in range(VOCAB):
            for three in range(VOCAB):
                share = float(near[1, one] * near[one, two] * near[two, three])
                likely[one, two, three] = share * len(found)
    assert not any(counts[key] for key, wanted in likely.items() if not wanted)
    often = {key: wanted for key, wanted in likely.items() if wanted >= 5}
    chi = sum((counts[key] - wanted) ** 2 / wanted for key, wanted in often.items())
    assert chi < len(often) + 4.5 * math.sqrt(2 * len(often)) + 4


@pytest.mark.parametrize("how", [{"temperature": 0}, {}, {"top_p": 0.6, "presence_penalty": 1.0},
                                 {"repetition_penalty": 1.5, "temperature": 0}], ids=str)
def test_drafts_change_no_answer(how):
    plain = answers(lambda made: [], 60, **how)[1]
    assert answers(lambda made: [made.ticket % VOCAB, 2, made.tokens[-1]], 60, **how)[1] == plain
    assert answers(lambda made: [3], 60, **how)[1] == plain


def test_right_guesses_grow_and_wrong_ones_rest():
    class Fixed:
        def __init__(self):
            self.asked, self.right = [], True

        def draft(self, requests, most):
            self.asked.append(list(most))
            return [[7 if self.right else 8] * count for count in most]

        def forget(self, ticket):
            pass

    drafter = Fixed()
    speculate, made = Speculator(drafter), request(max_tokens=10**4)
    for _ in range(4):
        made.drafts.clear()
        speculate([made])
        made.tokens += [7] * (1 + len(made.drafts))
    assert drafter.asked == [[2], [4], [8], [8]]
    drafter.asked, drafter.right = [], False
    for _ in range(200):
        made.drafts.clear()
        speculate([made])
        made.tokens += [7]
    assert 3 < len(drafter.asked) < 12, "wrong guesses are hardly ever tried again"


def test_no_drafts_where_a_step_is_full_or_an_answer_ends():
    speculate = Speculator(Lookup(), rows=6)
    many = [request([7] * 9, ticket) for ticket in range(4)]
    speculate(many)
    assert all(one.drafts == [] for one in many)
    few = many[:2]
    speculate(few)
    assert [one.drafts for one in few] == [[7, 7], [7, 7]]
    short = request([7] * 9, 9, max_tokens=1)
    speculate([short])
    assert short.drafts == []


def test_who_is_gone_is_forgotten():
    lookup = Lookup()
    speculate = Speculator(lookup)
    speculate([request([7] * 9, 1), request([7] * 9, 2)])
    speculate([request([7] * 9, 2)])
    assert set(lookup._texts) == {2} == set(speculate._records)


def run(engine, prompts, **how):
    """Tokens of answers to all prompts at once."""
    import queue
    boxes = []
    for at, prompt in enumerate(prompts):
        box = queue.Queue()
        sampling = Sampling(**({"max_tokens": 40, "seed": at, "ignore_end": True} | how))
        engine.submit(Asked(prompt=tuple(prompt), sampling=sampling), box.put)
        boxes.append(box)
    found = []
    for box in boxes:
        ids = []
        while True:
            delta = box.get(timeout=30)
            ids += delta.ids
            if delta.finish:
                break
        found.append((delta.finish, ids))
    return found


@pytest.mark.parametrize("how", [{"temperature": 0}, {"temperature": 0.7, "top_p": 0.9}], ids=str)
def test_an_engine_that_guesses_says_the_same_in_fewer_steps(folder, how):
    prompts = [[5, 6, 7] * 5, [9] * 12]
    found, steps = [], []
    for draft in (None, Speculator(Lookup())):
        engine = LocalEngine(TorchRunner(weights.load(folder)[0], 1024), text.load(folder),
                             max_batch=4, draft=draft)
        found.append(run(engine, prompts, **how, logit_bias={7: 60.0}))
        steps.append(engine.stats())
        engine.close()
    assert found[0] == found[1]
    assert steps[1].accepted_tokens > 0 and steps[1].steps < steps[0].steps
    assert steps[1].drafted_tokens >= steps[1].accepted_tokens


def engine_with(folder, drafter):
    return LocalEngine(TorchRunner(weights.load(folder)[0], 1024), text.load(folder), max_batch=4,
                       draft=None if drafter is None else Speculator(drafter, rows=64))


@pytest.mark.parametrize("how", [{"temperature": 0}, {}, {"temperature": 0.7, "top_p": 0.9}],
                         ids=str)
def test_drafts_of_the_model_itself_are_all_right(folder, how):
    prompts = [[5, 6, 7] * 5, [9] * 3, list(range(60))]
    plain = engine_with(folder, None)
    expected = run(plain, prompts, **how)
    plain.close()
    drafter = of_folder(folder, text.load(folder), 264, sequences=4)
    engine = engine_with(folder, drafter)
    assert run(engine, prompts, **how) == expected
    stats = engine.stats()
    assert stats.accepted_tokens == stats.drafted_tokens > 60
    assert stats.decode_steps < 30
    run(engine, [[1]])                           # whoever is gone has given its pages back
    engine.close()
    assert drafter.pages.used <= 3


def test_drafts_of_a_bad_model_change_nothing(folder, tmp_path):
    from curbcut.model.decoder import Decoder
    prompts = [[5, 6, 7] * 5, [9] * 3]
    plain = engine_with(folder, None)
    expected = run(plain, prompts, temperature=0)
    plain.close()
    shape = weights.load(folder)[1]
    other = Decoder(shape)
    weights.save(other, shape, tmp_path / "small", folder)
    small = of_folder(tmp_path / "small", text.load(folder), 264, sequences=4)
    engine = engine_with(folder, small)
    assert run(engine, prompts, temperature=0) == expected
    stats = engine.stats()
    assert stats.accepted_tokens < stats.drafted_tokens
    engine.close()


def test_long_prompts_are_read_in_pieces_and_no_room_means_no_guess(folder):
    runner = TorchRunner(weights.load(folder)[0], 64)
    drafter = ModelDrafter(runner, 264, step_tokens=16)
    made = request(list(range(40)), temperature=0)
    found = [drafter.draft([made], [3]) for _ in range(3)]
    assert found[:2] == [[[]], [[]]] and len(found[2][0]) == 3
    other = request(list(range(40)), ticket=1, temperature=0)
    assert drafter.draft([other], [3]) == [[]] and drafter.pages.used == 3
    drafter.forget(0)
    drafter.forget(0)
    assert drafter.pages.used == 0
    drafter.pages.check()


def test_a_draft_model_has_the_same_tokenizer(folder, tmp_path):
    from serve.conftest import byte_tokenizer
    strange = byte_tokenizer()
    strange.add_special_tokens(["<|other|>"])
    (tmp_path / "other").mkdir()
    strange.save(str(tmp_path / "other" / "tokenizer.json"))
    with pytest.raises(InputError, match="tokenizer"):
        of_folder(tmp_path / "other", text.load(folder), 264)

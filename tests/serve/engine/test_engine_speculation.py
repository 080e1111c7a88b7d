import math
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError
from curbcut.model import weights
from curbcut.serve.engine import text
from curbcut.serve.engine.chooser import begin
from curbcut.serve.engine.drafting import ModelDrafter, of_folder
from curbcut.serve.engine.interface import Asked, Sampling, StepRecord
from curbcut.serve.engine.local import LocalEngine
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.runner import TorchRunner
from curbcut.serve.engine.sampler import take
from curbcut.serve.engine.speculation import FRESH, Lookup, Speculator
from pretend import check

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


class Told:
    """A drafter whose guesses are right as often as said, on a clock that it moves."""

    def __init__(self, right=1.0, seconds=0.0):
        self.now, self.right, self.seconds, self.asked = 0.0, right, seconds, []
        self.forgotten, self.chance = [], random.Random(5)

    def draft(self, requests, most):
        self.asked.append(list(most))
        self.now += self.seconds * max(most)
        return [[7 if self.chance.random() < self.right else 8 for _ in range(count)]
                for count in most]

    def forget(self, ticket):
        self.forgotten.append(ticket)


def steps(speculate, drafter, requests, count, row_seconds=0.0, prefill=()):
    """Answers of sevens by a model whose steps take 1 s, and so much for each row beyond those of
    the answers; tokens that came, and seconds that they took.
    """
    begin, tokens, record = drafter.now, 0, StepRecord(1.0, {}, {})
    for _ in range(count):
        speculate(requests, record)
        seconds = 1.0 + row_seconds * sum(len(one.drafts) for one in requests)
        drafter.now += seconds
        for one in requests:
            right = 0
            while right < len(one.drafts) and one.drafts[right] == 7:
                right += 1
            one.tokens += [7] * (right + 1)
            one.drafts.clear()
            tokens += right + 1
        record = StepRecord(seconds, dict.fromkeys(prefill, 1), {})
    return tokens, drafter.now - begin


def speculator(**how):
    drafter = Told(**how)
    return Speculator(drafter, clock=lambda: drafter.now), drafter


def test_guesses_that_are_right_and_cheap_grow_to_the_most():
    speculate, drafter = speculator()
    tokens, seconds = steps(speculate, drafter, [request(max_tokens=10**5)], 60)
    assert drafter.asked[0] == [1] and drafter.asked[-1] == [8]
    assert tokens > 6 * seconds


@pytest.mark.parametrize(("right", "seconds", "rows"), [
    (0.0, 0.0, 0.05), (0.0, 0.5, 0.0), (0.5, 0.6, 0.0), (0.7, 0.0, 0.8), (0.9, 1.5, 0.0)])
@pytest.mark.parametrize("together", [1, 8])
def test_drafting_stops_where_it_does_not_pay(right, seconds, rows, together):
    speculate, drafter = speculator(right=right, seconds=seconds)
    asked = [request(ticket=at, max_tokens=10**5) for at in range(together)]
    tokens, took = steps(speculate, drafter, asked, 2000, rows)
    assert tokens > 0.95 * together * took, "lost more than a twentieth"
    assert len(drafter.asked) < 200


@pytest.mark.parametrize(("right", "seconds", "rows", "gain"), [
    (0.7, 0.1, 0.0, 1.6), (0.9, 0.3, 0.0, 1.6), (0.8, 0.0, 0.1, 2.2), (0.9, 0.05, 0.05, 2.8)])
def test_drafting_goes_as_far_as_pays(right, seconds, rows, gain):
    speculate, drafter = speculator(right=right, seconds=seconds)
    tokens, took = steps(speculate, drafter, [request(max_tokens=10**5)], 2000, rows)
    best = max((1 - right ** (k + 1)) / (1 - right) / (1 + k * (seconds + rows))
               for k in range(1, 9))
    assert best > gain, "the case itself"
    assert tokens > 0.88 * best * took


def test_drafting_starts_and_stops_as_text_and_machine_change():
    speculate, drafter = speculator(right=0.0)
    made = [request(max_tokens=10**5)]
    for right, row_seconds, gains in ((0.0, 0.1, False), (1.0, 0.1, True), (0.0, 0.1, False),
                                      (1.0, 0.1, True), (1.0, 1.2, False), (1.0, 0.1, True)):
        drafter.right = right
        steps(speculate, drafter, made, 2 * FRESH, row_seconds)    # time to learn it
        tokens, seconds = steps(speculate, drafter, made, FRESH, row_seconds)
        assert (tokens > 2 * seconds) == gains and tokens > 0.95 * seconds


def test_of_several_answers_those_are_guessed_for_whose_guesses_are_right():
    class Halves(Told):
        def draft(self, requests, most):
            self.asked.append([one.ticket for one in requests])
            return [[7 if one.ticket == 0 else 8] * count
                    for one, count in zip(requests, most, strict=True)]

    drafter = Halves()
    speculate = Speculator(drafter, clock=lambda: drafter.now)
    asked = [request(ticket=at, max_tokens=10**5) for at in range(4)]
    steps(speculate, drafter, asked, 300, 0.1)
    tickets = Counter(ticket for some in drafter.asked for ticket in some)
    assert tickets[0] > 250 > 4 * max(tickets[at] for at in (1, 2, 3))


def test_one_stall_does_not_end_drafting():
    speculate, drafter = speculator()
    made = [request(max_tokens=10**5)]
    steps(speculate, drafter, made, 40)
    speculate(made, StepRecord(500.0, {}, {}))
    made[0].drafts.clear()
    tokens, seconds = steps(speculate, drafter, made, 40)
    assert tokens > 4 * seconds


def test_while_nothing_plain_was_measured_nothing_is_guessed():
    speculate, drafter = speculator()
    made = [request(max_tokens=10**5)]
    steps(speculate, drafter, made, 50, prefill=[9])
    assert drafter.asked == []
    steps(speculate, drafter, made, 10)
    assert drafter.asked != []


def test_not_known_yet_is_no_wrong_guess():
    class Reading(Told):
        def draft(self, requests, most):
            self.asked.append(list(most))
            return [None] * len(requests)

    drafter = Reading()
    speculate = Speculator(drafter, clock=lambda: drafter.now)
    steps(speculate, drafter, [request(max_tokens=10**5)], 40)
    assert len(drafter.asked) > 30 and speculate._all.checked == 0


def test_no_drafts_beyond_the_end_of_an_answer():
    speculate, drafter = speculator()
    steps(speculate, drafter, [request(max_tokens=10**5)], 40)
    for left, most in ((1, 0), (2, 1), (4, 3), (99, 8)):
        end = request(ticket=left, max_tokens=left)
        speculate([end], StepRecord(0.1, {}, {}))
        assert len(end.drafts) == most


def test_who_is_gone_is_forgotten():
    speculate, drafter = speculator()
    speculate([request([7] * 9, 1), request([7] * 9, 2)], StepRecord(1.0, {}, {}))
    speculate([request([7] * 9, 2)], StepRecord(1.0, {}, {}))
    assert drafter.forgotten == [1] and set(speculate._records) == {2}
    lookup = Lookup()
    lookup.draft([request([7] * 9, 1)], [2])
    lookup.forget(1)
    assert not lookup._places


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
    for draft in (None, Always(Lookup())):
        engine = LocalEngine(TorchRunner(weights.load(folder)[0], 1024), text.load(folder),
                             max_batch=4, draft=draft)
        found.append(run(engine, prompts, **how, logit_bias={7: 60.0}))
        steps.append(engine.stats())
        engine.close()
    assert found[0] == found[1]
    assert steps[1].accepted_tokens > 0 and steps[1].steps < steps[0].steps
    assert steps[1].drafted_tokens >= steps[1].accepted_tokens


class Always:
    """Guesses eight tokens for all, whether it pays or not: the clock has no part in it."""

    def __init__(self, drafter):
        self.drafter, self.seen = drafter, set()

    def __call__(self, requests, record):
        tickets = {one.ticket for one in requests}
        for ticket in self.seen - tickets:
            self.drafter.forget(ticket)
        self.seen = tickets
        asked = [one for one in requests if one.sampling.max_tokens - one.answered > 1]
        most = [min(8, one.sampling.max_tokens - one.answered - 1) for one in asked]
        for one, found in zip(asked, self.drafter.draft(asked, most), strict=True):
            one.drafts[:] = found or []


def engine_with(folder, drafter):
    return LocalEngine(TorchRunner(weights.load(folder)[0], 1024), text.load(folder), max_batch=4,
                       draft=None if drafter is None else Always(drafter))


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
    assert found[:2] == [[None], [None]] and len(found[2][0]) == 3
    other = request(list(range(40)), ticket=1, temperature=0)
    assert drafter.draft([other], [3]) == [None] and drafter.pages.used == 3
    drafter.forget(0)
    drafter.forget(0)
    assert drafter.pages.used == 0
    check(drafter.pages)


def test_a_draft_model_has_the_same_tokenizer(folder, tmp_path):
    from serve.conftest import byte_tokenizer
    strange = byte_tokenizer()
    strange.add_special_tokens(["<|other|>"])
    (tmp_path / "other").mkdir()
    strange.save(str(tmp_path / "other" / "tokenizer.json"))
    with pytest.raises(InputError, match="tokenizer"):
        of_folder(tmp_path / "other", text.load(folder), 264)

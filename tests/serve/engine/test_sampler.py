import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.serve.engine import text
from curbcut.serve.engine.chooser import begin
from curbcut.serve.engine.draws import chance, draw
from curbcut.serve.engine.interface import Asked, Sampling, Unfit
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.sampler import take

VOCAB = 264


class NoText:
    """A vocabulary of numbers; 0 ends an answer."""

    size, end_tokens = VOCAB, frozenset({0})


def request(prompt=(1, 2, 3), vocab=VOCAB, **how):
    sampling = Sampling(**({"max_tokens": 99, "seed": 1} | how))
    asked = Asked(prompt=tuple(prompt), sampling=sampling)
    made = Request(ticket=0, asked=asked, deliver=lambda delta: None, tokens=list(prompt),
                   prompt_tokens=len(prompt), text=None, sampling=sampling)
    begin(made, NoText, vocab)
    return made


def piece(request, drafts=()):
    request.drafts = list(drafts)
    end = len(request.tokens)
    return Piece(request, end - 1, 1 + len(drafts), 1 + len(drafts))


def step(logits, *requests):
    """One token for each, appended."""
    found = take(logits.float(), [piece(one) for one in requests])
    for one, [taken] in zip(requests, found, strict=True):
        one.tokens.append(taken.token)
    return [one.token for [one] in found]


def answer(logits, **how):
    """Tokens that the same logits [vocab] give again and again."""
    made = request(vocab=len(logits), **how)
    return [step(logits[None], made)[0] for _ in range(20)]


def frequencies(logits, count, **how):
    """How often each token is drawn, over `count` seeds at once."""
    drawn: Counter[int] = Counter()
    for start in range(0, count, 500):
        samplings = [Sampling(max_tokens=1, **how)] * 500
        drawn.update(draw(logits.expand(500, -1).clone(), samplings,
                          [chance(seed, 0) for seed in range(start, start + 500)]))
    return torch.tensor([drawn[token] for token in range(logits.shape[-1])], dtype=torch.float64)


def sorted_out(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """The documented distribution, written down plainly: [vocab] in fp64."""
    likely, tokens = (logits.double() / temperature).softmax(-1).sort(descending=True, stable=True)
    if top_k:
        likely[top_k:] = 0
    before = likely.cumsum(-1) - likely
    if top_p < 1:
        likely[before >= top_p * likely.sum() * (1 - 1e-9)] = 0
    likely[likely < min_p * likely[0]] = 0
    return torch.zeros_like(likely).scatter(0, tokens, likely / likely.sum())


def chi_square_fits(found, expected):
    """Whether counts may have come from a distribution: 4.5 standard deviations of chi-square."""
    possible = expected > 0
    assert found[~possible].sum() == 0
    wanted = expected[possible] * found.sum()
    freedom = max(int(possible.sum()) - 1, 1)
    chi = ((found[possible] - wanted) ** 2 / wanted).sum()
    return chi < freedom + 4.5 * math.sqrt(2 * freedom) + 4


HOW = [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.6},
       {"top_p": 0.95}, {"min_p": 0.2}, {"top_k": 20, "top_p": 0.8, "min_p": 0.05},
       {"temperature": 0.8, "top_k": 40, "top_p": 0.5}]


@pytest.mark.parametrize("how", HOW, ids=str)
def test_frequencies_are_those_of_the_documented_distribution(how):
    logits = torch.randn(150, generator=torch.Generator().manual_seed(3)) * 2
    assert chi_square_fits(frequencies(logits, 8000, **how), sorted_out(logits, **how))


@pytest.mark.parametrize("how", [{}, {"top_p": 0.9}], ids=str)
def test_frequencies_over_many_chunks_of_tokens(how):
    logits = -2 * torch.arange(1, 1100).float().log().roll(500)
    assert chi_square_fits(frequencies(logits, 6000, **how), sorted_out(logits, **how))


@pytest.mark.parametrize("noise", [0.2, 0.6])
def test_models_that_are_alike_draw_alike_by_the_same_chance(noise):
    """The bound of Daliri et al. for the Gumbel trick: (1 - TV) / (1 + TV)."""
    source = torch.Generator().manual_seed(8)
    logits = torch.randn(400, 1000, generator=source) * 3
    other = logits + torch.randn(400, 1000, generator=source) * noise
    how, chances = [Sampling(max_tokens=1)] * 400, [chance(seed, 0) for seed in range(400)]
    pairs = zip(draw(logits, how, chances), draw(other, how, chances), strict=True)
    same = sum(mine == yours for mine, yours in pairs) / 400
    apart = float((logits.softmax(-1) - other.softmax(-1)).abs().sum(-1).mean()) / 2
    assert same > (1 - apart) / (1 + apart) - 0.05


def test_equally_likely_tokens_stand_in_their_order():
    flat = torch.zeros(300)
    assert set(frequencies(flat, 3000, top_p=0.02).nonzero()[:, 0].tolist()) == set(range(6))


def test_nucleus_is_the_shortest_run_that_reaches_top_p():
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    for top_p, nucleus in ((0.5, {1}), (0.51, {1, 3}), (0.76, {1, 3, 2}), (1.0, {0, 1, 2, 3})):
        found = frequencies(logits, 500, top_p=top_p).nonzero()[:, 0].tolist()
        assert set(found) == nucleus


@settings(max_examples=60, deadline=None)
@given(scale=st.floats(0, 1e4), temperature=st.floats(0, 2), top_p=st.floats(0, 1),
       top_k=st.integers(0, 400), min_p=st.floats(0, 1), seed=st.integers(-2**63, 2**64))
def test_any_setting_gives_a_token_that_it_allows(scale, temperature, top_p, top_k, min_p, seed):
    logits = torch.linspace(-1, 1, 300) * scale
    how = {"top_p": top_p, "top_k": top_k, "min_p": min_p}
    [token] = step(logits[None], request(vocab=300, temperature=temperature, seed=seed, **how))
    assert 0 <= token < 300
    if temperature > 1e-3:
        least = sorted_out(logits, temperature, **how | {"top_p": min(1, top_p + 1e-4)})
        assert least[token] > 0 or logits[token] == logits.max() or scale < 1


@pytest.mark.gpu
def test_a_gpu_chooses_what_the_cpu_chooses():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    logits = torch.randn(64, VOCAB, generator=torch.Generator().manual_seed(6)) * 3
    for how in (*HOW, {"presence_penalty": 1.0, "repetition_penalty": 1.2, "logit_bias": {5: 3.0}}):
        found = [[step(row[None], made)[0] for row in rows]
                 for rows, made in ((logits, request(**how)), (logits.cuda(), request(**how)))]
        same = sum(mine == yours for mine, yours in zip(*found, strict=True))
        assert same >= 62, "rounding alone may move a draw between two tokens"


def test_broken_scores_give_some_token():
    for broken in (math.nan, math.inf):
        logits = torch.randn(2, VOCAB)
        logits[:, 7] = broken
        found = step(logits, request(top_p=0.5), request(temperature=0))
        assert all(0 <= token < VOCAB for token in found)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_company_changes_nothing(data):
    how = st.fixed_dictionaries({}, optional={
        "temperature": st.sampled_from([0, 0.7, 1.5]), "top_p": st.sampled_from([0.3, 0.9]),
        "top_k": st.sampled_from([2, 50]), "min_p": st.just(0.1), "presence_penalty": st.just(1.0),
        "repetition_penalty": st.just(1.3), "seed": st.integers(0, 99)})
    ways = data.draw(st.lists(how, min_size=2, max_size=5))
    logits = torch.randn(8, len(ways), VOCAB, generator=torch.Generator().manual_seed(5)) * 3
    alone = [[step(row[None], one)[0] for row in logits[:, at]]
             for at, way in enumerate(ways) for one in [request(**way)]]
    together = [request(**way) for way in ways]
    assert [list(row) for row in zip(*(step(rows, *together) for rows in logits),
                                     strict=True)] == alone


def test_seeds_tell_answers_apart_and_none_draws_one():
    logits = torch.zeros(VOCAB)
    assert answer(logits, seed=1) == answer(logits, seed=1) != answer(logits, seed=2)
    assert answer(logits, seed=None) != answer(logits, seed=None)


def test_greedy_is_the_largest_whatever_else_is_said():
    logits = torch.randn(VOCAB)
    assert set(answer(logits, temperature=0, top_p=0.1, top_k=2)) == {int(logits.argmax())}


def test_bias_is_added_and_minus_100_is_never():
    logits = torch.zeros(VOCAB)
    logits[5] = 1000
    assert answer(logits, temperature=0, logit_bias={5: -99.0})[0] == 5
    assert answer(logits, temperature=0, logit_bias={5: -100.0, 9: 2.0})[0] == 9
    everything = dict.fromkeys(range(VOCAB), -100.0)
    assert 0 <= answer(logits, logit_bias=everything)[0] < VOCAB


def test_presence_counts_once_and_frequency_each_time():
    logits = torch.zeros(VOCAB)
    logits[4], logits[6] = 2.0, 1.0
    assert answer(logits, temperature=0)[:4] == [4, 4, 4, 4]
    found = answer(logits, temperature=0, presence_penalty=1.5)[:4]
    assert found == [4, 6, 4, 4]                    # 0.5 and -0.5: once is all that it costs
    found = answer(logits, temperature=0, frequency_penalty=0.75)[:4]
    assert found == [4, 4, 6, 4]                    # 2, 1.25, 0.5 against 1, then 0.25


def test_penalties_of_the_answer_leave_the_prompt_alone():
    logits = torch.zeros(VOCAB)
    logits[3] = 0.5
    how = {"temperature": 0, "presence_penalty": 2.0}
    assert step(logits[None], request(prompt=(3, 3), **how)) == [3]


def test_repetition_divides_above_zero_and_multiplies_below():
    row = torch.full((VOCAB,), -9.0)
    row[3], row[8] = 2.0, 1.5
    how = {"temperature": 0, "repetition_penalty": 2.0}
    assert step(row[None], request(prompt=(3,), **how)) == [8]     # 1.0 < 1.5
    row = torch.full((VOCAB,), -9.0)
    row[3], row[8] = -1.0, -1.5
    assert step(row[None], request(prompt=(3,), **how)) == [8]     # -2.0 < -1.5


def test_no_end_before_min_tokens():
    logits = torch.zeros(VOCAB)
    logits[0], logits[9], logits[2] = 9.0, 8.0, 1.0
    found = answer(logits, temperature=0, min_tokens=3, stop_tokens=(9,))
    assert found[:4] == [2, 2, 2, 0]


def test_unknown_tokens_are_unfit():
    for how in ({"logit_bias": {VOCAB: 1.0}}, {"logit_bias": {-1: 1.0}}, {"stop_tokens": (300,)}):
        with pytest.raises(Unfit, match="no token"):
            request(**how)


def test_odds_are_the_models_own():
    logits = torch.randn(2, VOCAB)
    asked = request(temperature=0.3, logit_bias={7: 100.0}, logprobs=3)
    plain = request()
    [[taken], [other]] = take(logits, [piece(asked), piece(plain)])
    expected = logits[0].log_softmax(-1)
    assert other.odds is None and taken.token == 7 and taken.odds.token == 7
    assert taken.odds.logprob == pytest.approx(float(expected[7]), abs=1e-5)
    best = expected.topk(3)
    assert [token for token, _ in taken.odds.top] == best.indices.tolist()
    assert [odds for _, odds in taken.odds.top] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_odds_of_a_prompt_in_pieces():
    prompt = list(range(10, 17))
    made = request(prompt=prompt, prompt_logprobs=2, temperature=0)
    logits = torch.randn(7, VOCAB)
    assert take(logits[:3], [Piece(made, 0, 3, 3)]) == [[]]
    [[taken]] = take(logits[3:], [Piece(made, 3, 4, 4)])
    assert taken.token == int(logits[6].argmax())
    odds = made.prompt_odds
    assert odds[0] is None and [one.token for one in odds[1:]] == prompt[1:]
    expected = [float(logits[at].log_softmax(-1)[prompt[at + 1]]) for at in range(6)]
    assert [one.logprob for one in odds[1:]] == pytest.approx(expected, abs=1e-5)
    assert all(len(one.top) == 2 for one in odds[1:])


def test_odds_of_a_prompt_start_over_with_it_and_one_token_has_none():
    made = request(prompt=(4, 5, 6), prompt_logprobs=0)
    for _ in range(2):
        take(torch.randn(2, VOCAB), [Piece(made, 0, 2, 2)])
        assert made.prompt_odds[0] is None
        assert [one.token for one in made.prompt_odds[1:]] == [5, 6]
    short = request(prompt=(4,), prompt_logprobs=0)
    assert len(take(torch.randn(1, VOCAB), [Piece(short, 0, 1, 1)])[0]) == 1
    assert short.prompt_odds == [None]


def test_a_piece_that_wants_nothing_has_no_list():
    reading, writing = request(), request(temperature=0)
    logits = torch.randn(1, VOCAB)
    found = take(logits, [piece(writing), Piece(reading, 0, 2, 0)])
    assert [[one.token for one in taken] for taken in found] == [[int(logits.argmax())]]


def test_the_state_of_the_vocabulary_of_a_folder(folder):
    vocabulary = text.load(folder)
    made = request(min_tokens=1)
    begin(made, replace(vocabulary, end_tokens=vocabulary.end_tokens | {99_999}))
    assert made.sampler.ends == vocabulary.end_tokens
    assert 0 <= step(torch.zeros(1, VOCAB), made)[0] < VOCAB

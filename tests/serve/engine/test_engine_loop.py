"""The engine's loop on a runner without a model: what is asked, told, cancelled, counted."""

import queue
import random
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.serve.engine.interface import Busy, Closed, Unfit
from curbcut.serve.engine.local import LocalEngine
from curbcut.serve.engine.text import Vocabulary
from pretend import Pretend, answer, asked, check


class Letters:
    """A tokenizer of 97 tokens, a letter each."""

    decoder, encode_special_tokens = None, True

    def get_vocab_size(self):
        return 97

    def decode(self, ids, skip_special_tokens):
        return "".join(chr(33 + token) for token in ids if token != 96 or not skip_special_tokens)


def letters(tokens):
    return Letters().decode(tokens, False)


class Listener:
    def __init__(self, on_delta=None):
        self.deltas, self.ended, self.on_delta = [], threading.Event(), on_delta

    def __call__(self, delta):
        assert not self.ended.is_set(), "something after the end"
        self.deltas.append(delta)
        if delta.finish:
            self.ended.set()
        if self.on_delta:
            self.on_delta(delta)

    def last(self):
        assert self.ended.wait(60)
        return self.deltas[-1]

    @property
    def text(self):
        return "".join(delta.text for delta in self.deltas)

    @property
    def ids(self):
        return [token for delta in self.deltas for token in delta.ids]


def engine_on(runner=None, *, ends=(), **how):
    return LocalEngine(runner or Pretend(), Vocabulary(Letters(), frozenset(ends), {}, None), **how)


@pytest.fixture
def engine():
    engine = engine_on()
    yield engine
    engine.close()


def ask(engine, what):
    listener = Listener()
    engine.submit(what, listener)
    listener.last()
    return listener


def test_an_answer_comes_token_by_token_with_its_counts(engine):
    what = asked([5, 6, 7], 4)
    said = ask(engine, what)
    assert said.ids == answer(what, 4) and said.text == letters(said.ids)
    assert [delta.tokens for delta in said.deltas] == [1, 2, 3, 4]
    assert [delta.finish for delta in said.deltas] == [None] * 3 + ["length"]
    assert {delta.prompt_tokens for delta in said.deltas} == {3}
    again = ask(engine, asked([5, 6, 7, *said.ids, 1], 2))
    assert again.last().cached_tokens == 4          # one page of what was said, six tokens known
    stats = engine.stats()
    assert (stats.requests, stats.finished, stats.steps) == (2, 2, 6)
    assert (stats.prompt_tokens, stats.cached_tokens, stats.answer_tokens) == (11, 4, 6)
    assert (stats.decode_tokens, stats.decode_steps, stats.first_tokens) == (4, 4, 2)
    assert stats.used_pages == 0 and stats.remembered_pages > 0
    assert stats.next_token_seconds > 0 and stats.prefill_seconds > 0 < stats.decode_seconds


def test_what_ends_an_answer(engine):
    prompt = [3, 1]
    said = answer(asked(prompt), 12)
    at = next(i for i in range(3, 12) if said[i] not in said[:i])
    token, letter = said[at], letters([said[at]])
    short, whole = letters(said[:at]), letters(said[: at + 1])
    for how, text, by in (({"stop": (letter,)}, short, letter),
                          ({"stop": (letter,), "include_stop": True}, whole, letter),
                          ({"stop_tokens": (token,)}, short, token),
                          ({"stop_tokens": (token,), "include_stop": True}, whole, token)):
        found = ask(engine, asked(prompt, 12, **how))
        assert found.text == text and found.last().stopped_by == by
        assert found.last().finish == "stop" and found.last().tokens == at + 1
        assert found.ids == said[: at + 1]
    found = ask(engine, asked(prompt, 12, stop=(letter,), min_tokens=at + 1))
    assert found.text.startswith(whole)


def test_the_models_own_end_and_those_who_ignore_it():
    said = answer(asked([3, 1]), 12)
    at = next(i for i in range(3, 12) if said[i] not in said[:i])
    engine = engine_on(ends=[said[at]])
    try:
        found = ask(engine, asked([3, 1], 12))
        assert found.text == letters(said[:at]) and found.last().stopped_by is None
        assert (found.last().finish, found.last().tokens) == ("stop", at + 1)
        assert ask(engine, asked([3, 1], 12, ignore_end=True)).ids == said
        late = ask(engine, asked([3, 1], 12, min_tokens=at + 1)).ids
        assert late[:at] == said[:at] and late[at] != said[at] and len(late) > at + 1
    finally:
        engine.close()


def test_odds_of_answer_and_prompt_are_told_once(engine):
    ask(engine, asked([1, 2, 3, 4, 5, 6, 7, 8, 9], 1))
    found = ask(engine, asked([1, 2, 3, 4, 5, 6, 7, 8, 9], 3, logprobs=2, prompt_logprobs=1))
    odds = [one for delta in found.deltas for one in delta.odds]
    assert [one.token for one in odds] == found.ids and all(len(one.top) == 2 for one in odds)
    first, *others = found.deltas
    assert [one and one.token for one in first.prompt_odds] == [None, *range(2, 10)]
    assert all(delta.prompt_odds == () for delta in others) and first.cached_tokens == 0


class Guesser:
    """Drafts what a `Pretend` will say, wrong from some token on."""

    def __init__(self, right, wrong):
        self.right, self.wrong = right, wrong

    def __call__(self, requests, record):
        for one in requests:
            say = answer(one.asked, one.answered + self.right)[one.answered:]
            one.drafts = say + [96 - say[-1] if say else 96] * self.wrong


@pytest.mark.parametrize("how", [{}, {"stop": ("A", "B", "z")}, {"logprobs": 1}])
def test_drafts_change_nothing_but_the_number_of_steps(how):
    for right, wrong in ((3, 0), (2, 2), (0, 3)):
        plain, runner = Pretend(pages=30), Pretend(pages=30)
        engines = engine_on(plain), engine_on(runner, draft=Guesser(right, wrong))
        try:
            both = [ask(engine, asked([7, 7, 9], 20, **how)) for engine in engines]
            assert both[0].ids == both[1].ids and both[0].text == both[1].text
            assert [one for d in both[0].deltas for one in d.odds] == [
                one for d in both[1].deltas for one in d.odds]
            stats = engines[1].stats()
            assert (stats.accepted_tokens > 0) == (right > 0) and stats.drafted_tokens > 0
            if right:
                assert len(runner.steps) < len(plain.steps)
        finally:
            for engine in engines:
                engine.close()


def test_what_does_not_fit_or_is_not_there_is_refused(engine):
    for prompt, tokens in (([], 1), ([1] * 48, 1), ([1] * 40, 9), ([1], 0), ("text", 2)):
        with pytest.raises(ValueError, match="fit"):
            engine.submit(asked(prompt, tokens), Listener())
    with pytest.raises(Unfit, match="adapter"):
        engine.submit(asked([1], 1, adapter="none"), Listener())
    assert ask(engine, asked([1] * 40, 8)).last().finish == "length"   # all of the pages
    assert engine.stats().requests == 1


def test_a_request_that_breaks_a_step_ends_and_no_other_one(engine, caplog):
    run, go, begun = engine._runner.run, threading.Event(), threading.Event()

    def broken(pieces):
        if any(6 in piece.request.tokens[:1] for piece in pieces):
            raise RuntimeError("the device is gone")
        return run(pieces)

    engine._runner.run = broken
    assert ask(engine, asked([6, 2])).last().finish == "failed"
    assert "the device is gone" in caplog.text
    first = Listener(lambda delta: begun.set() or go.wait(60))
    engine.submit(asked([1], 5), first)
    assert begun.wait(60)
    waiting = [Listener() for _ in range(12)]
    for place, listener in enumerate(waiting):
        engine.submit(asked([place], 3), listener)
    go.set()
    ends = [listener.last().finish for listener in waiting]
    assert ends == ["length"] * 6 + ["failed"] + ["length"] * 5
    assert [listener.ids for place, listener in enumerate(waiting) if place != 6] == [
        answer(asked([place]), 3) for place in range(12) if place != 6]
    assert first.last().finish == "length" and engine.stats().failed == 2
    assert [one.levelname for one in caplog.records] == ["ERROR"] * 2
    assert engine.stats().used_pages == 0


def test_a_step_without_memory_is_taken_in_parts(engine):
    run, sizes = engine._runner.run, []

    def small(pieces):
        sizes.append(len(pieces))
        if len(pieces) > 2:
            raise torch.OutOfMemoryError("no")
        return run(pieces)

    engine._runner.run = small
    go, listeners = threading.Event(), [Listener() for _ in range(5)]
    blocker = Listener(lambda delta: go.wait(60))
    engine.submit(asked([1], 2), blocker)
    for place, listener in enumerate(listeners):
        engine.submit(asked([place, place], 4), listener)
    go.set()
    for place, listener in enumerate(listeners):
        listener.last()
        assert listener.ids == answer(asked([place, place]), 4)
    assert max(sizes) == 6


def test_a_listener_that_fails_harms_nobody_else(engine, caplog):
    def broken(delta):
        raise OSError("nobody listens")

    engine.submit(asked([1], 20), broken)
    assert ask(engine, asked([2], 5)).last().finish == "length"
    while engine.stats().cancelled == 0:
        pass
    assert "nobody listens" in caplog.text and engine.stats().used_pages == 0


def test_hooks_see_each_step_and_may_fail():
    records = []

    def on_step(record):
        records.append(record)
        raise ValueError("a broken watcher")

    engine = engine_on(on_step=on_step)
    ask(engine, asked(range(9), 3))
    engine.close()
    assert [sum(one.prefill.values()) for one in records] == [9, 0, 0]
    assert [sum(one.decode.values()) for one in records] == [0, 1, 1]
    assert records[1].used_pages == 3 and all(one.seconds > 0 for one in records)


def test_whoever_hears_of_an_answers_end_finds_its_last_step_told():
    records, heard_before = [], []

    def deliver(delta):
        if delta.finish:
            heard_before.append(len(records))
            done.set()

    done, engine = threading.Event(), engine_on(on_step=records.append)
    engine.submit(asked([1, 2], 4), deliver)
    assert done.wait(60)
    engine.close()
    assert heard_before == [len(records)] == [4]


def test_draining_finishes_what_was_taken_in():
    go = threading.Event()
    engine = engine_on(max_batch=1)
    listeners = [Listener(lambda delta: go.wait(60)), Listener()]
    for listener in listeners:
        engine.submit(asked([1], 6), listener)
    engine.drain()
    with pytest.raises(Closed):
        engine.submit(asked([1]), Listener())
    with pytest.raises(Closed):
        engine.embed([(1,)])
    go.set()
    assert [listener.last().finish for listener in listeners] == ["length"] * 2
    engine.close()


def test_embeddings_come_between_steps_and_end_with_the_engine():
    engine = engine_on(max_batch=1, max_waiting=1)
    assert engine.embed([(1, 2), (5,)]) == [[3.0, 0.0], [5.0, 0.0]]
    for bad in ((), (1,) * 65):
        with pytest.raises(ValueError, match="context"):
            engine.embed([bad])
    go, asking, found = threading.Event(), threading.Event(), queue.Queue()

    def hold(delta):
        asking.set()
        go.wait(60)

    engine.submit(asked([1], 5), Listener(hold))
    assert asking.wait(60)

    def embed():
        try:
            found.put(engine.embed([(4,)]))
        except (Closed, Busy) as error:
            found.put(error)

    first = threading.Thread(target=embed)
    first.start()
    while engine._pending < 2:
        pass
    with pytest.raises(Busy):
        engine.embed([(4,)])
    closing = threading.Thread(target=engine.close)
    closing.start()
    while engine._open:
        pass
    go.set()
    closing.join(60)
    first.join(60)
    outcome = found.get(timeout=60)
    assert outcome == [[4.0, 0.0]] or isinstance(outcome, Closed)
    assert engine.stats().cancelled == 1


def test_a_cancellation_does_not_wait_behind_embeddings():
    order, engine = [], engine_on(max_batch=1, max_waiting=9)
    embed, go, begun = engine._runner.embed, threading.Event(), threading.Event()

    def slow(prompt):
        order.append("embedded")
        return embed(prompt)

    def hold(delta):
        begun.set()
        go.wait(60)
        if delta.finish:
            order.append(delta.finish)

    engine._runner.embed = slow
    listener = Listener(hold)
    ticket = engine.submit(asked([1], 30), listener)
    assert begun.wait(60)
    asking = threading.Thread(target=lambda: engine.embed([(1,)] * 8))
    asking.start()
    while not engine._inbox.qsize():
        pass
    engine.cancel(ticket)
    go.set()
    asking.join(60)
    engine.close()
    assert order.index("cancelled") <= 1 and order.count("embedded") == 8


def test_an_engine_whose_thread_dies_says_so(monkeypatch):
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    engine = engine_on()
    ask(engine, asked([1], 2))
    monkeypatch.setattr(engine._scheduler, "add", None)
    listener = Listener()
    engine.submit(asked([1], 2), listener)
    assert listener.last().finish == "cancelled"
    engine._thread.join(60)
    with pytest.raises(Closed):
        engine.submit(asked([1], 2), Listener())
    engine.close()


class Stepwise(Pretend):
    """Takes a step only when it is told to, so that chance alone says what meets what."""

    def __init__(self, **how):
        super().__init__(**how)
        self.held, self.turns = threading.Event(), threading.Semaphore(0)

    def run(self, pieces):
        self.held.set()
        self.turns.acquire()
        return super().run(pieces)

    def step(self, engine):
        """One step, if anything is there to be done, and on to the next one or to the end."""
        if self.held.is_set():
            self.held.clear()
            self.turns.release()
        while not self.held.is_set() and engine._pending:
            self.held.wait(0.001)


def test_a_thousand_cancellations_leave_every_page_free():
    """At any moment: waiting, reading a prompt, answering, preempted, long ended."""
    chance = random.Random(1)
    runner = Stepwise(pages=16, context_tokens=40, checks=False)
    engine = engine_on(runner, max_batch=4, max_waiting=40, step_tokens=8,
                       draft=Guesser(1, 1))
    listeners, tickets = [], []
    while len(tickets) < 1000:
        listener = Listener()
        try:
            prompt = [chance.randrange(3) for _ in range(chance.randint(1, 20))]
            tickets.append(engine.submit(asked(prompt, chance.randint(1, 20)), listener))
            listeners.append(listener)
        except Busy:
            engine.cancel(chance.choice(tickets[-40:]))
        if chance.random() < 0.5:
            engine.cancel(chance.choice(tickets[-8:]))
        for _ in range(chance.randint(0, 4)):
            runner.step(engine)
    while engine._pending:
        runner.step(engine)
    ends = [listener.last().finish for listener in listeners]
    engine.close()
    stats = engine.stats()
    assert stats.used_pages == stats.running == stats.waiting == 0
    assert ends.count("cancelled") == stats.cancelled > 100
    assert ends.count("length") == stats.finished > 100
    assert stats.preempted > 0 and stats.failed == 0
    check(engine._pages)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_company_any_pages_any_drafts_same_answers(data):
    """The runner itself asserts that each page read holds what belongs there."""
    runner = Pretend(pages=data.draw(st.integers(6, 20)), page_tokens=data.draw(st.integers(1, 5)))
    engine = engine_on(runner, max_batch=data.draw(st.integers(1, 5)),
                       step_tokens=data.draw(st.integers(1, 12)),
                       draft=Guesser(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 2))))
    room = engine.context_tokens
    try:
        whats, listeners = [], []
        for _ in range(data.draw(st.integers(1, 8))):
            prompt = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=min(10, room - 1)))
            whats.append(asked(prompt, min(data.draw(st.integers(1, 12)), room - len(prompt)),
                               salt=data.draw(st.sampled_from("ab")),
                               priority=data.draw(st.integers(0, 2))))
            listeners.append(Listener())
            engine.submit(whats[-1], listeners[-1])
        for what, listener in zip(whats, listeners, strict=True):
            assert listener.last().finish == "length"
            assert listener.ids == answer(what, what.sampling.max_tokens)
    finally:
        engine.close()
    assert engine.stats().used_pages == 0 and engine.stats().failed == 0

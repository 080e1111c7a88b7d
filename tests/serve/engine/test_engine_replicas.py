"""Several engines as one: where requests go, and what happens when one fails."""

from __future__ import annotations

import queue

import pytest

from curbcut.serve.engine import replicas
from curbcut.serve.engine.interface import Asked, Busy, Closed, Delta, Sampling, Stats, Unfit
from curbcut.serve.engine.replicas import Replicas


class Scripted:
    """An engine whose answers end when the test says so."""

    context_tokens, vocab, vocabulary, adapters = 64, 10, None, {"a": "/a"}

    def __init__(self, **changes):
        self.taken, self.cancelled, self.raises, self.closed = {}, [], None, 0
        self.__dict__.update(changes)

    def submit(self, asked, deliver):
        if self.raises is not None:
            raise self.raises
        self.taken[len(self.taken) + 1] = (asked, deliver)
        return len(self.taken)

    def cancel(self, ticket):
        self.cancelled.append(ticket)
        self.end(ticket, "cancelled")

    def end(self, ticket=None, finish="length", text="", **extra):
        ticket = ticket or len(self.taken)
        if text:
            self.taken[ticket][1](Delta(text, 1))
        self.taken[ticket][1](Delta("", 1, finish, extra=extra))

    def embed(self, prompts):
        if self.raises is not None:
            raise self.raises
        return [[1.0] for _ in prompts]

    def stats(self):
        return Stats(requests=len(self.taken), weights_bytes=5)

    def drain(self):
        self.closed += 1

    def close(self):
        self.closed += 10


@pytest.fixture
def three():
    engines = {name: Scripted() for name in ("one", "two", "three")}
    return engines, Replicas(engines)


def ask(engine, *prompt, **more):
    heard = queue.Queue()
    ticket = engine.submit(Asked(prompt=prompt, sampling=Sampling(max_tokens=3), **more), heard.put)
    return ticket, heard


def counts(engines):
    return [len(one.taken) for one in engines.values()]


def test_requests_go_where_there_is_least_to_do(three):
    engines, engine = three
    for prompt in range(6):
        ask(engine, prompt)
    assert counts(engines) == [2, 2, 2]
    engines["two"].end(1)
    engines["two"].end(2)
    ask(engine, 7)
    ask(engine, 8)
    assert counts(engines) == [2, 4, 2]


def test_a_known_beginning_goes_where_it_went_until_that_one_is_much_busier(three):
    engines, engine = three
    begin = tuple(range(replicas.BEGINNING))
    for end in range(replicas.MUCH_BUSIER):
        ask(engine, *begin, end)
    assert counts(engines) == [replicas.MUCH_BUSIER, 0, 0]
    ask(engine, *begin, 99)
    assert counts(engines) == [replicas.MUCH_BUSIER, 1, 0]


def test_equal_beginnings_under_another_salt_or_adapter_are_others(three):
    engines, engine = three
    ask(engine, 1)
    ask(engine, 1, salt="s")
    ask(engine, 1, adapter="a")
    assert counts(engines) == [1, 1, 1]


def test_only_so_many_beginnings_are_remembered(three, monkeypatch):
    monkeypatch.setattr(replicas, "REMEMBERED", 2)
    for prompt in range(5):
        ask(three[1], prompt)
    assert len(three[1]._known) == 2


def test_an_answer_that_fails_before_it_begins_is_asked_for_elsewhere(three, caplog):
    engines, engine = three
    _, heard = ask(engine, 1)
    engines["one"].end(finish="failed", reason="on fire")
    assert counts(engines) == [1, 1, 0] and heard.empty()
    assert "one failed" in caplog.text and "on fire" in caplog.text
    assert engine.health() == {"one": False, "two": True, "three": True}
    engines["two"].end(text="a")
    assert [heard.get_nowait().finish for _ in range(2)] == [None, "length"]
    for prompt in range(4):         # and it is passed over for a while
        ask(engine, prompt)
    assert counts(engines) == [1, 3, 2]


def test_an_answer_that_has_begun_fails_where_it_is(three):
    engines, engine = three
    _, heard = ask(engine, 1)
    engines["one"].end(finish="failed", text="a")
    assert [heard.get_nowait().finish for _ in range(2)] == [None, "failed"]
    assert counts(engines) == [1, 0, 0]


def test_each_replica_is_tried_once(three):
    engines, engine = three
    _, heard = ask(engine, 1)
    for one in engines.values():
        one.end(finish="failed")
    assert heard.get_nowait().finish == "failed" and counts(engines) == [1, 1, 1]
    ask(engine, 2)                  # all rest: still better than none
    assert sum(counts(engines)) == 4


def test_a_request_that_is_refused_as_it_is_blames_nobody(three):
    engines, engine = three
    _, heard = ask(engine, 1)
    engines["one"].end(finish="failed", reason="bad", status=400)
    assert heard.get_nowait().finish == "failed" and counts(engines) == [1, 0, 0]
    assert all(engine.health().values())


def test_busy_and_closed_replicas_are_passed_by(three):
    engines, engine = three
    engines["one"].raises, engines["two"].raises = Busy("full"), Closed("gone")
    ask(engine, 1)
    assert counts(engines) == [0, 0, 1]
    assert engine.health() == {"one": True, "two": False, "three": True}
    engines["three"].raises = Busy("full")
    with pytest.raises(Busy):
        ask(engine, 1)
    assert engine.stats().refused == 1
    engines["one"].raises = engines["three"].raises = Closed("gone")
    with pytest.raises(Closed):
        ask(engine, 1)


def test_an_unfit_request_is_unfit_everywhere(three):
    engines, engine = three
    engines["one"].raises = Unfit("no")
    with pytest.raises(Unfit):
        ask(engine, 1)
    assert counts(engines) == [0, 0, 0]
    engines["one"].raises = None
    ask(engine, 1)
    assert counts(engines) == [1, 0, 0]


def test_cancellation_reaches_the_right_one(three):
    engines, engine = three
    tickets = [ask(engine, prompt) for prompt in range(3)]
    engine.cancel(tickets[1][0])
    engine.cancel(tickets[1][0])
    engine.cancel(99)
    assert [one.cancelled for one in engines.values()] == [[], [1], []]
    assert tickets[1][1].get_nowait().finish == "cancelled"


def test_a_cancelled_request_is_not_asked_for_again(three):
    engines, engine = three
    ticket, heard = ask(engine, 1)
    engines["one"].cancel = lambda there: engines["one"].end(there, "failed")
    engine.cancel(ticket)
    assert heard.get_nowait().finish == "failed" and counts(engines) == [1, 0, 0]


def test_embeddings_come_from_whoever_can(three):
    engines, engine = three
    engines["one"].raises = Closed("gone")
    assert engine.embed([(1,)]) == [[1.0]]
    for one in engines.values():
        one.raises = Closed("gone")
    with pytest.raises(Closed):
        engine.embed([(1,)])


def test_sizes_are_those_that_all_have():
    engine = Replicas({"a": Scripted(context_tokens=32), "b": Scripted(adapters={})})
    assert (engine.context_tokens, engine.vocab, engine.adapters) == (32, 10, {})
    with pytest.raises(ValueError, match="no replicas"):
        Replicas({})


def test_counts_are_added_and_closing_closes_all(three):
    engines, engine = three
    ask(engine, 1)
    assert (engine.stats().requests, engine.stats().weights_bytes) == (1, 15)
    engine.drain()
    with pytest.raises(Closed):
        ask(engine, 1)
    engine.close()
    assert [one.closed for one in engines.values()] == [11, 11, 11]

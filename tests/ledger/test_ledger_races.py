"""Many at once against the last of a budget, and servers that are killed at every instant."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter

import pytest
import sqlalchemy as sa

from curbcut.ledger import access, budgets, holds, open_ledger, schema
from curbcut.ledger.holds import Exhausted
from ledger.accounts import caller, set_budget, standing, taken, uses, wanted
from ledger.forked import forked, told

DOLLAR, NICKEL = 10**9, 5 * 10**7
SLICE = 4
"""Tokens that a stream is covered ahead."""
LAST = 44
"""The instant after which both requests have been answered."""


def together(work, count):
    """Runs `work(number)` in so many threads; returns what they raised."""
    faults = []

    def guarded(number):
        try:
            work(number)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults


def test_64_threads_against_the_last_dollar_overshoot_by_nothing(ledger):
    ann, server = caller(ledger), holds.open_server(ledger)
    for scope in ann.scopes:
        set_budget(ledger, scope, DOLLAR)
    held, refused, gate = [], [], threading.Barrier(64)

    def ask(_):
        gate.wait()
        try:
            held.append(holds.hold(ledger, server, wanted(ann, nanousd=NICKEL)))
        except Exhausted as error:
            refused.append(error.budget.left)

    assert together(ask, 64) == []
    assert (len(held), len(refused), set(refused)) == (20, 44, {0})
    assert [standing(ledger, scope) for scope in ann.scopes] == [(0, DOLLAR, 0)] * 3
    assert together(lambda n: holds.settle(ledger, held[n], taken(1, NICKEL)), 20) == []
    assert [standing(ledger, scope) for scope in ann.scopes] == [(DOLLAR, 0, 0)] * 3
    assert uses(ledger) == (DOLLAR, 20)


def spend(url, number, secret):
    """Requests of one process until money is out: eight threads, one ledger."""
    with open_ledger(url) as ledger:
        ann, server = access.verify(ledger, secret), holds.open_server(ledger)

        def ask(thread):
            chance = random.Random(8 * number + thread)
            while True:
                try:
                    id_ = holds.hold(ledger, server, wanted(ann, nanousd=NICKEL))
                except Exhausted:
                    return
                if chance.random() < 0.1:
                    holds.release_all(ledger, [id_])
                else:
                    holds.settle(ledger, id_, taken(1, chance.randint(NICKEL // 2, NICKEL)))

        assert together(ask, 8) == []


def test_processes_and_threads_spend_a_dollar_to_its_end_and_no_further(url):
    with open_ledger(url) as ledger:
        secret = access.issue_key(ledger, "ann", actor="test")
        set_budget(ledger, "organisation:default", DOLLAR)
    assert forked(lambda number: spend(url, number, secret), 4) == [0] * 4
    with open_ledger(url) as ledger:
        spent, still, left = standing(ledger, "organisation:default")
        assert (uses(ledger)[0], still) == (spent, 0)
        assert 0 <= left < NICKEL
        assert holds.live(ledger) == 0


class Killer:
    """Kills this process before its n-th statement or commit."""

    def __init__(self, ledger, instant):
        self.left = instant
        for event in ("before_cursor_execute", "commit"):
            sa.event.listen(ledger._engine, event, self)

    def __call__(self, *_):
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def answer(ledger, secret, tell, instant=None):
    """A server that answers one streamed request and one that is not, and dies on the way.

    What a client has received is told through a pipe, token by token.
    """
    ann, server = access.verify(ledger, secret), holds.open_server(ledger)
    if instant is not None:
        Killer(ledger, instant)
    stream = holds.hold(ledger, server, wanted(ann, tokens=10, nanousd=100))
    os.write(tell, f"held {stream}\n".encode())
    for token in range(7):
        if token % SLICE == 0:
            ahead = min(token + SLICE, 10)
            assert holds.cover_all(ledger, {stream: taken(ahead, 10 * ahead)}) == [None]
        os.write(tell, f"token {stream}\n".encode())
    holds.settle(ledger, stream, taken(7, 70, finish="stop"))
    os.write(tell, f"ended {stream}\n".encode())
    whole = holds.hold(ledger, server, wanted(ann, tokens=10, nanousd=100))
    os.write(tell, f"held {whole}\n".encode())
    holds.settle(ledger, whole, taken(5, 50, finish="stop"))
    os.write(tell, f"answer {whole}\n".encode())


def killed(ledger, secret, instant):
    """What the client of a server saw that was killed at an instant: lines of words and holds."""
    def work(tell):
        answer(ledger, secret, tell, instant)
        os.kill(os.getpid(), signal.SIGKILL)

    child, lines = told(work)
    with lines:
        seen = [line.split() for line in lines]
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    return seen


def check(ledger, seen):
    """That each request is charged once: what it took, or what was delivered and at most a slice.

    Returns uses of which no client knows.
    """
    words = Counter(map(tuple, seen))
    with ledger.reading() as connection:
        used = {use.hold: use for use in connection.execute(sa.select(schema.uses))}
    for hold in {id_ for _, id_ in seen}:
        use, tokens = used.pop(hold, None), words["token", hold]
        charged = use.charged_nanousd if use else 0
        assert use is None or charged == 10 * use.output_tokens
        if words["answer", hold] or words["ended", hold]:
            assert charged == (50 if words["answer", hold] else 70) and use.finish == "stop"
        elif tokens:
            assert 10 * tokens <= charged <= 10 * (tokens + SLICE)
        else:  # killed before a word of it was said: free, or a slice, or just settled
            assert charged in (0, 10 * SLICE, 50)
    return used


@pytest.mark.parametrize("often", [pytest.param(1, marks=pytest.mark.soak), 4])
def test_killed_at_every_instant_nothing_is_free_and_nothing_is_charged_twice(url, often):
    ledger = open_ledger(url)
    secret = access.issue_key(ledger, "ann", actor="test")
    set_budget(ledger, "organisation:default", DOLLAR)
    set_budget(ledger, "project:default", DOLLAR, "tokens")
    # Answered whole once: the children inherit each statement, compiled, but no open connection.
    with os.fdopen(os.memfd_create("told"), "r+") as lines:
        answer(ledger, secret, lines.fileno())
        ledger.close()
        lines.seek(0)
        seen = [line.split() for line in lines]
    ends = Counter()
    for instant in range(0, LAST + 3, often):
        found = killed(ledger, secret, instant)
        ends[found[-1][0] if found else "nothing"] += 1
        seen += found
    assert holds.reap(ledger, lease_seconds=-1) > 0
    orphans = check(ledger, seen)
    assert all(use.finish == "abandoned" for use in orphans.values()) and not orphans
    spent, held, _ = standing(ledger, "organisation:default")
    assert (spent, held) == (uses(ledger)[0], 0)
    tokens = standing(ledger, "project:default", "tokens")
    assert tokens[:2] == (uses(ledger, "output_tokens")[0], 0)
    assert holds.live(ledger) == 0 and ends["answer"] > 0 and ends["held"] > 0
    assert set(ends) >= {"nothing", "token", "ended"}, "LAST is not the last instant"
    ledger.close()


def test_budgets_are_set_while_others_hold(ledger):
    ann, server = caller(ledger), holds.open_server(ledger)
    top, stop = 40, time.monotonic() + 60

    def spend_all(_):
        for _ in range(10):
            try:
                id_ = holds.hold(ledger, server, wanted(ann, nanousd=3))
                holds.settle(ledger, id_, taken(1, 3))
            except Exhausted:
                pass
            assert time.monotonic() < stop

    def change(number):
        if number:
            spend_all(number)
            return
        for amount in (30, None, top, 35, top):
            budgets.set_budget(ledger, "project:default", "nanousd", amount, actor="test")

    assert together(change, 5) == []
    spent, held, _ = standing(ledger, "project:default")
    assert (spent, held) == (uses(ledger)[0], 0)

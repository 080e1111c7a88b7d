import asyncio
import heapq
from collections import Counter

import pytest

from callers import caller
from curbcut.ledger.access import Allowance
from curbcut.serve.engine.interface import Stats
from curbcut.serve.gateway.admission import BURST_SECONDS, HALF_LIFE, Admission
from curbcut.serve.gateway.refusal import Refused


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def one(key, project="default", organisation="default", weights=()):
    scopes = {"key": f"key:id-{key}", "project": f"project:{project}",
              "organisation": f"organisation:{organisation}"}
    return caller(key, project=project, organisation=organisation, allowances={
        scopes[kind]: Allowance(weight=weight) for kind, weight in dict(weights).items()})


async def entered(admission, who, model, **given):
    turn = admission.come(who, model, **given)
    await admission.wait(turn)
    return turn


async def shares(askers, seconds, slots=4, depth=8):
    """Tokens that each of `askers` (caller, tokens a request) gets while all of them always wait;
    a slot gives 100 tokens a second.
    """
    clock = Clock()
    admission, got = Admission(lambda _model: slots, 1000, clock, 1000), Counter()
    running, number = [], 0
    waiting = {}

    def ask(who, tokens):
        task = asyncio.ensure_future(entered(admission,
            who, "m", answers=1, prompt_tokens=tokens // 2, answer_tokens=tokens - tokens // 2))
        waiting[task] = (who, tokens)

    for who, tokens in askers:
        for _ in range(depth):
            ask(who, tokens)
    while clock.now < seconds:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in [task for task in waiting if task.done()]:
            who, tokens = waiting.pop(task)
            number += 1
            heapq.heappush(running, (clock.now + tokens / 100, number, who, tokens, task.result()))
            ask(who, tokens)
        clock.now, _, who, tokens, turn = heapq.heappop(running)
        admission.leave(turn, tokens, tokens / 100)
        got[who.key] += tokens
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return got


@pytest.mark.parametrize("sizes", [(200, 200), (100, 900)])
@pytest.mark.parametrize("kind", ["key", "project", "organisation"])
def test_weights_1_to_3_give_1_to_3_whatever_the_sizes(kind, sizes):
    where = {"project": ({"project": "a"}, {"project": "b"}),
             "organisation": ({"organisation": "a"}, {"organisation": "b"}),
             "key": ({}, {})}[kind]
    askers = [(one("ann", **where[0], weights={kind: 1}), sizes[0]),
              (one("bob", **where[1], weights={kind: 3}), sizes[1])]
    got = asyncio.run(shares(askers, 600))
    assert got["bob"] / got["ann"] == pytest.approx(3, rel=0.1)


def test_more_keys_of_a_project_give_it_no_more():
    askers = [(one(f"many{i}", project="a"), 100) for i in range(6)]
    askers.append((one("alone", project="b"), 100))
    got = asyncio.run(shares(askers, 300))
    many = [got[f"many{i}"] for i in range(6)]
    assert sum(many) == pytest.approx(got["alone"], rel=0.1)
    assert max(many) <= 1.2 * min(many)


def test_what_was_used_is_forgotten_by_and_by():
    async def goes_first(idle):
        clock = Clock()
        admission = Admission(lambda _model: 1, 10, clock)
        turn = await entered(admission, one("ann"), "m", answers=1, prompt_tokens=64,
                                     answer_tokens=0)
        admission.leave(turn, 64)
        clock.now += idle
        turn = await entered(admission, one("bob"), "m", answers=1, prompt_tokens=2,
                             answer_tokens=0)
        tasks = [asyncio.ensure_future(entered(admission, one(who), "m", answers=1, prompt_tokens=1,
                                                       answer_tokens=0)) for who in ("ann", "bob")]
        await asyncio.sleep(0)
        admission.leave(turn, 2)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        first = tasks[0].done()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return "ann" if first else "bob"

    assert asyncio.run(goes_first(4.5 * HALF_LIFE)) == "bob"
    assert asyncio.run(goes_first(5.5 * HALF_LIFE)) == "ann"


async def waiting(admission, who, **given):
    task = asyncio.ensure_future(entered(admission,
        who, "m", **{"answers": 1, "prompt_tokens": 1, "answer_tokens": 1} | given))
    await asyncio.sleep(0)
    return task


def test_a_full_queue_says_so_at_once_and_when_to_come_again():
    async def told():
        admission = Admission(lambda _model: 2, 3, Clock())
        tasks = [await waiting(admission, one("ann")) for _ in range(5)]
        assert [task.done() for task in tasks] == [True, True, False, False, False]
        with pytest.raises(Refused) as caught:
            await entered(admission, one("bob"), "m", answers=1, prompt_tokens=1, answer_tokens=1)
        assert caught.value.code == "queue_full" and caught.value.retry_after_seconds >= 1
        tasks[3].cancel()
        await asyncio.gather(tasks[3], return_exceptions=True)
        tasks.append(await waiting(admission, one("bob")))
        for task in (tasks[0], tasks[0], tasks[1]):  # whoever has left has left
            admission.leave(task.result(), 2, 50.0)
        await asyncio.sleep(0)
        seen = admission.seen("m", Stats(waiting=5, refused=7))
        assert tasks[2].done() and (seen.waiting, seen.refused) == (5 + 1, 7 + 1)
        with pytest.raises(Refused) as caught:
            for _ in range(3):
                await waiting(admission, one("bob"))
            admission.check_room(one("bob"), ["m"])
        assert caught.value.retry_after_seconds > 1  # requests have become long

    asyncio.run(told())


def test_adapters_stand_in_the_line_of_their_model():
    async def told():
        admission = Admission({"m": 1}.__getitem__, 10, Clock())
        first = await waiting(admission, one("ann"))
        second = asyncio.ensure_future(entered(admission,
            one("ann"), "m:adapter", answers=1, prompt_tokens=1, answer_tokens=1))
        await asyncio.sleep(0)
        assert not second.done()
        admission.leave(first.result(), 2)
        assert (await second).model == "m:adapter"

    asyncio.run(told())


def test_a_large_request_is_waited_for_and_takes_no_more_than_there_is():
    async def told():
        admission = Admission(lambda _model: 4, 10, Clock())
        small = await waiting(admission, one("ann"))
        large = await waiting(admission, one("ann"), answers=100)
        after = await waiting(admission, one("ann"))
        assert small.done() and not large.done() and not after.done()
        admission.leave(small.result(), 2)
        await asyncio.sleep(0)
        assert large.done() and not after.done()
        admission.leave(large.result(), 2)
        await asyncio.sleep(0)
        assert after.done()
        blocker = await waiting(admission, one("ann"), answers=4)
        behind = await waiting(admission, one("ann"))
        blocker.cancel()
        await asyncio.gather(blocker, return_exceptions=True)
        await asyncio.sleep(0)
        assert behind.done()

    asyncio.run(told())


def test_priority_counts_among_the_requests_of_one_key_only():
    async def told():
        admission = Admission(lambda _model: 1, 10, Clock())
        first = await waiting(admission, one("ann"))
        low = await waiting(admission, one("ann"), priority=5)
        high = await waiting(admission, one("ann"), priority=-5)
        other = await waiting(admission, one("bob"), priority=100)
        order = []
        for name, task in (("low", low), ("high", high), ("other", other)):
            task.add_done_callback(lambda _task, name=name: order.append(name))
        for task in (first, other, high):
            admission.leave(await task, 2)
        await low
        await asyncio.sleep(0)
        assert order == ["other", "high", "low"]

    asyncio.run(told())


def test_whoever_is_cancelled_as_the_turn_comes_passes_it_on():
    async def told():
        admission = Admission(lambda _model: 1, 10, Clock())
        first = await waiting(admission, one("ann"))
        second = await waiting(admission, one("ann"))
        third = await waiting(admission, one("ann"))
        admission.leave(first.result(), 2)  # the second's turn, which it has not seen yet
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        admission_done = await asyncio.wait_for(third, 5)
        assert admission_done.caller.key == "ann"

    asyncio.run(told())


def come(admission, who):
    return admission.come(who, "m", answers=1, prompt_tokens=1, answer_tokens=1)


def places(admission, who):
    """How many more find a place."""
    for found in range(1000):
        try:
            come(admission, who)
        except Refused:
            return found
    raise AssertionError("no end")


def test_a_burst_may_fill_the_queue_but_what_keeps_coming_may_not():
    async def told():
        clock = Clock()
        admission = Admission(lambda _model: 8, 40, clock, 0.5)
        turns = [come(admission, one("ann")) for _ in range(8 + 40)]
        assert places(admission, one("ann")) == 0
        tasks = [asyncio.ensure_future(admission.wait(turn)) for turn in turns]
        await asyncio.sleep(0)
        clock.now += 2 * BURST_SECONDS
        for place in range(36):  # four wait still, which is half as many as are answered
            assert places(admission, one("ann")) == 0
            admission.leave(turns[place], 2)
        admission.leave(turns[36], 2)
        assert places(admission, one("ann")) == 1
        await asyncio.gather(*tasks[:40])
        for turn in turns[37:]:
            admission.leave(turn, 2)
        for task in tasks:
            task.cancel()

    asyncio.run(told())


def test_once_nobody_waits_the_next_burst_may_come():
    async def told():
        clock = Clock()
        admission = Admission(lambda _model: 8, 40, clock, 0.5)
        for _ in range(2):
            turns = [come(admission, one("ann")) for _ in range(8 + 40)]
            clock.now += 2 * BURST_SECONDS
            assert places(admission, one("ann")) == 0
            for turn in turns:
                admission.leave(turn, 0)

    asyncio.run(told())


def test_nobodys_crowd_keeps_others_out_of_the_queue():
    async def told():
        clock = Clock()
        admission = Admission(lambda _model: 16, 40, clock, 0.5)  # eight may always wait
        ann, bob = (one(key, project=key, weights={"project": weight})
                    for key, weight in (("ann", 1), ("bob", 3)))
        turns = [come(admission, ann) for _ in range(16 + 30)]
        tasks = [asyncio.ensure_future(admission.wait(turn)) for turn in turns]
        await asyncio.sleep(0)
        clock.now += 2 * BURST_SECONDS
        assert places(admission, ann) == 0
        assert places(admission, bob) == 6  # three quarters of eight
        assert places(admission, one("eve", project="eve")) == 1
        for task in tasks:
            task.cancel()

    asyncio.run(told())


def test_where_any_model_has_room_it_has_to_be_known_which_one_is_asked():
    async def told():
        admission = Admission(lambda _model: 1, 0, Clock())
        admission.check_room(one("ann"), [])
        come(admission, one("ann"))
        admission.check_room(one("ann"), ["m", "other"])
        with pytest.raises(Refused):
            admission.check_room(one("ann"), ["m"])

    asyncio.run(told())

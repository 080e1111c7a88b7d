import asyncio
import threading
import time

import pytest
import sqlalchemy as sa

from curbcut.ledger import access, budgets, holds, schema
from curbcut.ledger.prices import Price, set_price
from curbcut.serve.gateway.bill import SLICE_TOKENS
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.gateway.till import Till

PRICE = Price(model="m", prompt_nanousd=10**6, cached_nanousd=10**5, output_nanousd=2 * 10**6)
"""A prompt token 1 nanodollar, an answer token 2."""


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come to be"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def priced(ledger):
    set_price(ledger, PRICE, actor="test")


@pytest.fixture
def till(ledger, priced):
    till = Till(ledger)
    yield till
    till.close()


@pytest.fixture
def ann(ledger):
    return access.verify(ledger, access.issue_key(ledger, "ann", actor="test"))


def balance(ledger, scope):
    [found] = budgets.budgets(ledger, [scope])
    return found.spent, found.held


def uses(ledger):
    with ledger.reading() as connection:
        return connection.execute(sa.select(schema.uses)).all()


def slowed(monkeypatch, name):
    """The calls of a function of `holds`, which go on when the event beside them is set."""
    real, calls, go = getattr(holds, name), [], threading.Event()

    def slow(ledger, *given, **more):
        calls.append(given)
        assert go.wait(60)
        return real(ledger, *given, **more)

    monkeypatch.setattr(holds, name, slow)
    return calls, go


def test_all_that_wait_share_a_transaction(ledger, till, ann, monkeypatch):
    budgets.set_budget(ledger, ann.scopes[2], "nanousd", 50 * 30, actor="test")
    calls, go = slowed(monkeypatch, "hold_all")

    async def together():
        asked = [asyncio.ensure_future(till.hold(ann, "m", 10, 10)) for _ in range(60)]
        await asyncio.to_thread(until, lambda: calls)
        go.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        bills = [one for one in found if not isinstance(one, Refused)]
        refused = [one for one in found if isinstance(one, Refused)]
        assert len(bills) == 50 and {one.code for one in refused} == {"insufficient_quota"}
        assert balance(ledger, ann.scopes[2]) == (0, 1500)
        done = [bill.settle(bill.taken(10, 1, 5), delivered=True) for bill in bills]
        await asyncio.gather(*map(asyncio.wrap_future, done))

    asyncio.run(together())
    assert len(calls) <= 3
    assert balance(ledger, ann.scopes[2]) == (50 * 8, 0)  # 5 + half a nanodollar + 2, rounded up
    assert [use.charged_nanousd for use in uses(ledger)] == [8] * 50


def test_a_cover_is_a_slice_ahead_and_never_beyond_the_hold(ledger, till, ann, monkeypatch):
    seen = []
    real = holds.cover_all
    monkeypatch.setattr(holds, "cover_all", lambda ledger, told: seen.extend(told) or real(
        ledger, told))

    async def streamed():
        bill = await till.hold(ann, "m", 10, 200)
        for tokens in range(1, 201):
            await bill.cover(10, tokens)
        return bill

    bill = asyncio.run(streamed())
    ahead = [taken.output_tokens for _, taken in seen]
    assert ahead == [SLICE_TOKENS, 2 * SLICE_TOKENS, 3 * SLICE_TOKENS, 200]
    assert all(taken.prompt_tokens == 10 for _, taken in seen)
    bill.release().result(60)
    assert uses(ledger) == []


def test_the_holds_of_a_dead_server_are_charged_as_covered_once(ledger, till, ann):
    budgets.set_budget(ledger, ann.scopes[1], "tokens", 10_000, actor="test")

    async def half_done():
        dead = Till(ledger, lease_seconds=3600)
        streamed = await dead.hold(ann, "m", 10, 500)
        await streamed.cover(10, 1)
        await dead.hold(ann, "m", 10, 500)  # nothing was delivered of this one
        return dead

    dead = asyncio.run(half_done())
    assert balance(ledger, ann.scopes[1]) == (0, 1020)
    assert holds.reap(ledger) == 0  # it lives
    with ledger.writing() as connection:
        connection.execute(sa.update(schema.servers).where(
            schema.servers.c.id == dead.server).values(beat=0.0))
    another = Till(ledger)  # reaps as it opens
    assert balance(ledger, ann.scopes[1]) == (10 + SLICE_TOKENS, 0)
    assert [use.finish for use in uses(ledger)] == ["abandoned"]
    another.close()
    dead.close()
    assert balance(ledger, ann.scopes[1]) == (10 + SLICE_TOKENS, 0)


def test_whoever_is_gone_before_the_hold_is_made_leaves_none(ledger, till, ann, monkeypatch):
    calls, go = slowed(monkeypatch, "hold_all")

    async def gone():
        asked = asyncio.ensure_future(till.hold(ann, "m", 10, 10))
        await asyncio.to_thread(until, lambda: calls)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        assert asked.cancelled()
        go.set()

    asyncio.run(gone())
    until(lambda: not till._next and holds.live(ledger) == 0)
    assert uses(ledger) == []


def test_what_could_not_be_settled_is_tried_again(ledger, till, ann, monkeypatch):
    def broken(*given):
        raise OSError("disk full")

    async def asked():
        return [await till.hold(ann, "m", 10, 10) for _ in range(3)]

    whole, streamed, refused = asyncio.run(asked())
    with monkeypatch.context() as patched:
        patched.setattr(holds, "settle_all", broken)
        patched.setattr(holds, "release_all", broken)
        done = [whole.settle(whole.taken(10, 5), delivered=False),
                streamed.settle(streamed.taken(10, 6), delivered=True), refused.release()]
        for one in done:
            with pytest.raises(OSError, match="disk full"):
                one.result(60)
        until(lambda: len(till._late) == 3)
        till._try_late()
        assert len(till._late) == 3 and holds.live(ledger) == 3
    till._try_late()
    assert holds.live(ledger) == 0 and not till._late
    assert [use.output_tokens for use in uses(ledger)] == [6]  # only what somebody has


def test_one_that_cannot_be_written_harms_no_other(ledger, till, ann, monkeypatch):
    real = holds.hold_all

    def picky(ledger, server, wanted):
        if any(one.model == "bad" for one in wanted):
            raise OSError("no")
        return real(ledger, server, wanted)

    monkeypatch.setattr(holds, "hold_all", picky)
    blocked, go = slowed(monkeypatch, "cover_all")

    async def together():
        first = await till.hold(ann, "m", 1, 1)
        covering = asyncio.ensure_future(first.cover(1, 1))
        await asyncio.to_thread(until, lambda: blocked)
        asked = [asyncio.ensure_future(till.hold(ann, name, 1, 1)) for name in ("m", "bad", "m")]
        await asyncio.sleep(0.01)
        go.set()
        await covering
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(together())
    assert isinstance(found[1], Refused) and found[1].status == 503
    assert not isinstance(found[0], Exception) and not isinstance(found[2], Exception)


def test_prices_of_adapters_and_of_the_tariff(ledger, ann):
    modelled = Price(model="m", prompt_nanousd=7, cached_nanousd=7, output_nanousd=7,
                     prompt_millijoules=3 * 10**6, output_millijoules=5 * 10**6, basis="modelled")
    till = Till(ledger, {"m": modelled, "n": modelled}.get)
    try:
        assert till.price("m").output_nanousd == 2 * 10**6  # the list's, and the tariff's joules
        assert till.price("m:adapter").prompt_millijoules == 3 * 10**6
        assert till.price("n") is modelled and till.price("o") is None
        set_price(ledger, Price(model="n", prompt_nanousd=1, cached_nanousd=1, output_nanousd=1,
                                prompt_millijoules=1, output_millijoules=1), actor="test")
        till._look()
        assert till.price("n").prompt_millijoules == 1
        bill = asyncio.run(till.hold(ann, "m", 10, 10))
        assert bill.most.millijoules == 80
        assert bill.taken(10, 2).millijoules == 40 and bill.taken(10, 2).energy_basis == "default"
        known = bill.taken(10, 2, 0, 33, "measured")
        assert (known.millijoules, known.energy_basis) == (33, "measured")
    finally:
        till.close()
    assert holds.live(ledger) == 0


def test_energy_that_nobody_knows_cannot_be_held(ledger, till, ann):
    budgets.set_budget(ledger, ann.scopes[0], "millijoules", 10**6, period="day", actor="test")
    till._look()
    with pytest.raises(Refused, match="no known energy a token") as caught:
        asyncio.run(till.hold(ann, "m", 1, 1))
    assert caught.value.status == 403


def test_what_gathers_is_written_in_one_transaction(ledger, till, ann, monkeypatch):
    async def asked():
        first, second = await till.hold(ann, "m", 10, 10), await till.hold(ann, "m", 10, 10)
        calls, go = slowed(monkeypatch, "hold_all")
        blocked = asyncio.ensure_future(till.hold(ann, "m", 1, 1))
        await asyncio.to_thread(until, lambda: calls)  # the thread is busy: the rest goes together
        ends = [first.settle(first.taken(10, 5), delivered=True), second.release()]
        last = asyncio.ensure_future(till.hold(ann, "m", 2, 2))
        await asyncio.sleep(0)
        commits = []
        sa.event.listen(ledger._engine, "commit", commits.append)
        go.set()
        bills = await asyncio.gather(blocked, last)
        await asyncio.gather(*map(asyncio.wrap_future, ends))
        assert len(commits) == 2
        for bill in bills:
            await asyncio.wrap_future(bill.release())
    asyncio.run(asked())
    assert [use.output_tokens for use in uses(ledger)] == [5] and holds.live(ledger) == 0


def test_a_first_slice_is_noted_before_it_is_asked_for(ledger, till, ann, monkeypatch):
    seen, real = [], holds.cover_all
    monkeypatch.setattr(holds, "cover_all", lambda ledger, told: seen.extend(told) or real(
        ledger, told))

    async def asked():
        bill = await till.hold(ann, "m", 10, 200)
        bill.begin_cover(10)
        await asyncio.to_thread(until, lambda: seen)
        await bill.cover(10, 1)
        await bill.cover(10, SLICE_TOKENS)
        assert [taken.output_tokens for _, taken in seen] == [SLICE_TOKENS]
        await bill.cover(10, SLICE_TOKENS + 1)
        assert [taken.output_tokens for _, taken in seen] == [SLICE_TOKENS, 2 * SLICE_TOKENS]
        await asyncio.wrap_future(bill.release())
    asyncio.run(asked())
    assert not uses(ledger)


def test_a_closed_till_holds_nothing(ledger, ann):
    till = Till(ledger)
    till.close()
    with pytest.raises(Refused) as caught:
        asyncio.run(till.hold(ann, "m", 1, 1))
    assert caught.value.code == "ledger_unavailable"

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from curbcut.ledger import access, budgets, holds, leases, schema
from curbcut.ledger.amounts import Amount
from curbcut.ledger.holds import Exhausted, Lapsed
from ledger.accounts import caller, rows, set_budget, standing, taken, uses, wanted

ALL = ("organisation:default", "project:default")


@pytest.fixture
def ann(ledger):
    return caller(ledger)


@pytest.fixture
def server(ledger):
    return holds.open_server(ledger)


def test_a_hold_is_settled_for_what_was_taken_at_each_budget(ledger, ann, server):
    for scope in ann.scopes:
        set_budget(ledger, scope, 100)
    set_budget(ledger, "project:default", 50, "tokens")
    id_ = holds.hold(ledger, server, wanted(ann, tokens=20, nanousd=60))
    assert [standing(ledger, scope) for scope in ann.scopes] == [(0, 60, 40)] * 3
    assert holds.live(ledger) == 1
    holds.settle(ledger, id_, taken(7, 25, cost_nanousd=99, finish="stop"))
    assert [standing(ledger, scope) for scope in ann.scopes] == [(25, 0, 75)] * 3
    assert standing(ledger, "project:default", "tokens") == (7, 0, 43)
    assert (uses(ledger), uses(ledger, "cost_nanousd")) == ((25, 1), (99, 1))
    assert holds.live(ledger) == rows(ledger, schema.holds) == rows(ledger, schema.hold_lines) == 0


def test_what_has_no_room_in_one_budget_holds_in_none(ledger, ann, server):
    set_budget(ledger, ALL[0], 1000)
    set_budget(ledger, ALL[1], 10)
    with pytest.raises(Exhausted) as caught:
        holds.hold(ledger, server, wanted(ann, nanousd=11))
    assert (caught.value.budget.scope, caught.value.budget.left, caught.value.wanted) == (
        ALL[1], 10, 11)
    assert [standing(ledger, scope)[1] for scope in ALL] == [0, 0]
    assert rows(ledger, schema.holds) == 0
    holds.hold(ledger, server, wanted(ann, nanousd=10))  # the last of it


def test_of_a_batch_the_first_are_held_and_a_small_one_after_a_large(ledger, ann, server):
    set_budget(ledger, ALL[0], 10)
    found = holds.hold_all(ledger, server, [wanted(ann, nanousd=some) for some in (6, 5, 4, 1)])
    assert [isinstance(one, Exhausted) for one in found] == [False, True, False, True]
    assert found[1].budget.left == 4
    assert standing(ledger, ALL[0]) == (0, 10, 0)


def test_asked_for_twice_it_is_held_once(ledger, ann, server):
    set_budget(ledger, ALL[0], 10)
    one = wanted(ann, nanousd=6)
    assert holds.hold_all(ledger, server, [one, one]) == [one.id, one.id]
    assert holds.hold(ledger, server, one) == one.id
    assert standing(ledger, ALL[0]) == (0, 6, 4)


def test_settled_twice_it_is_charged_once(ledger, ann, server):
    set_budget(ledger, ALL[0], 10)
    id_ = holds.hold(ledger, server, wanted(ann, nanousd=6))
    holds.settle_all(ledger, [(id_, taken(1, 2)), (id_, taken(1, 3))])
    holds.settle(ledger, id_, taken(1, 4))
    holds.release_all(ledger, [id_])
    assert standing(ledger, ALL[0]) == (2, 0, 8)
    assert uses(ledger) == (2, 1)


def test_money_beyond_the_hold_is_not_charged(ledger, ann, server):
    set_budget(ledger, ALL[0], 100)
    set_budget(ledger, ALL[0], 100, "tokens")
    id_ = holds.hold(ledger, server, wanted(ann, tokens=5, nanousd=6))
    holds.settle(ledger, id_, taken(9, 50))
    assert (standing(ledger, ALL[0]), uses(ledger)) == ((6, 0, 94), (6, 1))
    assert standing(ledger, ALL[0], "tokens") == (5, 0, 95)


def test_joules_beyond_the_hold_are_charged_as_far_as_there_is_room(ledger, ann, server):
    set_budget(ledger, ALL[0], 10, "millijoules")
    set_budget(ledger, ALL[1], 100, "millijoules")
    id_ = holds.hold(ledger, server, wanted(ann, millijoules=4))
    holds.settle(ledger, id_, taken(1, millijoules=30))
    assert standing(ledger, ALL[0], "millijoules") == (10, 0, 0)
    assert standing(ledger, ALL[1], "millijoules") == (30, 0, 70)
    assert uses(ledger, "millijoules") == (30, 1)
    with pytest.raises(Exhausted):  # even by a model of which no ceiling is known
        holds.hold(ledger, server, wanted(ann))


def test_a_free_model_is_served_when_money_is_out(ledger, ann, server):
    set_budget(ledger, ALL[0], 0)
    holds.hold(ledger, server, wanted(ann, tokens=100))


def test_a_released_hold_leaves_nothing(ledger, ann, server):
    set_budget(ledger, ALL[0], 10)
    holds.release_all(ledger, [holds.hold(ledger, server, wanted(ann, nanousd=6)), "none"])
    assert (standing(ledger, ALL[0]), uses(ledger)) == ((0, 0, 10), (0, 0))
    assert rows(ledger, schema.holds) == 0


def test_a_hold_can_grow_as_far_as_there_is_room(ledger, ann, server):
    set_budget(ledger, ann.scopes[2], 10)
    id_ = holds.hold(ledger, server, wanted(ann, nanousd=4))
    holds.extend(ledger, id_, Amount(nanousd=5))
    with pytest.raises(Exhausted):
        holds.extend(ledger, id_, Amount(nanousd=2))
    holds.settle(ledger, id_, taken(1, 9))
    assert standing(ledger, ann.scopes[2]) == (9, 0, 1)
    with pytest.raises(KeyError):
        holds.extend(ledger, id_, Amount(nanousd=1))


def die(ledger, server):
    leases.end(ledger, server)
    return holds.reap(ledger)


def test_of_a_dead_server_what_was_covered_is_charged_and_the_rest_given_back(ledger, ann, server):
    set_budget(ledger, ALL[0], 100)
    covered, fresh = holds.hold_all(ledger, server, [wanted(ann, tokens=9, nanousd=30)] * 1
                                    + [wanted(ann, tokens=9, nanousd=30)])
    assert holds.cover_all(ledger, {covered: taken(3, 12)}) == [None]
    holds.cover_all(ledger, {covered: taken(2, 8)})  # told late: a cover never shrinks
    assert die(ledger, server) == 2 and holds.reap(ledger) == 0
    assert (standing(ledger, ALL[0]), uses(ledger)) == ((12, 0, 88), (12, 1))
    assert fresh and uses(ledger, "output_tokens") == (3, 1)


def test_nothing_is_reaped_of_a_server_that_beats(ledger, ann, server, monkeypatch):
    holds.hold(ledger, server, wanted(ann, nanousd=1))
    assert holds.reap(ledger) == 0
    now = time.time()
    monkeypatch.setattr(leases, "clock", lambda _: now + leases.LEASE_SECONDS + 1)
    holds.beat(ledger, server)
    assert holds.reap(ledger) == 0
    monkeypatch.setattr(leases, "clock", lambda _: now + 2 * leases.LEASE_SECONDS + 2)
    assert holds.reap(ledger) == 1


def test_a_clock_that_jumps_back_kills_nobody(ledger, ann, server, monkeypatch):
    holds.hold(ledger, server, wanted(ann, nanousd=1))
    monkeypatch.setattr(leases, "clock", lambda _: time.time() - 86400)
    assert holds.reap(ledger) == 0


def test_a_slow_server_goes_on_where_there_is_room(ledger, ann, server):
    set_budget(ledger, ALL[0], 100)
    id_ = holds.hold(ledger, server, wanted(ann, tokens=9, nanousd=60))
    holds.cover_all(ledger, {id_: taken(2, 10)})
    die(ledger, server)
    assert standing(ledger, ALL[0]) == (10, 0, 90)
    assert holds.cover_all(ledger, {id_: taken(4, 20)}) == [None]
    assert (standing(ledger, ALL[0]), uses(ledger)) == ((0, 60, 40), (0, 0))
    die(ledger, server)
    assert standing(ledger, ALL[0]) == (20, 0, 80)
    holds.settle(ledger, id_, taken(5, 25, finish="stop"))
    assert (standing(ledger, ALL[0]), uses(ledger)) == ((25, 0, 75), (25, 1))


def test_where_its_room_was_given_away_it_must_stop(ledger, ann, server):
    set_budget(ledger, ALL[0], 100)
    id_ = holds.hold(ledger, server, wanted(ann, tokens=9, nanousd=60))
    holds.cover_all(ledger, {id_: taken(2, 10)})
    die(ledger, server)
    other = holds.open_server(ledger)
    next_ = holds.hold(ledger, other, wanted(ann, nanousd=80))
    [lapsed] = holds.cover_all(ledger, {id_: taken(4, 20)})
    assert isinstance(lapsed, Lapsed)
    with pytest.raises(Lapsed):
        holds.settle(ledger, id_, taken(4, 20))
    assert (standing(ledger, ALL[0]), uses(ledger)) == ((10, 80, 10), (10, 1))
    holds.release_all(ledger, [next_])
    holds.settle(ledger, id_, taken(4, 20))  # there is room again
    assert (standing(ledger, ALL[0]), uses(ledger)) == ((20, 0, 80), (20, 1))


def test_a_cover_of_what_is_held_no_longer_says_so(ledger, ann, server):
    id_ = holds.hold(ledger, server, wanted(ann, nanousd=1))
    holds.release_all(ledger, [id_])
    found = holds.cover_all(ledger, [(id_, taken(1)), ("none", taken(1)), (id_, taken(2))])
    assert [type(one) for one in found] == [Lapsed] * 3


def test_what_was_abandoned_long_ago_is_forgotten_and_stays_charged(ledger, ann, server,
                                                                    monkeypatch):
    set_budget(ledger, ALL[0], 100)
    id_ = holds.hold(ledger, server, wanted(ann, tokens=9, nanousd=60))
    holds.cover_all(ledger, {id_: taken(2, 10)})
    die(ledger, server)
    assert rows(ledger, schema.holds) == 1
    monkeypatch.setattr(holds, "clock", lambda _: time.time() + holds.FORGOTTEN_SECONDS + 60)
    holds.reap(ledger)
    assert rows(ledger, schema.holds) == rows(ledger, schema.hold_lines) == 0
    assert (standing(ledger, ALL[0]), uses(ledger)) == ((10, 0, 90), (10, 1))


def test_closing_a_server_charges_what_it_left(ledger, ann, server):
    set_budget(ledger, ALL[0], 100)
    id_ = holds.hold(ledger, server, wanted(ann, tokens=9, nanousd=60))
    holds.cover_all(ledger, {id_: taken(2, 10)})
    holds.close_server(ledger, server)
    assert standing(ledger, ALL[0]) == (10, 0, 90)


def test_periods_begin_anew_and_a_hold_is_charged_where_it_was_held(ledger, ann, server,
                                                                    monkeypatch):
    january = datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    for module in (holds, leases, budgets):
        monkeypatch.setattr(module, "clock", lambda _: january)
    set_budget(ledger, ALL[0], 10, period="month")
    set_budget(ledger, ALL[0], 15, period="all")
    id_ = holds.hold(ledger, server, wanted(ann, nanousd=8))
    monkeypatch.setattr(holds, "clock", lambda _: january + 2)
    later = holds.hold(ledger, server, wanted(ann, nanousd=6))  # 8 + 6 > 10, but in February
    with pytest.raises(Exhausted) as caught:
        holds.hold(ledger, server, wanted(ann, nanousd=2))
    assert caught.value.budget.period == "all"
    holds.extend(ledger, id_, Amount(nanousd=1))  # in January's
    holds.settle_all(ledger, {id_: taken(1, 9), later: taken(1, 1)})
    found = {(one.period, when): (one.spent, one.held) for when in (0, 2)
             for one in budgets.budgets(ledger, when=january + when)}
    assert found == {("all", 0): (10, 0), ("month", 0): (9, 0), ("all", 2): (10, 0),
                     ("month", 2): (1, 0)}


def test_a_budget_that_comes_late_counts_what_was_used_and_is_held(ledger, ann, server):
    done, live = holds.hold_all(ledger, server, [wanted(ann, nanousd=9), wanted(ann, nanousd=7)])
    holds.settle(ledger, done, taken(1, 5))
    for scope in ann.scopes:
        set_budget(ledger, scope, 20)
        assert standing(ledger, scope) == (5, 7, 8)
    holds.settle(ledger, live, taken(1, 6))
    assert standing(ledger, ALL[1]) == (11, 0, 9)


def test_a_budget_that_was_ended_and_set_anew_forgets_nothing(ledger, ann, server):
    set_budget(ledger, ALL[0], 20)
    first, across = holds.hold_all(ledger, server, [wanted(ann, nanousd=3),
                                                    wanted(ann, nanousd=4)])
    holds.settle(ledger, first, taken(1, 3))
    set_budget(ledger, ALL[0], None)
    holds.settle(ledger, holds.hold(ledger, server, wanted(ann, nanousd=5)), taken(1, 5))
    set_budget(ledger, ALL[0], 20)
    assert standing(ledger, ALL[0]) == (8, 4, 8)
    holds.settle(ledger, across, taken(1, 4))
    assert standing(ledger, ALL[0]) == (12, 0, 8)
    set_budget(ledger, ALL[0], 10)  # less than is spent
    assert standing(ledger, ALL[0]) == (12, 0, 0)


def test_a_late_budget_counts_what_is_held_again_too(ledger, ann, server):
    id_ = holds.hold(ledger, server, wanted(ann, nanousd=9))
    holds.cover_all(ledger, {id_: taken(1, 2)})
    die(ledger, server)
    set_budget(ledger, ALL[0], 20)
    assert standing(ledger, ALL[0]) == (2, 0, 18)
    holds.settle(ledger, id_, taken(1, 6))
    assert standing(ledger, ALL[0]) == (6, 0, 14)


def test_a_line_of_rotated_keys_has_one_budget(ledger, server):
    access.issue_key(ledger, "ann", actor="test")
    scope = access.scope_of_key(ledger, "ann")
    set_budget(ledger, scope, 10)
    access.set_allowance(ledger, scope, access.Allowance(concurrency=3), actor="test")
    old = access.verify(ledger, access.rotate_key(ledger, "ann", actor="test"))
    new = access.verify(ledger, access.rotate_key(ledger, "ann", actor="test", grace_seconds=60))
    assert old.key_id != new.key_id and old.scopes == new.scopes and new.scopes[2] == scope
    assert new.allowances[scope].concurrency == 3
    holds.hold(ledger, server, wanted(old, nanousd=6))
    with pytest.raises(Exhausted):
        holds.hold(ledger, server, wanted(new, nanousd=6))
    set_budget(ledger, f"key:{new.key_id}", 12)  # named by any of them, it is the one
    assert standing(ledger, scope) == (0, 6, 6)
    set_budget(ledger, scope, None)
    set_budget(ledger, scope, 12)
    assert standing(ledger, scope) == (0, 6, 6)

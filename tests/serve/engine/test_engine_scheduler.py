from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.serve.engine.pages import Pages
from curbcut.serve.engine.request import Request
from curbcut.serve.engine.scheduler import Scheduler
from pretend import answer, asked, check

SIZE = 4


class Nothing:
    stopped = None


def make(scheduler, ticket, prompt, tokens=8, **how):
    what = asked(prompt, tokens, **how)
    request = Request(ticket=ticket, asked=what, deliver=lambda delta: None,
                      tokens=list(what.prompt), prompt_tokens=len(what.prompt), text=Nothing(),
                      sampling=what.sampling)
    scheduler.add(request)
    return request


def scheduler(pages=16, running=4, step=16, **how):
    return Scheduler(Pages(pages, SIZE), running, step, **how)


def compute(plan, pieces, right=None):
    """What a step does: each request that is caught up gets a next token (`right` drafts too)."""
    for piece in pieces:
        request = piece.request
        if piece.last:
            drafts = piece.start + piece.count - len(request.tokens)
            good = min(drafts, (right or {}).get(request.ticket, 0))
            request.tokens += request.drafts[:good]
            request.tokens += answer(request.asked, request.answered + 1)[-1:]
        plan.done(piece)
        request.drafts.clear()
        if request.answered >= request.sampling.max_tokens:
            plan.drop(request)


def told(pieces):
    return [(piece.request.ticket, piece.start, piece.count) for piece in pieces]


def test_a_long_prompt_is_read_in_pieces_and_no_answer_waits():
    plan = scheduler(step=8, pages=40)
    make(plan, 1, [1, 2], 20)
    compute(plan, plan.next_step())
    make(plan, 2, range(30), 20)
    seen = []
    for _ in range(5):
        pieces = plan.next_step()
        assert told(pieces)[0][0] == 1 and sum(piece.count for piece in pieces) <= 8
        seen += [piece.count for piece in pieces if piece.request.ticket == 2]
        compute(plan, pieces)
    assert seen == [7, 7, 7, 7, 2]


def test_a_short_prompt_does_not_wait_for_a_long_one():
    plan = scheduler(step=8, pages=40)
    make(plan, 1, range(30))
    make(plan, 2, [5, 6, 7])
    assert told(plan.next_step()) == [(2, 0, 3), (1, 0, 5)]


def test_who_came_first_gets_half_of_each_step_however_many_short_ones_come():
    plan = scheduler(step=8, pages=60, running=8)
    long = make(plan, 1, range(24), 1)
    for ticket in range(2, 20):
        make(plan, ticket, [ticket, 1, 1], 1)
        compute(plan, plan.next_step())
        if not long.running:
            break
    assert ticket <= 8


def test_priority_goes_first_then_the_order_of_coming():
    plan = scheduler(running=2)
    for ticket, priority in ((1, 5), (2, 0), (3, 0), (4, 9)):
        make(plan, ticket, [ticket], 1, priority=priority)
    order = []
    while not plan.idle:
        pieces = plan.next_step()
        order += sorted(ticket for ticket, _, _ in told(pieces))
        compute(plan, pieces)
    assert order == [2, 3, 1, 4]


def test_the_last_one_gives_way_and_starts_over_where_it_was_remembered():
    plan = scheduler(pages=6, running=2)
    first, last = make(plan, 1, range(8), 9), make(plan, 2, range(50, 58), 9)
    while plan.preempted == 0:
        compute(plan, plan.next_step())
    assert first.running and not last.running and last in plan.waiting
    assert last.pages == [] and last.computed == 0
    while not plan.idle:
        compute(plan, plan.next_step())
    for request in (first, last):
        assert request.answer == answer(request.asked, 9)
    assert plan.pages.used == 0
    check(plan.pages)


def test_prompts_are_found_again_and_only_with_their_salt():
    plan = scheduler()
    for ticket, salt, cached in ((1, "a", 0), (2, "a", 8), (3, "b", 0)):
        request = make(plan, ticket, range(9), 1, salt=salt)
        compute(plan, plan.next_step())
        assert request.cached == cached and plan.idle


def test_equal_prompts_that_come_together_are_computed_once():
    plan = scheduler(step=32, pages=40)
    requests = [make(plan, ticket, [*range(12), 50 + ticket], 3) for ticket in range(1, 5)]
    other = make(plan, 9, [3, 3], 3, salt="x")
    computed = []
    while not plan.idle:
        pieces = plan.next_step()
        computed.append(sum(piece.count for piece in pieces if not piece.request.answered))
        compute(plan, pieces)
    assert sum(computed) == 13 + 3 * 1 + 2
    assert [request.cached for request in requests] == [0, 12, 12, 12] and other.cached == 0


def test_who_waits_for_anothers_pages_goes_on_when_that_one_is_gone():
    plan = scheduler(step=4)
    first = make(plan, 1, range(12), 2)
    second = make(plan, 2, range(12), 2)
    assert told(plan.next_step()) == [(1, 0, 4)]
    plan.drop(first)
    assert told(plan.next_step()) == [(2, 0, 4)] and second.running


def test_who_tells_the_odds_of_a_prompt_computes_all_of_it():
    plan = scheduler()
    make(plan, 1, range(9), 1)
    compute(plan, plan.next_step())
    make(plan, 2, range(9), 2, prompt_logprobs=1)
    [piece] = plan.next_step()
    assert (piece.start, piece.count, piece.wanted) == (0, 9, 9)
    compute(plan, [piece])
    assert plan.next_step()[0].wanted == 1


def test_a_page_is_looked_at_once_however_long_the_answer(monkeypatch):
    plan, calls = scheduler(pages=200), []
    know = plan.pages.know
    monkeypatch.setattr(plan.pages, "know", lambda *given: calls.append(1) or know(*given))
    make(plan, 1, range(9), 400)
    while not plan.idle:
        compute(plan, plan.next_step())
    assert len(calls) == (9 + 400 - 1) // SIZE


def test_drafts_take_what_is_spare_and_preempt_nobody():
    plan = scheduler(pages=4, step=32)
    one, two = make(plan, 1, range(6), 20), make(plan, 2, [9, 8], 3)
    for _ in range(2):
        compute(plan, plan.next_step())
    one.drafts = list(range(9))
    two.drafts = [1, 2, 3, 4]
    pieces = plan.next_step()
    counts = {piece.request.ticket: piece.count for piece in pieces}
    assert plan.preempted == 0 and all(piece.wanted == piece.count for piece in pieces)
    assert counts[1] == 5 and counts[2] == 1      # one page is left; two's third token is its last
    assert len(one.drafts) == 4 and two.drafts == []
    compute(plan, pieces, {1: 2})
    assert one.computed == len(one.tokens) - 1 == 6 + 2 + 2


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_comes_and_goes_all_get_on_and_nothing_is_lost(data):
    """Any prompts, lengths, priorities, drafts and cancellations, on few pages."""
    pages = data.draw(st.integers(5, 14))
    plan = scheduler(pages=pages, running=data.draw(st.integers(1, 4)),
                     step=data.draw(st.integers(4, 12)),
                     remembers=data.draw(st.booleans()))
    live, ticket, idle_steps = [], 0, 0
    for _ in range(300):
        if ticket < 8 and data.draw(st.booleans()):
            ticket += 1
            prompt = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=12))
            tokens = data.draw(st.integers(1, pages * SIZE - len(prompt)))
            live.append(make(plan, ticket, prompt, min(tokens, 9),
                             priority=data.draw(st.integers(0, 1)),
                             salt=data.draw(st.sampled_from("ab"))))
        if live and data.draw(st.integers(0, 9)) == 0:
            plan.drop(live.pop(data.draw(st.integers(0, len(live) - 1))))
        for request in plan.running:
            if request.missing == 1 and data.draw(st.integers(0, 3)) == 0:
                request.drafts = answer(request.asked, request.answered + 3)[request.answered:]
        pieces = plan.next_step()
        idle_steps = idle_steps + 1 if not pieces and not plan.idle else 0
        assert idle_steps == 0, "nobody gets on"
        assert sum(piece.count for piece in pieces) <= plan.step_tokens
        fed = {piece.request.ticket for piece in pieces}
        first = plan.running[0].ticket if plan.running else None
        assert first is None or first in fed
        compute(plan, pieces, {piece.request.ticket: 2 for piece in pieces})
        check(plan.pages)
        live = [one for one in live if one.running or one in plan.waiting]
        for one in live:
            assert one.computed <= len(one.tokens) - 1 or not one.running
            assert len(one.pages) * SIZE >= one.computed
            assert one.answer == answer(one.asked, one.answered)
        if ticket == 8 and plan.idle:
            break
    assert plan.idle or ticket < 8
    if plan.idle:
        assert plan.pages.used == 0

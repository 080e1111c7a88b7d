"""Whatever is done in whatever order: nothing overshoots, and what is spent is what was used."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from curbcut.errors import UnknownName
from curbcut.ledger import access, budgets, holds, leases, moves, open_ledger, schema
from curbcut.ledger.amounts import UNITS, Amount
from curbcut.ledger.holds import Exhausted, Lapsed, Taken
from ledger.accounts import caller, wanted

SOME = st.integers(0, 12)
UNIT = st.sampled_from(UNITS)
AMOUNTS = st.builds(Amount, tokens=st.integers(1, 12), nanousd=SOME, millijoules=SOME)


class Holds(RuleBasedStateMachine):
    """Requests of three keys in two projects, on servers that die."""

    @initialize()
    def begin(self):
        self.folder = tempfile.mkdtemp()
        self.ledger = open_ledger(f"{self.folder}/ledger.sqlite")
        access.create_project(self.ledger, "thesis", actor="test")
        self.callers = [caller(self.ledger, name, project=project) for name, project in (
            ("ann", "default"), ("bob", "default"), ("cem", "thesis"))]
        self.server, self.numbers = holds.open_server(self.ledger), itertools.count()
        self.most: dict[str, Amount] = {}
        self.lapsed: set[str] = set()
        self.ceilings: dict[moves.Place, int] = {}

    def teardown(self):
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    def scopes(self):
        return list(dict.fromkeys(scope for one in self.callers for scope in one.scopes))

    @rule(data=st.data(), unit=UNIT, period=st.sampled_from(["all", "month"]),
          amount=st.none() | st.integers(0, 60))
    def budget(self, data, unit, period, amount):
        scope = data.draw(st.sampled_from(self.scopes()))
        with contextlib.suppress(UnknownName):  # the end of a budget that is not there
            budgets.set_budget(self.ledger, scope, unit, amount, period=period, actor="test")
        self.ceilings = {place: top for place, top in self.ceilings.items()
                         if place[:3] != (scope, unit, period)}
        for one in budgets.budgets(self.ledger, [scope]):
            if (one.unit, one.period) == (unit, period):
                self.ceilings[moves.place_of(one)] = max(one.amount, one.spent + one.held)

    @rule(data=st.data(), amounts=st.lists(AMOUNTS, min_size=1, max_size=3))
    def hold(self, data, amounts):
        asked = [wanted(data.draw(st.sampled_from(self.callers)), some.tokens, some.nanousd,
                        some.millijoules) for some in amounts]
        found = holds.hold_all(self.ledger, self.server, asked)
        for one, result in zip(asked, found, strict=True):
            if isinstance(result, Exhausted):
                assert result.wanted > result.budget.left or result.budget.left == 0
            else:
                self.most[one.id] = one.most

    def draw(self, data):
        """Some hold, and some amount that it may take."""
        id_ = data.draw(st.sampled_from(list(self.most)))
        most = self.most[id_]
        tokens = data.draw(st.integers(0, most.tokens))
        return id_, Taken(prompt_tokens=0, output_tokens=tokens,
                          nanousd=data.draw(st.integers(0, most.nanousd)) if tokens else 0,
                          millijoules=data.draw(st.none() | SOME) if tokens else None)

    @rule(data=st.data())
    def cover(self, data):
        if self.most:
            id_, taken = self.draw(data)
            [fault] = holds.cover_all(self.ledger, {id_: taken})
            (self.lapsed.add if fault else self.lapsed.discard)(id_)

    @rule(data=st.data())
    def settle(self, data):
        if self.most:
            id_, taken = self.draw(data)
            try:
                holds.settle(self.ledger, id_, taken)
                del self.most[id_]
            except Lapsed:
                self.lapsed.add(id_)

    @rule(data=st.data())
    def release(self, data):
        if self.most:
            id_ = data.draw(st.sampled_from(list(self.most)))
            holds.release_all(self.ledger, [id_])

    @rule(data=st.data(), more=AMOUNTS)
    def extend(self, data, more):
        if self.most:
            id_ = data.draw(st.sampled_from(list(self.most)))
            with contextlib.suppress(Exhausted, KeyError):
                holds.extend(self.ledger, id_, more)
                self.most[id_] = self.most[id_].plus(more)

    @rule()
    def die(self):
        leases.end(self.ledger, self.server)
        holds.reap(self.ledger)
        self.server = holds.open_server(self.ledger)

    @rule(data=st.data())
    def rotate(self, data):
        number = data.draw(st.integers(0, len(self.callers) - 1))
        secret = access.rotate_key(self.ledger, self.callers[number].key, actor="test",
                                   grace_seconds=60)
        self.callers[number] = access.verify(self.ledger, secret)

    @invariant()
    def nothing_overshoots(self):
        if hasattr(self, "ledger"):
            for one in budgets.budgets(self.ledger):
                assert one.spent + one.held <= self.ceilings[moves.place_of(one)]

    @invariant()
    def what_is_held_is_the_sum_of_the_holds(self):
        if not hasattr(self, "ledger"):
            return
        with self.ledger.reading() as connection:
            lines = connection.execute(sa.select(schema.hold_lines).join(schema.holds).where(
                schema.holds.c.state == "held")).all()
            for one in budgets.read(connection, (), leases.clock(connection)):
                assert one.held == sum(
                    line.amount for line in lines
                    if tuple(line)[1:5] == tuple(moves.place_of(one)))

    @invariant()
    def what_is_spent_is_the_sum_of_the_uses(self):
        if not hasattr(self, "ledger"):
            return
        with self.ledger.reading() as connection:
            used = connection.execute(sa.select(schema.uses)).all()
            line_of = {row.id: row.rotated_from or row.id
                       for row in connection.execute(sa.select(schema.keys))}
        for one in budgets.budgets(self.ledger):
            kind, _, name = one.scope.partition(":")
            mine = [use for use in used if name == (line_of[use.key_id] if kind == "key"
                                                    else getattr(use, kind))]
            if one.unit == "tokens":
                assert one.spent == sum(use.output_tokens for use in mine)
            elif one.unit == "nanousd":
                assert one.spent == sum(use.charged_nanousd for use in mine)
            else:  # the truth, or as much of it as there was room
                assert one.spent <= sum(use.millijoules or 0 for use in mine)


class TestHolds(Holds.TestCase):
    settings = settings(max_examples=6, stateful_step_count=25)


@pytest.mark.soak
class TestHoldsForLong(Holds.TestCase):
    settings = settings(max_examples=500, stateful_step_count=50)

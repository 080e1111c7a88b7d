from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curbcut.errors import InputError, UnknownName
from curbcut.ledger import open_ledger, schema, usage

DAY = 86400.0


def put(ledger, *rows):
    with ledger.writing() as connection:
        for row in rows:
            connection.execute(schema.uses.insert().values({
                "key": "ann", "key_id": "00c0ffee", "project": "thesis", "organisation": "lab",
                "model": "tiny", "prompt_tokens": 10, "output_tokens": 5, "seconds": 0.5,
                "time": 100.0, "energy_basis": ""} | row))


def test_it_adds_up_by_key_and_model(ledger):
    put(ledger, {"charged_nanousd": 7}, {"charged_nanousd": 8, "time": 200.0},
        {"model": "big"}, {"key": "bob", "key_id": "0b0b0b0b"})
    lines = {(one.key, one.model): one for one in usage.used(ledger)}
    assert set(lines) == {("ann", "tiny"), ("ann", "big"), ("bob", "tiny")}
    ann = lines["ann", "tiny"]
    assert (ann.requests, ann.prompt_tokens, ann.output_tokens, ann.tokens) == (2, 20, 10, 30)
    assert (ann.seconds, ann.charged_nanousd, ann.first, ann.last) == (1.0, 15, 100.0, 200.0)
    assert (ann.organisation, ann.project, ann.key_id) == ("lab", "thesis", "00c0ffee")


def test_what_is_not_known_is_none_and_counted(ledger):
    put(ledger, {}, {})
    [line] = usage.used(ledger, by=())
    assert (line.charged_nanousd, line.cost_nanousd, line.millijoules) == (None, None, None)
    assert (line.uncharged, line.uncosted, line.unmetered, line.by_basis) == (2, 2, 2, {})
    assert line.engine_seconds is None
    put(ledger, {"millijoules": 0, "energy_basis": "measured", "charged_nanousd": 0})
    [line] = usage.used(ledger, by=())
    assert (line.millijoules, line.unmetered) == (0, 2)
    assert (line.charged_nanousd, line.uncharged) == (0, 2)


def test_joules_are_told_apart_by_how_they_are_known(ledger):
    put(ledger, {"millijoules": 5, "energy_basis": "measured"},
        {"millijoules": 2, "energy_basis": "modelled"},
        {"millijoules": 3, "energy_basis": "modelled", "finish": "abandoned"}, {})
    [line] = usage.used(ledger, by=("project",))
    assert line.by_basis == {"measured": 5, "modelled": 5}
    assert (line.millijoules, line.unmetered, line.requests, line.abandoned) == (10, 1, 4, 1)
    assert (line.project, line.key, line.model) == ("thesis", None, None)


def test_a_window_takes_its_start_and_not_its_end(ledger):
    put(ledger, {"time": 1.0}, {"time": 2.0}, {"time": 3.0})
    assert [one.requests for one in usage.used(ledger, 2.0, 3.0)] == [1]
    assert [one.requests for one in usage.used(ledger, None, 3.0)] == [2]
    assert usage.used(ledger, 9.0) == []


def test_it_can_be_narrowed(ledger):
    put(ledger, {}, {"project": "other"}, {"organisation": "firm"}, {"model": "big"})
    for narrowed in ({"project": "other"}, {"organisation": "firm"}, {"model": "big"},
                     {"key_id": "none"}):
        assert sum(one.requests for one in usage.used(ledger, **narrowed)) == (
            "key_id" not in narrowed)


def test_stretches_of_time_begin_where_they_should(ledger):
    put(ledger, {"time": 0.0}, {"time": DAY - 0.001}, {"time": DAY}, {"time": 2.6 * DAY})
    days = usage.used(ledger, by=("project",), every_seconds=DAY)
    assert [(one.start, one.requests) for one in days] == [(0, 2), (DAY, 1), (2 * DAY, 1)]


def test_uses_without_key_or_project_are_a_line_of_their_own(ledger):
    put(ledger, {"key": None, "key_id": None, "project": None, "organisation": None}, {})
    nobody, ann = usage.used(ledger)
    assert (nobody.key, nobody.project, ann.key) == (None, None, "ann")


def test_figures_a_token_are_of_answers_and_of_what_is_known(ledger):
    put(ledger, {"output_tokens": 4, "millijoules": 8000, "charged_nanousd": 2_000},
        {"output_tokens": 96, "millijoules": None, "charged_nanousd": None})
    [found] = usage.used(ledger, by=())
    assert (found.joules_per_token, found.metered_tokens) == (2.0, 4)
    assert found.usd_per_million == pytest.approx(0.5)
    assert usage.Usage().joules_per_token is None


def test_more_lines_than_can_be_told_are_refused(ledger, monkeypatch):
    put(ledger, {"time": 0.0}, {"time": DAY}, {"time": 2 * DAY})
    monkeypatch.setattr(usage, "MOST_LINES", 2)
    with pytest.raises(InputError, match="longer stretches"):
        usage.used(ledger, by=(), every_seconds=DAY)
    assert [one.requests for one in usage.used(ledger, by=())] == [3]


def test_another_grouping_is_refused(ledger):
    with pytest.raises(UnknownName, match="key"):
        usage.used(ledger, by=("keys",))


ROWS = st.lists(st.fixed_dictionaries({
    "key_id": st.sampled_from(["a", "b", None]), "model": st.sampled_from(["x", "y"]),
    "project": st.sampled_from(["p", "q"]), "time": st.floats(0, 10 * DAY),
    "charged_nanousd": st.none() | st.integers(0, 2**40),
    "millijoules": st.none() | st.integers(0, 2**40),
    "energy_basis": st.sampled_from(["", "measured", "modelled"])}), max_size=12)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with open_ledger(tmp_path_factory.mktemp("usage") / "ledger.sqlite") as opened:
        yield opened


@given(rows=ROWS, by=st.sets(st.sampled_from(usage.BY)), every=st.none() | st.just(DAY))
def test_no_grouping_loses_or_doubles_anything(shared, rows, by, every):
    with shared.writing() as connection:
        connection.execute(schema.uses.delete())
    put(shared, *rows)
    lines = usage.used(shared, by=tuple(by), every_seconds=every)
    assert sum(line.requests for line in lines) == len(rows)
    for name, lacking in (("charged_nanousd", "uncharged"), ("millijoules", "unmetered")):
        known = [row[name] for row in rows if row[name] is not None]
        assert sum(getattr(line, name) or 0 for line in lines) == sum(known)
        assert sum(getattr(line, lacking) for line in lines) == len(rows) - len(known)
    assert all(line.millijoules == (sum(line.by_basis.values()) if line.by_basis else None)
               for line in lines)

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from curbcut.plan.backwards.answer import backwards
from curbcut.plan.backwards.drafts import Wish
from curbcut.plan.backwards.question import NAMES, Traffic
from curbcut.report import backwards as report
from curbcut.report import tables
from curbcut.report.formats import written
from curbcut.spec.draft import Draft
from curbcut.spec.nouns import ServeJob


def answer(wish=None, **tables_):
    return backwards(Draft().with_raw(tables_, "test"),
                     wish or Wish(names=("1xH100", "8xH100", "4xA100")))


@pytest.fixture(scope="module")
def found():
    """What 200 EUR buy on three machines."""
    return answer(limits={"money": "200 EUR"}, train={"text_bytes": "40 GB"})


def said(table):
    console = tables.plain_console(io.StringIO())
    tables.print_table(table, console)
    return console.file.getvalue()


def test_the_first_line_is_the_answer_in_words(found):
    line = next(iter(report.in_words(found)))
    run = found.best.resolved.run
    assert line.startswith("200.00 EUR buys 0.")
    for part in (f"{run.machine.accelerators} x {run.machine.accelerator}", "rented on demand",
                 "parameters", "tokens", "grid world"):
        assert part in line


def test_what_binds_says_what_more_would_buy(found):
    text = " ".join(said(report.limits(found)).split())
    assert "money 200.00 EUR 85% yes" in text
    assert "40.0 GB" in text and " times " in text
    rows = {row[0]: row for row in report.limits(found).rows}
    assert set(rows) == {"money", "time", "data"}
    assert rows["money"][3] is True and rows["time"][3] is False
    assert rows["money"][5].plain > 0 == rows["time"][5].plain


def test_tables_fit_a_console_and_every_format(found):
    for table in [report.said(found), *report.all_tables(found)]:
        assert max(map(len, said(table).splitlines())) <= tables.PIPE_WIDTH
        keys = [column.key for column in table.columns if column.only != "people"]
        assert len(set(keys)) == len(keys)
    whole = list(report.all_tables(found))
    for chosen in ("markdown", "csv", "json"):
        assert "h100" in written(whole, chosen)


def test_machines_and_their_reasons_are_named(found):
    text = said(report.runners_up(found))
    assert "a100" in text or "h100" in text
    assert "hour x" in text or "ends it" in text or "about as good" in text


def test_a_wanted_loss_is_answered_in_money():
    one = answer(limits={"loss": 1.0, "money": "500 EUR"})
    line = next(iter(report.in_words(one)))
    assert line.startswith("1 bits a byte costs ") and " EUR at least" in line
    rows = {row[0]: row for row in report.limits(one).rows}
    assert rows["target loss"][3] is True
    assert "EUR" in rows["target loss"][5].text


def test_serving_and_experts_are_said():
    traffic = Traffic(100.0, replace(ServeJob(), months=0.5))
    one = answer(Wish(names=("1xH100",), traffic=traffic), limits={"money": "3000 EUR"})
    lines = " ".join(report.in_words(one))
    assert "Serving 131 M tokens over 0.5 months costs" in lines
    assert report.as_plain(one)["serving"]["usd"] == one.serving["usd"]


def test_amounts_are_short():
    assert report._compact(4250.0, "USD") == "4.25k"
    assert report._compact(12.3e6, "USD") == "12.3M"
    assert report._compact(0.0123, "USD") == "0.0123"
    assert report._compact(None, "USD") == "unknown"


def test_every_name_that_binds_has_words(found):
    for name in found.binds:
        assert NAMES[name]


def test_several_limits_are_listed_in_words():
    one = answer(limits={"money": "20 USD", "kwh": "90 kWh", "seconds": "2 d"})
    assert next(iter(report.in_words(one))).startswith("$20.00, 90.0 kWh and 2.00 d buy ")

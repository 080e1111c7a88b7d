"""A month's statement: the ledger's own numbers, and nothing made up."""

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounted import AFTER, BEFORE, IN_MARCH, KWH, MONTH, ledger_at, meter, use
from curbcut.errors import InputError, UnknownName
from curbcut.papers.statement import Line, as_csv, month_of, notes, rows, statement
from curbcut.papers.statement_pdf import as_pdf, shown_usd


@pytest.fixture
def ledger(tmp_path):
    with ledger_at(tmp_path / "ledger.sqlite") as opened:
        yield opened


def full(ledger):
    use(ledger, "ann", millijoules=KWH // 4, energy_basis="measured", cost_nanousd=100_000,
        cached_tokens=40)
    use(ledger, "ann", millijoules=KWH // 4, energy_basis="modelled")
    use(ledger, "ann")
    use(ledger, "bob", model="small:french", millijoules=KWH // 2, energy_basis="measured")
    meter(ledger, "requests", KWH, "small", kgco2e=0.4)
    meter(ledger, "idle", KWH // 3)
    meter(ledger, "correction", -KWH // 12)
    return statement(ledger, "organisation:lab", MONTH, now=AFTER)


def test_lines_are_by_key_and_model_and_the_total_is_their_sum(ledger):
    found = full(ledger)
    assert [(line.key, line.model, line.requests) for line in found.lines] == [
        ("bob", "small:french", 1), ("ann", "small", 3)]
    ann = found.lines[1]
    assert (ann.prompt_tokens, ann.cached_tokens, ann.answer_tokens) == (300, 40, 150)
    assert ann.charged_usd == pytest.approx(0.0009) and ann.cost_usd == pytest.approx(0.0001)
    assert (ann.kwh_measured, ann.kwh_modelled, ann.unmetered, ann.uncosted) == (.25, .25, 1, 2)
    assert found.total.requests == 4 and found.total.kwh == pytest.approx(1.0)
    assert found.whole and found.total.charged_usd == pytest.approx(0.0012)


def test_carbon_follows_the_models_own_joules(ledger):
    found = full(ledger)  # 400 g for a kWh of the devices
    assert {line.key: line.gco2e for line in found.lines} == {
        "ann": pytest.approx(200.0), "bob": pytest.approx(200.0)}  # an adapter is of its model


def test_idle_is_a_share_of_all_that_was_counted(ledger):
    found = full(ledger)
    assert found.idle_share == pytest.approx((1 / 3) / (1 + 1 / 3 - 1 / 12))
    assert {part.kind: part.gco2e for part in found.parts}["idle"] is None


def test_a_month_has_its_own_requests_only_and_a_project_its_own(ledger):
    for when in (BEFORE, IN_MARCH, AFTER):
        use(ledger, "ann", when)
    use(ledger, "bob")
    assert statement(ledger, "project:thesis", MONTH, now=AFTER).total.requests == 1
    assert statement(ledger, "organisation:lab", MONTH, now=AFTER).total.requests == 2
    assert statement(ledger, "organisation:default", MONTH, now=AFTER).lines == ()


def test_what_is_not_known_is_none_and_empty_never_zero(ledger):
    use(ledger, "ann")
    found = statement(ledger, "project:thesis", MONTH, now=IN_MARCH)
    assert found.total.kwh is found.total.gco2e is found.total.cost_usd is None
    assert found.total.unmetered == 1 and found.idle_share is None and not found.whole
    row = next(csv.DictReader(io.StringIO(as_csv(found))))
    assert row["kwh_measured"] == row["gco2e"] == row["cost_usd"] == ""
    assert float(row["charged_usd"]) == pytest.approx(0.0003)


def test_what_is_left_out_is_said(ledger):
    use(ledger, "ann")
    ledger.record_use(None, "small", prompt_tokens=5, output_tokens=5, seconds=1.0)
    with ledger.writing() as connection:
        connection.exec_driver_sql("UPDATE uses SET time = ? WHERE key IS NULL", (IN_MARCH,))
    found = statement(ledger, "organisation:lab", MONTH, now=IN_MARCH)
    assert found.total.requests == 1 and found.unkeyed == 1
    assert notes(found) == [
        "Of 1 requests, 1 are without a cost.", "Of 1 requests, 1 are without known energy.",
        "1 requests came without a key: they are of no organisation.", "The month is not over."]


def test_csv_adds_up_and_tells_the_audit_head(ledger):
    found = full(ledger)
    table = list(csv.DictReader(io.StringIO(as_csv(found))))
    uses = [row for row in table if row["line"] == "use"]
    total = next(row for row in table if row["line"] == "total")
    for name in ("requests", "prompt_tokens", "answer_tokens", "charged_usd"):
        assert sum(float(row[name]) for row in uses) == pytest.approx(float(total[name]))
    assert {row["line"] for row in table} >= {"machine: idle", "machine: requests"}
    assert found.audit.head in table[-1]["line"] and not found.audit.fault


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_no_text_becomes_a_formula(text):
    from curbcut.papers.statement import _safe
    assert str(_safe(text))[:1] not in ("=", "+", "-", "@") and str(_safe(text)).endswith(text)
    assert _safe(-1.5) == -1.5


def test_budgets_and_prices_of_the_scope_are_shown(ledger):
    found = full(ledger)
    assert [one.scope for one in found.budgets] == ["organisation:lab", "project:thesis"]
    assert {one.spent for one in found.budgets if one.unit == "nanousd"} == {900_000}
    assert [one.model for one in found.prices] == ["small"]
    assert found.sources == ("counter of device; grid of a test",)


def test_tampering_is_said(ledger):
    with ledger.writing() as connection:
        connection.exec_driver_sql("DROP TRIGGER IF EXISTS audit_no_update")
        for name in connection.exec_driver_sql(
                "SELECT name FROM sqlite_master WHERE type = 'trigger'").scalars().all():
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        connection.exec_driver_sql("UPDATE audit SET actor = 'nobody' WHERE sequence = 2")
    found = statement(ledger, "organisation:lab", MONTH, now=AFTER)
    assert "row 2" in found.audit.fault


@pytest.mark.parametrize(("text", "problem"), [
    ("2026-13", "no month"), ("march", "no month"), ("2026-3", "no month"), ("0000-01", "no month"),
    ("2026-05", "not begun"), ("9999-12", "not begun")])
def test_a_month_that_is_none(text, problem):
    with pytest.raises(InputError, match=problem):
        month_of(text, AFTER)


def test_months_follow_each_other_without_a_gap():
    now, last = AFTER, None
    for year in (2024, 2025):
        for month in range(1, 13):
            _, start, end = month_of(f"{year}-{month:02}", now)
            assert last in (None, start) and 28 * 86400 <= end - start <= 31 * 86400
            last = end
    assert month_of(None, IN_MARCH)[0] == "2026-03"


@pytest.mark.parametrize("scope", ["organisation:lob", "project:thesys", "key:ann", "lab"])
def test_a_scope_that_is_not_there(ledger, scope):
    with pytest.raises(UnknownName):
        statement(ledger, scope, MONTH, now=AFTER)


def test_figures_a_token_need_tokens():
    line = Line(requests=1, charged_usd=2.0, answer_tokens=4)
    assert line.usd_per_million is None and line.joules_per_token is None
    assert replace(line, charged_tokens=4).usd_per_million == 5e5
    known = replace(line, kwh_measured=0.5, kwh_modelled=0.5, gco2e=3.0, metered_tokens=2)
    assert (known.joules_per_token, known.gco2e_per_million) == (1.8e6, 1.5e6)


class TestPdf:
    def test_the_same_statement_is_the_same_bytes(self, ledger):
        pytest.importorskip("reportlab", reason="reportlab is absent")
        found = full(ledger)
        first = as_pdf(found)
        assert first == as_pdf(found) and first.startswith(b"%PDF")
        assert first != as_pdf(statement(ledger, "project:thesis", MONTH, now=AFTER))

    def test_any_name_and_any_length_fits(self, ledger):
        pytest.importorskip("reportlab", reason="reportlab is absent")
        found = full(ledger)
        strange = tuple(replace(found.lines[0], key="k" * 64, project="p" * 64,
                                model=f"<b>&{chr(0x4e00 + i)}{'m' * 100}") for i in range(30))
        many = as_pdf(replace(found, lines=strange, sources=("s" * 3000, "<i>")))
        assert many.count(b"/Type /Page\n") > 1

    def test_an_empty_month_is_a_page(self, ledger):
        pytest.importorskip("reportlab", reason="reportlab is absent")
        empty = statement(ledger, "organisation:default", MONTH, now=AFTER)
        assert as_pdf(empty).count(b"/Type /Page\n") == 1 and len(rows(empty)) == 1


@pytest.mark.parametrize(("usd", "like", "text"), [
    (0.0, 0.01, "$0.000000"), (2.47e-7, 0.01, "<$0.000001"), (0.0004, 20.0, "<$0.01"),
    (-3e-9, None, ">-$0.000001"), (0.5, None, "$0.5000"), (12.0, None, "$12.00")])
def test_a_small_sum_is_not_nothing(usd, like, text):
    assert shown_usd(usd, like) == text

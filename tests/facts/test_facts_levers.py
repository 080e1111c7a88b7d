from __future__ import annotations

import pytest

from curbcut.errors import UnknownName
from curbcut.facts import levers
from curbcut.plan.levers.catalogue import TRAINING, chosen
from curbcut.plan.levers.serving import SERVING
from curbcut.spec.methods import CATALOGUE

METHODS = {method.name: method for method in CATALOGUE}
HEADER = "lever,factor,low,high,quote,kind,prices,source,date\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path))
    levers._by_lever.cache_clear()

    def write(*lines):
        (tmp_path / "levers.csv").write_text(HEADER + "\n".join(lines) + "\n")
        levers._by_lever.cache_clear()

    return write


@pytest.mark.parametrize("row", levers.rows(), ids=lambda row: f"{row.lever}: {row.quote[:30]}")
def test_each_row_is_of_a_method_and_says_what_it_is_of(row):
    assert row.lever in METHODS
    assert row.quote and row.source and row.date
    assert row.kind in levers.KINDS and row.resource in levers.RESOURCES
    assert (row.factor is None) == (row.low is None) == (row.high is None)
    assert row.factor is not None or not row.prices
    assert row.factor is None or row.factor > 0


def test_one_row_at_most_prices_a_lever():
    pricing = [row.lever for row in levers.rows() if row.prices]
    assert len(pricing) == len(set(pricing))
    for name in pricing:
        assert levers.pricing(name).lever == name


def test_where_the_literature_and_an_end_to_end_measurement_differ_both_stand_there():
    fp8 = levers.evidence("fp8")
    speed = next(row for row in fp8 if row.kind == "throughput")
    whole = next(row for row in fp8 if row.kind == "end-to-end")
    assert (speed.factor, whole.factor) == (1.28, 1.045)
    muon = {row.kind: row.factor for row in levers.evidence("muon") if row.factor}
    assert muon["claim"] == 2 and levers.evidence("muon")[0].low == 1.1


def test_a_method_quotes_its_gain_from_the_same_rows():
    method = METHODS["fp8"]
    for row in levers.evidence("fp8"):
        assert row.quote in method.gain and row.source in method.source
    assert METHODS["cosine-schedule"].gain == METHODS["cosine-schedule"].source == ""


def test_every_lever_is_a_method():
    for lever in (*TRAINING, *SERVING):
        assert lever.name in METHODS


def test_an_unpriced_lever_names_the_nearest():
    with pytest.raises(UnknownName, match="growth"):
        levers.pricing("grwth")


def test_a_row_of_ones_own_prices_in_place_of_ours(own):
    own("growth,1.3,1.2,1.4,our own run,end-to-end,yes,my ledger,2026-11-01")
    found = levers.pricing("growth")
    assert (found.factor, found.low, found.source) == (1.3, 1.2, "my ledger")
    assert len(levers.evidence("growth")) == 3


def test_a_row_out_of_order_is_refused_with_its_place(own):
    own("growth,1.3,1.4,1.5,our own run,end-to-end,yes,my ledger,2026-11-01")
    with pytest.raises(Exception, match=r"levers.csv, line 2.*not in order"):
        levers.pricing("growth")


def test_a_row_of_no_method_names_the_nearest(own):
    own("data-qualityy,2,1,2,mine,end-to-end,yes,me,2026-01-01")
    with pytest.raises(UnknownName, match="data-quality"):
        chosen([])

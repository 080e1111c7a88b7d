from __future__ import annotations

import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.facts import capability


def test_records_are_dated_sourced_and_in_order():
    found = capability.records()
    by_task: dict[str, list] = {}
    for one in found:
        assert one.value > 0 and one.source and one.what and one.included
        by_task.setdefault(one.task, []).append(one)
    for records in by_task.values():
        days = [one.day for one in records]
        assert days == sorted(days) and len(records) >= 2
        assert len({(one.what, one.unit) for one in records}) == 1


def test_rates_have_an_interval_and_a_source():
    halving = capability.rate("algorithmic_halving")
    assert halving.low < halving.value < halving.high and halving.unit == "months"
    assert "2403.05812" in halving.source
    with pytest.raises(UnknownName, match="algorithmic_halving"):
        capability.rate("algorithmic_halvin")


@pytest.mark.parametrize(("row", "said"), [
    ("x,goal,March,1,usd,,all,me,2026", "no day"),
    ("x,goal,2026-01-01,0,usd,,all,me,2026", "above 0"),
    ("x,goal,2026-01-01,1,eur,,all,me,2026", "eur")])
def test_a_users_bad_row_is_named(tmp_path, monkeypatch, row, said):
    (tmp_path / "capability.csv").write_text(
        f"task,what,day,value,unit,machine,included,source,date\n{row}\n")
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path))
    with pytest.raises(InputError, match=said):
        capability.records()

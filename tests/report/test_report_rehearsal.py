from __future__ import annotations

from io import StringIO

from rich.console import Console

from curbcut.report.rehearsal import change, print_change
from curbcut.spec import Account, Estimate, modelled, unknown


def account(seconds, peak=None, source="operations"):
    return Account(seconds={"total": modelled(seconds, 2.0, source),
                            "steps": modelled(seconds, 2.0, source)},
                   memory_bytes={} if peak is None else {"peak": modelled(peak, 1.25, "")},
                   usd={"total": unknown("no price")})


def test_a_line_says_what_it_was_what_it_is_and_by_how_much():
    first, = change(account(100.0), account(150.0))
    assert "1.67 min (50.0 s to 3.33 min) -> 2.50 min" in first
    assert first.endswith("(+50%)")


def test_only_what_both_know_is_compared():
    assert len(change(account(100.0, 2e9), account(100.0, 3e9))) == 2
    assert len(change(account(100.0), account(100.0, 3e9))) == 1
    assert change(Account(), account(1.0)) == []


def test_it_ends_with_who_taught_it():
    out = StringIO()
    print_change(account(100.0), account(120.0, source="corrected by 1 measured run"),
                 Console(file=out, width=200))
    assert out.getvalue().splitlines()[-1].strip() == "corrected by 1 measured run"
    assert isinstance(account(1.0).usd["total"], Estimate)

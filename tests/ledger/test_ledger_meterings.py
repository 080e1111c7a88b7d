from __future__ import annotations

import pytest

from curbcut.errors import UnknownName
from curbcut.ledger.meterings import Metering, record_meterings, sum_meterings


def line(**given):
    return Metering(**{"server": "s1", "model": "tiny", "kind": "requests", "start": 0.0,
                       "end": 60.0, "seconds": 12.5, "millijoules": 1000, "cost_nanousd": 5,
                       "kgco2e": 0.25, "basis": "measured", "source": "counter"} | given)


def test_a_line_belongs_to_the_time_at_which_it_starts(ledger):
    later = line(start=60.0, end=120.0, millijoules=None, cost_nanousd=None, kgco2e=None)
    record_meterings(ledger, [later, line()])
    first, second = sum_meterings(ledger, 0.0, 60.0)[0], sum_meterings(ledger, 60.0)[0]
    assert (first.lines, first.millijoules, first.cost_nanousd) == (1, 1000, 5)
    assert (second.lines, second.millijoules, second.kgco2e) == (1, None, None)
    record_meterings(ledger, [])


def test_sums_are_by_model_kind_and_basis(ledger):
    record_meterings(ledger, [
        line(), line(), line(kind="idle", model="", millijoules=None),
        line(kind="correction", millijoules=-3, seconds=0.0), line(basis="modelled")])
    sums = {(one.model, one.kind, one.basis): one for one in sum_meterings(ledger)}
    both = sums["tiny", "requests", "measured"]
    assert (both.lines, both.seconds, both.millijoules, both.kgco2e) == (2, 25.0, 2000, 0.5)
    idle = sums["", "idle", "measured"]
    assert (idle.millijoules, idle.without_millijoules) == (None, 1)
    assert sums["tiny", "correction", "measured"].millijoules == -3
    assert sums["tiny", "requests", "modelled"].lines == 1
    assert sum_meterings(ledger, 1.0) == []


def test_a_kind_that_is_none_is_refused_and_nothing_is_written(ledger):
    with pytest.raises(UnknownName, match="requests"):
        record_meterings(ledger, [line(), line(kind="request")])
    assert sum_meterings(ledger) == []

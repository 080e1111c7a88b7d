from __future__ import annotations

from dataclasses import replace
from io import StringIO

from rich.console import Console

from curbcut.plan.calibration import Correction, correction
from curbcut.report.learned import SHOWN, lines, print_learned
from plan.plan_samples import CPU, pair
from tiny import tiny_run

RUN = tiny_run(machine=CPU, recipe={"stack_version": "2.13.0"})


def test_constants_are_named_with_factor_and_interval_most_moved_first():
    learned = correction(CPU, "fp32", [pair(RUN, 2.0), pair(RUN, 2.1)])
    head, *moved = lines(RUN, learned)
    assert head == "2 measured runs of torch 2.13.0 on AMD EPYC taught the next plan:"
    assert len(moved) <= SHOWN
    assert moved[0].split()[:2] == ["launch_seconds", "x"]
    factor, low, high = (float(moved[0].split()[at].strip("()")) for at in (2, 3, 5))
    assert low < factor < high
    assert factor > 1.3


def test_nothing_learned_says_nothing():
    assert lines(RUN, Correction()) == []
    out = StringIO()
    print_learned(replace(RUN, name="other"), Correction(), Console(file=out))
    assert out.getvalue() == ""

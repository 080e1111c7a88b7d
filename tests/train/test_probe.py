from __future__ import annotations

import pytest

from curbcut.errors import InputError
from curbcut.meter.clock import SystemClock
from curbcut.train import probe
from tiny import tiny_run


def test_candidates_divide_the_global_batch():
    assert probe.candidates(tiny_run(recipe={"global_batch": 12, "micro_batch": 1})) == [12, 6, 3]


def test_rates_are_of_whole_steps_by_micro_batch():
    run = tiny_run()
    rates = probe.step_rates(run, SystemClock(), seconds=0.3)
    assert sorted(rates) == [1, 2, 4]
    assert all(rate > 0 for rate in rates.values())


class Ticks:
    """A clock of which each look takes one second."""

    def __init__(self):
        self.looks = 0

    def seconds(self):
        self.looks += 1
        return float(self.looks)


def test_the_rate_counts_every_pass_and_one_update():
    # On this clock a pass and an update take one second each: 4 sequences of 32 tokens in
    # micro-batches of one are four passes and one update.
    rates = probe.step_rates(tiny_run(), Ticks(), seconds=0.0)
    assert rates == pytest.approx({4: 128 / 2, 2: 128 / 3, 1: 128 / 5})


def test_each_update_that_is_timed_has_gradients_to_move_by(monkeypatch):
    seen = []
    step = probe.optimiser.Updater.step

    def watched(updater, rate):
        seen.append(all(m.grad is not None for m in updater.masters.values()))
        step(updater, rate)

    monkeypatch.setattr(probe.optimiser.Updater, "step", watched)
    probe.step_rates(tiny_run(recipe={"precision": "bf16"}), SystemClock(), seconds=0.1)
    assert len(seen) > 3 and all(seen)


def test_a_candidate_that_does_not_fit_is_left_out(monkeypatch):
    def crowded(model, weights, run, device):
        if run.recipe.micro_batch > 1:
            raise MemoryError

    monkeypatch.setattr(probe, "_pass", crowded)
    monkeypatch.setattr(probe, "_update", lambda *_args: None)
    assert list(probe.step_rates(tiny_run(), SystemClock(), seconds=0.01)) == [1]


def test_when_nothing_fits_it_says_so(monkeypatch):
    def crowded(*_args):
        raise MemoryError

    monkeypatch.setattr(probe, "_pass", crowded)
    with pytest.raises(InputError, match="smallest micro-batch"):
        probe.step_rates(tiny_run(), SystemClock(), seconds=0.01)

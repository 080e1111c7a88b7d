"""The circle of serving: what sessions in a ledger measured moves the next plan and promise."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from curbcut.cli.main import main
from curbcut.cli.serve import _promise
from curbcut.ledger import open_ledger
from curbcut.plan.serving import forecast_session
from curbcut.plan.serving_calibration import learned
from curbcut.serve.bench.lengths import Asking, Lengths
from curbcut.serve.bench.load import Closed
from curbcut.serve.bench.promise import as_asked, forecast, record
from curbcut.serve.bench.result import Objective, Sample, result
from curbcut.serve.engine.interface import Stats
from curbcut.serve.measure import account
from curbcut.spec import Resolved, measured, toml
from tiny import tiny_run

RUN = replace(tiny_run(), serve=replace(tiny_run().serve, ttft_seconds=5.0, tpot_seconds=5.0,
                                        requests_per_second=0.01))
ASKING = Asking(1, Lengths(RUN.serve.prompt_tokens), Lengths(RUN.serve.output_tokens))
SLOW = 3.0
"""Times the promise that the made-up bench took."""


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / RUN.name).mkdir(parents=True)
    (tmp_path / "run.toml").write_text(toml.dumps(Resolved(RUN, {})))
    with open_ledger(tmp_path / "runs" / "ledger.sqlite") as ledger:
        ledger.record_run(Resolved(RUN, {}))
    return tmp_path


def measure(ledger, users=1):
    """A bench whose every answer was slower than promised."""
    load = Closed(users)
    asked = as_asked(RUN, ASKING, load)
    promised = forecast(asked, load)
    first, each = (SLOW * promised.seconds[kind].value for kind in ("ttft", "tpot"))
    tokens, prompt = RUN.serve.output_tokens, RUN.serve.prompt_tokens
    whole = first + each * (tokens - 1)
    samples = [Sample(n * whole, 0.0, (n + 1) * whole, "", prompt, 0, tokens, "usage", first, each)
               for n in range(8)]
    record(ledger, RUN, [(asked, promised)],
           [result(str(load), samples, Objective(), measured(9.0, "a sensor"))])
    return asked, promised


def test_a_bench_moves_the_next_promise_of_the_same_load(runs):
    with open_ledger(runs / "runs" / "ledger.sqlite") as ledger:
        asked, before = measure(ledger)
        after = forecast(asked, Closed(1), ledger.pairs(step="bench"))
    for kind in ("ttft", "tpot"):
        moved = after.seconds[kind].value / before.seconds[kind].value
        assert 1.5 < moved < 1.05 * SLOW
        assert after.seconds[kind].contains(SLOW * before.seconds[kind].value)
    assert after.joules_per_token["answer"].value > 1.5 * before.joules_per_token["answer"].value


def test_a_bench_moves_the_plan_and_what_serve_promises(runs, capsys):
    def planned():
        assert main(["plan", "run.toml", "--serving", "--json"]) == 0
        ways = json.loads(capsys.readouterr().out)["ways"]
        return next(way["tpot"]["value"] for way in ways if way["precision"] == "fp32"
                    and way["serve"]["weight_precision"] == way["serve"]["cache_precision"]
                    == "same")

    def promised(ledger):
        _promise(ledger, RUN)
        return ledger.account(RUN.name, "serve", "forecast").seconds["tpot"].value

    with open_ledger(runs / "runs" / "ledger.sqlite") as ledger:
        plan, promise = planned(), promised(ledger)
        measure(ledger)
        assert planned() > 1.3 * plan
        assert promised(ledger) > 1.5 * promise


def test_counted_drafts_are_believed_over_what_the_run_says(runs):
    drafting = replace(RUN, serve=replace(RUN.serve, drafted_tokens=3, acceptance=0.9))
    stats = Stats(requests=4, prompt_tokens=100, answer_tokens=400, drafted_tokens=600,
                  accepted_tokens=150, decode_tokens=396, first_tokens=4,
                  first_token_seconds=0.1, next_token_seconds=2.0, prefill_seconds=0.1,
                  decode_seconds=2.0)
    with open_ledger(runs / "runs" / "ledger.sqlite") as ledger:
        ledger.record_run(Resolved(drafting, {}))
        _promise(ledger, drafting)
        hopeful = ledger.account(RUN.name, "serve", "forecast").seconds["tpot"]
        ledger.record_account(RUN.name, "serve", "measured", account(stats, 3.0, run=drafting))
        lesson = learned(RUN.machine, "fp32", ledger.pairs(step="serve"))
        # 150 accepted in 250 steps: 0.6 = a + a^2 + a^3
        assert lesson.accepted.value == pytest.approx(0.389, abs=0.002)
        assert 0.3 < lesson.accepted.low < 0.35 < 0.43 < lesson.accepted.high < 0.5
        assert lesson.accepting(drafting).serve.acceptance == lesson.accepted.value
        assert "250 steps" in lesson.accepted.source
        each = forecast_session(lesson.accepting(drafting)).seconds["tpot"].value
        assert each > 1.3 * hopeful.value

from dataclasses import replace

import pytest

from curbcut.ledger import open_ledger
from curbcut.plan.served import under_load
from curbcut.serve.bench.lengths import Asking, Lengths
from curbcut.serve.bench.load import Closed, Open
from curbcut.serve.bench.promise import STEP, account, as_asked, forecast, metering, record
from curbcut.serve.bench.result import Objective, Sample, result
from curbcut.spec import Account, Resolved, measured
from tiny import tiny_machine, tiny_run

ASKING = Asking(1, Lengths(30), Lengths(8, 12), shared=0.5)


def found(users=2):
    return result(f"{users} users", [Sample(n, 0.0, n + 1.0, "", 30, 15, 10, "usage", 0.2, 0.05)
                                     for n in range(4)], Objective(), measured(80.0, "a sensor"))


def test_a_run_is_asked_with_the_traffic_of_the_bench():
    job = as_asked(tiny_run(), ASKING, Open(2, 4)).serve
    assert (job.prompt_tokens, job.output_tokens, job.prefix_hit_rate) == (30, 10, 0.5)
    assert job.requests_per_second == 3


def test_an_open_loop_is_promised_what_the_plan_says_of_its_rate():
    run = as_asked(tiny_run(), ASKING, Open(1))
    plan, mine = under_load(run), forecast(run, Open(1))
    assert mine.seconds == plan.seconds
    assert mine.tokens_per_second["answers"] == plan.tokens_per_second["answers"]


def test_more_users_wait_longer_and_get_more_until_the_batch_is_full():
    run = as_asked(tiny_run(), ASKING, Closed(1))
    run = replace(run, serve=replace(run.serve, max_batch=4))
    plans = [forecast(run, Closed(users)) for users in (1, 4, 16)]
    firsts = [plan.seconds["ttft"].value for plan in plans]
    assert firsts == sorted(firsts) and firsts[2] > 2 * firsts[1]
    one, four, many = (plan.tokens_per_second["answers"].value for plan in plans)
    assert one < four and many == pytest.approx(four, rel=0.2)
    for plan in plans:
        rate = plan.tokens_per_second["answers"]
        assert rate.low < rate.value < rate.high


def test_a_machine_without_a_rate_promises_nothing_and_says_why():
    run = as_asked(tiny_run(machine=tiny_machine(measured_flops={})), ASKING, Closed(1))
    assert forecast(run, Closed(1)).seconds["ttft"].value is None


def test_what_was_measured_has_the_kinds_of_the_promise():
    run = as_asked(tiny_run(), ASKING, Closed(2))
    mine = account(found())
    kinds = {line[:2] for line in mine.lines()}
    assert {line[:2] for line in forecast(run, Closed(2)).lines()} <= kinds
    assert mine.seconds["ttft"].value == 0.2 and mine.tokens["answer"].value == 40
    assert mine.joules_per_token["answer"].value == 2
    assert account(result("1 user", [Sample(0, 0, 1, "x")], Objective())).seconds[
        "ttft"].value is None


def test_the_ledger_has_each_load_with_its_traffic_and_the_run_as_it_was(tmp_path):
    run = tiny_run()
    asked = [as_asked(run, ASKING, Closed(users)) for users in (1, 2)]
    asked[1] = replace(asked[1], serve=replace(asked[1].serve, max_batch=3))
    promised = [(one, forecast(one, Closed(1))) for one in asked]
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.record_run(Resolved(run, {}))
        ledger.record_account(run.name, "train", "measured", Account(
            seconds={"total": measured(3.0, "a clock")}))
        record(ledger, run, promised, [found(1), found(2)])
        assert ledger.resolved(run.name).run == run and ledger.steps(run.name) == ["train"]
        pairs = ledger.pairs(step=STEP)
    assert len(pairs) == 2
    for plain, plan, mine in pairs:
        assert plain["serve"]["prompt_tokens"] == 30
        assert plain["serve"]["requests_per_second"] == 1.0
        assert plan.seconds["ttft"].value and mine.seconds["tpot"].value == 0.05


def test_without_sensors_joules_are_modelled_and_say_so(monkeypatch):
    monkeypatch.setenv("CURBCUT_SENSORS", "off")
    run = tiny_run()
    joules = metering(run.machine, run.place)(0.0)
    assert joules.basis == "modelled" and "modelled watts" in joules.source

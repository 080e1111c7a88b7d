"""From a request over HTTP to its joules in the ledger, in /metrics and in a statement."""

from functools import partial

import httpx
import pytest

from curbcut.ledger import access, meterings, open_ledger
from curbcut.ledger.usage import used
from curbcut.papers.statement import statement
from curbcut.serve.gateway.till import Till
from curbcut.serve.metering import open_meter, tariff
from curbcut.serve.metrics import Metrics
from curbcut.serve.server import serving
from curbcut.spec import Place
from exposed import parsed
from tiny import tiny_run

RUN = tiny_run(place=Place(zone="FRA", tenure="rent", usd_per_accelerator_hour=2.0))
ASK = {"model": "tiny", "prompt": "abcdef", "max_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module")
def served(folder, tmp_path_factory):
    """The ledger after two requests of ann (one streamed) and one of bob, and the metrics then."""
    path = tmp_path_factory.mktemp("metered") / "ledger.sqlite"
    with open_ledger(path) as ledger:
        keys = {name: access.issue_key(ledger, name, actor="test") for name in ("ann", "bob")}
        seer = access.issue_key(ledger, "seer", role="operator", actor="test")
        till = Till(ledger, {"tiny": tariff("tiny", RUN)}.get)
        meter = open_meter({"tiny": RUN}, server=till.server,
                           record=partial(meterings.record_meterings, ledger))
        with meter, serving(folder, name="tiny", verify=partial(access.verify, ledger), till=till,
                            meter=meter, metrics=Metrics(
                                meter.joules, where=meter.where)) as session:
            for name, more in (("ann", {}), ("ann", {"stream": True}), ("bob", {"n": 3})):
                answer = httpx.post(f"{session.url}/v1/completions", json=ASK | more, timeout=60,
                                    headers={"Authorization": f"Bearer {keys[name]}"})
                assert answer.status_code == 200, answer.text
            text = httpx.get(f"{session.url}/metrics",
                             headers={"Authorization": f"Bearer {seer}"}).text
        till.close()
        yield ledger, text


def test_each_use_has_its_joules_and_its_cost(served):
    found = {one.key: one for one in used(served[0], by=("key",))}
    assert found["ann"].requests == 2 and found["bob"].requests == 1
    for one in found.values():
        assert one.unmetered == one.uncosted == one.uncharged == 0
        assert one.millijoules > 0 and one.engine_seconds > 0
        assert dict(one.by_basis) == {"modelled": one.millijoules}
    assert found["ann"].charged_nanousd > 0


def test_lines_add_up_to_the_uses(served):
    ledger, _ = served
    lines = meterings.sum_meterings(ledger)
    settled = [line for line in lines if line.kind == "requests"]
    uses = used(ledger, by=())[0]
    assert sum(line.millijoules for line in settled) == uses.millijoules
    assert sum(line.cost_nanousd for line in settled) == uses.cost_nanousd
    assert {line.model for line in settled} == {"tiny"}
    assert "idle" in {line.kind for line in lines}


def test_metrics_tell_the_same_by_key(served):
    ledger, text = served
    found = parsed(text)
    charged = {dict(key[1:])["key"]: value for key, value in found.items()
               if key[0] == "curbcut_charged_usd_total"}
    assert charged == {one.key: pytest.approx(one.charged_nanousd / 1e9)
                       for one in used(ledger, by=("key",))}
    assert found["curbcut_joules_per_answer_token", ("model", "tiny")] > 0
    assert found["curbcut_gco2e_per_million_answer_tokens", ("model", "tiny")] > 0


def test_the_statement_is_of_the_same_joules(served):
    ledger, _ = served
    found = statement(ledger, "organisation:default")
    assert found.total.kwh_measured is None
    assert found.total.kwh_modelled == pytest.approx(used(ledger, by=())[0].millijoules / 3.6e9)
    assert found.total.gco2e > 0 and 0 < found.idle_share < 1
    assert any("no energy sensor" in source for source in found.sources)

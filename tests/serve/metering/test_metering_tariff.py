"""What tokens cost where nobody has set a price."""

from dataclasses import replace

import pytest

from curbcut.serve.engine.interface import StepRecord
from curbcut.serve.metering import open_meter, rates, tariff
from curbcut.spec import Place
from tiny import tiny_machine, tiny_run

RENTED = tiny_run(place=Place(tenure="rent", usd_per_accelerator_hour=2.0))


def test_a_price_is_the_plans_upper_end_and_says_so():
    found = tariff("tiny", RENTED)
    assert found.model == "tiny" and found.basis == "modelled" and "upper end" in found.source
    assert 0 < found.cached_nanousd <= found.prompt_nanousd <= found.output_nanousd
    assert 0 < found.prompt_millijoules < found.output_millijoules
    half = tariff("tiny", replace(RENTED, place=replace(
        RENTED.place, usd_per_accelerator_hour=1.0)))
    assert half.output_nanousd == pytest.approx(found.output_nanousd / 2, rel=0.01)


def test_company_makes_tokens_cheaper_and_ceilings_stay():
    alone = tariff("tiny", replace(RENTED, serve=replace(RENTED.serve, max_batch=1)))
    many = tariff("tiny", replace(RENTED, serve=replace(RENTED.serve, max_batch=32)))
    assert many.output_nanousd < alone.output_nanousd
    assert many.output_millijoules == alone.output_millijoules


def test_ceilings_hold_what_the_plans_own_steps_take():
    """A request that is served as fast as the upper end says is never charged beyond its hold."""
    price, job = tariff("tiny", RENTED), RENTED.serve
    from curbcut.physics.serving import decode_seconds, prefill_seconds
    how = (RENTED.model, RENTED.machine, "fp32")
    meter = open_meter({"tiny": RENTED})
    meter.on_step("tiny", StepRecord(
        prefill_seconds(*how, job.prompt_tokens).high, {1: job.prompt_tokens}, {}))
    step = decode_seconds(*how, 1, job.prompt_tokens + job.output_tokens // 2).high
    for _ in range(job.output_tokens - 1):
        meter.on_step("tiny", StepRecord(step, {}, {1: 1}))
    meter._told = type(meter._told)(
        (model, record, meter._started + place) for place, (model, record, _) in enumerate(
            meter._told))
    share = meter.take("tiny", [1])
    assert share.millijoules <= price.most(job.prompt_tokens, job.output_tokens).millijoules
    assert share.cost_nanousd <= price.most(job.prompt_tokens, job.output_tokens).nanousd * (
        job.max_batch)


@pytest.mark.parametrize("run", [
    tiny_run(machine=tiny_machine(measured_flops={})),
    tiny_run(place=Place(tenure="rent")),
    replace(RENTED, serve=replace(RENTED.serve, tensor_parallel=2))],
    ids=["no rate", "no rent", "no such layout"])
def test_what_is_not_known_has_no_price(run):
    assert tariff("tiny", run) is None


def test_rates_leave_people_out_and_rent_holds_energy():
    place = Place(tenure="rent", usd_per_accelerator_hour=3.6, staff_fte=2.0)
    found = rates.of(tiny_machine(), place)
    assert found.usd_per_second == pytest.approx(0.001) and found.usd_per_kwh == 0
    assert found.nanousd(None, 2.0) == 2_000_000 and found.kgco2e(None, 2.0) is None
    own = rates.of(tiny_machine(), Place(pue=2.0, usd_per_kwh=0.36))
    assert own.nanousd(3.6e6, 0.0) == pytest.approx(0.72e9) and own.nanousd(None, 1.0) is None

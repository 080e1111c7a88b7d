"""What tokens of a run's model are to cost where nobody has set a price: by the plan's forecast."""

from __future__ import annotations

import math
from dataclasses import replace

from curbcut.accounts.energy import JOULES_PER_KWH, device_watts
from curbcut.errors import InputError
from curbcut.ledger.amounts import MILLIJOULES_PER_KWH
from curbcut.ledger.prices import MILLION, Price
from curbcut.physics import serving
from curbcut.plan.serving import drafter, engine
from curbcut.serve.metering import rates
from curbcut.spec.estimate import Estimate
from curbcut.spec.nouns import Run


def tariff(name: str, run: Run) -> Price | None:
    """The price of a model called `name`; None where its speed or the machine's price is not known.

    Money: the upper end of what the run's own prompts and answers are forecast to take of the
    machine, half of `max_batch` answers together. Joules, which holds need as ceilings: the upper
    end for an answer that is alone. Both of the devices and the time that a meter would give.
    """
    try:
        found = _seconds(run)
    except InputError:  # degrees that do not go with the machine
        return None
    money = rates.of(run.machine, replace(run.place, staff_fte=0.0))
    watts = device_watts(run.machine)
    if found is None or money.usd_per_second is None:
        return None
    prompt, cached, together, alone = found

    def nanousd(seconds: float) -> int | None:
        return money.nanousd(None if watts.high is None else watts.high * seconds, seconds)

    def ceiling(seconds: float) -> int | None:
        return None if watts.high is None else math.ceil(
            watts.high * seconds * MILLIJOULES_PER_KWH / JOULES_PER_KWH)

    prices = [nanousd(seconds * MILLION) for seconds in (prompt, cached, together)]
    if None in prices:
        return None
    fresh, remembered, output = (int(usd or 0) for usd in prices)
    job = run.serve
    return Price(
        model=name, prompt_nanousd=fresh, cached_nanousd=min(fresh, remembered),
        output_nanousd=output, prompt_millijoules=ceiling(prompt * MILLION),
        output_millijoules=ceiling(alone * MILLION), basis="modelled",
        source=f"the plan's upper end for {job.prompt_tokens} + {job.output_tokens} tokens, "
               f"{_company(run)} together; {money.source}"[:500])


def _company(run: Run) -> int:
    return max(1, run.serve.max_batch // 2)


def _seconds(run: Run) -> tuple[float, float, float, float] | None:
    """Seconds of one prompt token, one remembered one, and one answer token, in company and alone:
    each the upper end of its interval, of all of the machine; None where no rate is known.
    """
    job, cut = run.serve, engine(run)
    how = (run.model, run.machine, run.recipe.precision)
    context = job.prompt_tokens + job.output_tokens // 2
    read = serving.prefill_seconds(*how, job.prompt_tokens, cut)
    again = serving.prefill_seconds(*how, job.prompt_tokens, cut, job.prompt_tokens - 1)
    steps = {batch: serving.decode_seconds(*how, batch, context, cut, job.drafted_tokens,
                                           drafter(run)) for batch in (1, _company(run))}
    if read.value is None:
        return None
    return (_high(read) / job.prompt_tokens, _high(again) / job.prompt_tokens,
            _high(steps[_company(run)]) / _company(run), _high(steps[1]))


def _high(estimate: Estimate) -> float:
    assert estimate.high is not None
    return estimate.high

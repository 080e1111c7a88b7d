"""What a training measured, as the same `Account` that promised it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from curbcut.accounts.carbon import carbon
from curbcut.accounts.energy import JOULES_PER_KWH, device_watts, energy
from curbcut.accounts.money import money
from curbcut.accounts.water import litres
from curbcut.meter.memory import cuda_peak_bytes, peak_bytes
from curbcut.physics import power
from curbcut.physics.flops import hardware_flops_per_token, model_flops_per_token
from curbcut.spec import Account, Estimate, Machine, measured, unknown
from curbcut.spec.nouns import Precision
from curbcut.train.session import Session

CLOCK = "clock of the training process"
COUNT = "counted by the training process"


def measured_account(session: Session) -> Account:
    """The account of all attempts of a run so far. What no sensor saw has no value."""
    run, recipe = session.run, session.run.recipe
    seconds = _seconds(session)
    steps_seconds, total = session.seconds.get("steps", 0.0), seconds["total"]
    flops = model_flops_per_token(run.model, recipe.sequence_tokens) * session.tokens
    executed = hardware_flops_per_token(run.model, recipe) * session.tokens
    modelled = energy(run.machine, run.place, total, recipe, power.of_run(run))
    kwh = _sensed(session)
    facility = kwh["facility"] if kwh["facility"].known else modelled["facility"]
    rate = session.tokens / steps_seconds if steps_seconds else None
    return Account(
        seconds=seconds,
        tokens={"trained": measured(session.tokens, COUNT)},
        flops={"model": measured(flops, f"{COUNT}; exact count of the shape"),
               "hardware": measured(executed, f"{COUNT}; exact count of the recipe")},
        tokens_per_second={"steps": _or_unknown(rate, CLOCK)},
        mfu={"run": _utilisation(flops, steps_seconds, run.machine, recipe.precision)},
        hfu={"run": _utilisation(executed, steps_seconds, run.machine, recipe.precision)},
        goodput={"run": _or_unknown(_share(steps_seconds, session.total_seconds), CLOCK)},
        memory_bytes=_memory(session),
        watts={"device": _watts(session)},
        kwh=kwh, kwh_modelled=modelled,
        joules_per_token={"training": facility.scaled(JOULES_PER_KWH / session.tokens)
                          if session.tokens else unknown("no token was trained")},
        usd=money(run.machine, run.place, total, facility),
        kgco2e=carbon(run.machine, run.place, total, facility),
        litres=litres(run.place, facility),
        loss=_loss(session))


def _seconds(session: Session) -> Mapping[str, Estimate]:
    booked = {kind: measured(s, CLOCK) for kind, s in sorted(session.seconds.items())}
    return {"total": measured(session.total_seconds, CLOCK), **booked}


def _memory(session: Session) -> Mapping[str, Estimate]:
    """What the tensors hold, and the peak of the whole process; the rest is not told apart."""
    weights, source = session.weights, "sum over tensors"
    held = {"parameters": _bytes(weights.compute.values())}
    sums = [p.grad for p in weights.masters.values() if p.grad is not None]
    if sums and weights.split:
        held["gradients"] = _bytes(sums) + held["parameters"]
    held["optimiser"] = _bytes(session.updater.tensors())
    if weights.split:
        held["optimiser"] += _bytes(weights.masters.values())
    peak = measured(cuda_peak_bytes() or peak_bytes(), "peak of the whole process")
    return {**{kind: measured(size, source) for kind, size in held.items()}, "peak": peak}


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _sensed(session: Session) -> Mapping[str, Estimate]:
    """Energy from sensors; without one, no value at any boundary."""
    if session.joules is None:
        missing = unknown("no energy sensor counted this run")
        return {"device": missing, "node": missing, "facility": missing}
    device = measured(session.joules / JOULES_PER_KWH, "energy counters")
    beyond = unknown("sensors see the device only")
    return {"device": device, "node": beyond, "facility": beyond}


def _watts(session: Session) -> Estimate:
    if session.joules is None or not session.total_seconds:
        instead = device_watts(session.run.machine).source
        return unknown(f"no energy sensor; modelled instead: {instead}")
    return measured(session.joules / session.total_seconds, "energy counters over the clock")


def _utilisation(flops: float, seconds: float, machine: Machine, precision: Precision) -> Estimate:
    """Model or hardware FLOPs over what the machine could do; unknown without a peak."""
    peak = machine.peak_flops.get(precision) or machine.measured_flops.get(precision)
    if not peak or not seconds:
        return unknown(f"no peak of {machine.accelerator} in {precision} is known")
    share = flops / seconds / (peak * machine.accelerators)
    basis = "vendor's peak" if machine.peak_flops.get(precision) else "probed matmul rate"
    if share > 1:
        # Never a figure above 100%, and never a finished run lost for want of one: a probe that
        # was taken while the machine was busy is too low.
        return unknown(f"{share:.0%} of the {basis} cannot be: run `curbcut doctor --again`")
    return measured(share, f"of the {basis}, {peak / 1e9:,.0f} GFLOP/s")


def _loss(session: Session) -> Mapping[str, Estimate]:
    source = "held-out text"
    return {"nats_per_token": _or_unknown(session.nats_per_token, source),
            "bits_per_byte": _or_unknown(session.bits_per_byte, source)}


def _or_unknown(value: float | None, source: str) -> Estimate:
    return unknown("not evaluated") if value is None else measured(value, source)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None

"""What a training measured, as the same `Account` that promised it.

Every second from the beginning of the first attempt to now is under one kind:

    start        until the first step: imports, building; and what the first steps took beyond the
                 usual, where they compile nothing
    compile      the same of a compiled model's first steps
    data         drawing batches
    steps        forward, backward, update: of steps that the weights have in them
    skipped      steps whose update was not applied
    replay       steps that were lost with an attempt that died, and were done again
    down         from the death of an attempt to the beginning of the next
    hang         beyond the usual, of a step that was held up, or until a hang was noticed
    straggler    what all ranks wait for one that was named as slow
    evaluation, checkpoint, other (export, observers, agreement of the ranks)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch.distributed.tensor import DTensor

from curbcut.accounts.carbon import carbon
from curbcut.accounts.energy import JOULES_PER_KWH, device_watts
from curbcut.accounts.money import money
from curbcut.accounts.water import litres
from curbcut.meter.memory import cuda_peak_bytes, peak_bytes
from curbcut.physics.flops import hardware_flops_per_token, model_flops_per_token
from curbcut.spec import Account, Estimate, Machine, measured, unknown
from curbcut.spec.nouns import Precision
from curbcut.train import charges
from curbcut.train.session import Session

CLOCK = "clock of the training process"
COUNT = "counted by the training process"
LOST = ("start", "compile", "replay", "down", "hang", "straggler")
"""Kinds of seconds that starting and faults cost."""


def measured_account(session: Session) -> Account:
    """The account of all attempts of a run so far. What no sensor saw has no value. Collective:
    memory is that of the fullest rank, energy that of all nodes, time the first rank's.
    """
    session.watch.lap()
    run, recipe = session.run, session.run.recipe
    steps = session.seconds.get("steps", 0.0)
    taken = steps + session.seconds.get("skipped", 0.0)
    flops = model_flops_per_token(run.model, recipe.sequence_tokens) * session.tokens
    executed = hardware_flops_per_token(run.model, recipe) * session.tokens
    charged = measured(charges.charged_seconds(session), CLOCK)
    kwh, modelled = _sensed(session), charges.modelled_kwh(run, charged)
    facility = kwh["facility"] if kwh["facility"].known else modelled["facility"]
    return Account(
        seconds=_seconds(session),
        tokens={"trained": measured(session.tokens, COUNT)},
        flops={"model": measured(flops, f"{COUNT}; exact count of the shape"),
               "hardware": measured(executed, f"{COUNT}; exact count of the recipe")},
        tokens_per_second={"steps": _or_unknown(_share(session.tokens, taken), CLOCK)},
        mfu={"run": utilisation(flops, taken, run.machine, recipe.precision)},
        hfu={"run": utilisation(executed, taken, run.machine, recipe.precision)},
        goodput=goodput(session),
        memory_bytes=_memory(session),
        watts={"device": _watts(session)},
        kwh=kwh, kwh_modelled=modelled,
        joules_per_token={"training": facility.scaled(JOULES_PER_KWH / session.tokens)
                          if session.tokens else unknown("no token was trained")},
        usd=money(run.machine, run.place, charged, facility),
        kgco2e=carbon(run.machine, run.place, charged, facility),
        litres=litres(run.place, facility),
        loss=_loss(session))


def goodput(session: Session) -> Mapping[str, Estimate]:
    """`run`: the share of all seconds that steps took which the weights have in them. `ettr`: the
    share that starting, faults and work done again left over (arXiv:2410.21680).
    """
    total = session.total_seconds
    lost = sum(session.seconds.get(kind, 0.0) for kind in LOST)
    return {"run": _or_unknown(_share(session.seconds.get("steps", 0.0), total), CLOCK),
            "ettr": _or_unknown(_share(total - lost, total), CLOCK)}


def _seconds(session: Session) -> Mapping[str, Estimate]:
    booked = {kind: measured(s, CLOCK) for kind, s in sorted(session.seconds.items())}
    return {"total": measured(session.total_seconds, CLOCK), **booked}


def _memory(session: Session) -> Mapping[str, Estimate]:
    """What the tensors hold, and the peak of the whole process; the rest is not told apart. Of
    each kind that of the rank which holds most.
    """
    weights = session.weights
    parameters = _bytes(weights.compute.values())
    sums = [p.grad for p in weights.masters.values() if p.grad is not None]
    gradients = _bytes(sums) + parameters if sums and weights.split else 0
    optimiser = _bytes(session.updater.tensors())
    if weights.split:
        optimiser += _bytes(weights.masters.values())
    held = {"parameters": parameters, "gradients": gradients, "optimiser": optimiser,
            "peak": cuda_peak_bytes() or peak_bytes()}
    most = dict(zip(held, session.world.most(list(held.values())), strict=True))
    whose = "" if session.world.alone else "; of the fullest rank"
    return {kind: measured(size, ("peak of the whole process" if kind == "peak"
                                  else "sum over tensors") + whose)
            for kind, size in most.items() if size or kind != "gradients"}


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    mine = (one.to_local() if isinstance(one, DTensor) else one for one in tensors)
    return sum(tensor.numel() * tensor.element_size() for tensor in mine)


def _sensed(session: Session) -> Mapping[str, Estimate]:
    """Energy from sensors; without one, or where they missed a stretch, no value at any boundary.
    """
    if session.joules is None:
        missed = session.unmetered_seconds
        why = (f"sensors missed {missed:,.0f} of {session.total_seconds:,.0f} s: a part is not "
               "the whole" if missed else "no energy sensor counted this run")
        missing = unknown(why)
        return {"device": missing, "node": missing, "facility": missing}
    device = measured(session.joules / JOULES_PER_KWH, "energy counters")
    beyond = unknown("sensors see the device only")
    return {"device": device, "node": beyond, "facility": beyond}


def _watts(session: Session) -> Estimate:
    if session.joules is None or not session.total_seconds:
        instead = device_watts(session.run.machine).source
        return unknown(f"no energy sensor; modelled instead: {instead}")
    return measured(session.joules / session.total_seconds, "energy counters over the clock")


def utilisation(flops: float, seconds: float, machine: Machine, precision: Precision) -> Estimate:
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

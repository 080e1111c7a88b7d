"""A meter for what a server is to serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from curbcut.meter.sensors import EnergySensor
from curbcut.serve.metering import rates, work
from curbcut.serve.metering.meter import Metered, Record, StepMeter
from curbcut.spec.nouns import Machine, Place, Run


def open_meter(runs: Mapping[str, Run | None], *, sensors: Sequence[EnergySensor] = (),
               server: str = "", record: Record | None = None, settles: bool = True,
               machine: Machine | None = None, place: Place | None = None) -> StepMeter:
    """A meter of the models that are served on this machine, by name; a model whose run is None is
    metered by its tokens. Models that answer elsewhere are left out: nothing is known of them.

    Machine and place are the first run's, else `here` at a default place. Raises UnknownName for a
    place that the facts do not have.
    """
    known = [run for run in runs.values() if run is not None]
    machine = machine or (known[0].machine if known else _here())
    place = place or (known[0].place if known else Place())
    models = {name: metered(run, machine) for name, run in runs.items()}
    return StepMeter(models, rates.of(machine, place), idle_watts=work.idle(machine),
                     sensors=sensors, server=server, record=record, settles=settles)


def metered(run: Run | None, machine: Machine) -> Metered:
    """One model on `machine`; without a run, of its work only the tokens are known."""
    if run is None:
        return Metered(work.plain(machine))
    return Metered(work.of_run(run), company=max(1.0, run.serve.max_batch / 2))


def _here() -> Machine:
    from curbcut.meter import here

    return here.machine()

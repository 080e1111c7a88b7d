"""Where a budget may be spent: accelerators in so many counts, with what a second of each costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from curbcut.accounts import energy
from curbcut.accounts.carbon import carbon, intensity
from curbcut.accounts.money import money
from curbcut.facts import accelerators, grid, levers
from curbcut.plan import machines, rules
from curbcut.plan.offers import second
from curbcut.spec.estimate import Estimate, given
from curbcut.spec.nouns import Machine, Place, Precision, Recipe

ANY = "any"
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Accelerators of a fleet where nobody says how many: whole nodes from 8 on."""
CLOUD = "cloud region"
NARROW: tuple[Precision, ...] = ("fp8",)
"""Precisions below 16 bits that are considered: with a measured speed in training, and a published
figure of what a token teaches at equal quality. Of finer ones only the loss is known."""


@dataclass(frozen=True, eq=False)
class Fleet:
    """One accelerator in one or more counts, all at one place on one contract."""

    machines: tuple[Machine, ...]
    place: Place
    rates: tuple[Mapping[str, Estimate], ...]
    """Of each machine: `usd`, `kwh`, `kgco2e` and `seconds` that a second of it costs."""
    precision: Precision | Literal[""] = ""
    """Of matmuls; "" for the rule's."""
    worth: Estimate = field(default_factory=lambda: given(1.0, "as the law's runs"))
    """What a token teaches in that precision, in tokens of the rule's."""

    @property
    def accelerator(self) -> str:
        """What it is made of."""
        return self.machines[0].accelerator


def fleet(found: Sequence[Machine], place: Place, power_limit: float = 1.0) -> Fleet:
    """The machines at a place, each accelerator held to so much of its rated power. Rates of many
    nodes follow those of two: all grow with the count.
    """
    priced: dict[int, Mapping[str, Estimate]] = {}

    def rates(machine: Machine) -> Mapping[str, Estimate]:
        nodes = min(machine.nodes, 2)
        size = nodes * machine.accelerators_per_node
        if size not in priced:
            priced[size] = rates_of(replace(machine, nodes=nodes), place, power_limit)
        return {name: one if name == "seconds" else one.scaled(machine.accelerators / size)
                for name, one in priced[size].items()}

    return Fleet(tuple(found), place, tuple(rates(machine) for machine in found))


def rates_of(machine: Machine, place: Place, power_limit: float = 1.0) -> Mapping[str, Estimate]:
    """What a second of training costs there, by `question.COSTS`."""
    capped = Recipe(sequence_tokens=1, micro_batch=1, global_batch=1, precision="bf16",
                    learning_rate=1.0, power_limit=power_limit)
    usd, kwh = second(machine, place, capped)
    one = given(1.0, "time")
    return {"usd": usd, "kwh": kwh, "kgco2e": carbon(machine, place, one, kwh)["total"],
            "seconds": one}


def any_machines() -> list[list[Machine]]:
    """Every accelerator of the facts in every count, an accelerator a list. One whose makers state
    no link between accelerators is offered up to a node of them.
    """
    found = []
    for one in accelerators.accelerators():
        if one.kind == "cpu" or not one.peak_flops:
            continue
        most = COUNTS[-1] if one.link_bytes_per_second else machines.PER_NODE
        found.append([machines.build(machines.from_facts(f"{count}x{one.id}"))
                      for count in COUNTS if count <= most])
    return found


def narrow(one: Fleet) -> list[Fleet]:
    """The fleet in each narrower precision whose speed was measured in training there, with what a
    token teaches in it as published. The rule's own precision is not among them.
    """
    machine, found = one.machines[0], []
    if machine.kind != "gpu" or rules.precision(machine)[0] != "bf16":
        return []
    for precision in NARROW:
        if not machine.peak_flops.get(precision):
            continue
        row = levers.pricing(precision)
        worth = Estimate(row.factor, row.low, row.high, "modelled",
                         f"a token in {precision} teaches {row.factor:g} of one in bf16 "
                         f"({row.source})")
        found.append(replace(one, precision=precision, worth=worth))
    return found


def slope(machine: Machine, place: Place) -> tuple[float, ...]:
    """What each of `question.COSTS` grows by a second where the accelerators draw the usual share
    once more: what they draw follows what the work keeps busy.
    """
    watts = energy.device_watts(machine).value or 0.0
    kwh = watts * (energy.pue(place).value or 1.0) / energy.JOULES_PER_KWH
    usd = 0.0 if place.tenure == "rent" else kwh * place.usd_per_kwh
    return usd, kwh, kwh * (intensity(place).value or 0.0), 0.0


def priced(fleets: Iterable[Fleet]) -> list[Fleet]:
    """Those whose money and energy are known; of accelerators that would be owned, those whose
    purchase is: energy alone would make the others look cheap.
    """
    return [one for one in fleets if one.rates[0]["usd"].known and one.rates[0]["kwh"].known
            and (one.place.tenure != "own" or _owned(one))]


def _owned(one: Fleet) -> bool:
    """Whether what owning it costs is known. Of a CPU at hand it never is, and its account says so.
    """
    machine, hour = one.machines[0], given(3600.0, "an hour")
    if machine.kind == "cpu":
        return True
    lines = money(machine, one.place, hour, given(0.0, "without energy"))
    return "ownership" in lines and lines["ownership"].known


def cleanest_zone(place: Place) -> str:
    """The zone of the least grid intensity: a cloud region for who rents, else a country."""
    kinds = (CLOUD,) if place.tenure == "rent" else ("country",)
    found = [one for one in grid.zones() if one.kind in kinds]
    return min(found, key=lambda one: (one.gco2e_per_kwh, one.zone)).zone

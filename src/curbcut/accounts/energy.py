"""Watts times seconds at three nested boundaries: device, node, facility.

*Device* is what computes (accelerators; for a CPU machine the cores and memory it may use): a share
of the rated power that follows what the operations keep busy (`physics.power`), where they are
known. *Node* adds the host that feeds accelerators. *Facility* multiplies by the building's PUE. A
published ratio of all equipment to accelerators holds network and storage, and perhaps cooling:
where it stands for the host, PUE is not multiplied on top of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from curbcut.accounts.convert import known
from curbcut.accounts.sheet import Sheet
from curbcut.facts import physics as named
from curbcut.physics import power, power_cap
from curbcut.physics.constants import family
from curbcut.physics.numbers import Number, larger, smaller
from curbcut.spec.estimate import Z90, Estimate, given, unknown
from curbcut.spec.nouns import Machine, Place, Recipe

JOULES_PER_KWH = 3.6e6
SAME = 0.01
"""A typical power so near to the default share of the rated power is that default."""
DEFAULT_PUES = ("pue_data_centre", "pue_hyperscaler")
PUE_DIGITS = 9
"""Digits of a PUE that count: far more than any meter tells, and so few that a factor just above 1
is not lost in rounding.
"""
"""Constants whose value a plan sets where nobody stated one: such a place has their interval."""
USUAL = power.Busy(compute=0.4, memory=0.2, link=0.1)
"""What a well-tuned training keeps busy: the work at which measured runs draw the usual share. The
power model was fitted to serving, where its level comes from; of training it says what differs."""
Around = Literal["host", "all equipment"]
"""What stands for the rest of a node: watts of a host, or a ratio that holds all equipment."""


def write(sheet: Sheet, machine: Machine, place: Place, recipe: Recipe | None = None,
          shares: power.Busy | None = None, seconds_key: str = "seconds.total", *,
          around: Around = "host") -> None:
    """Writes watts.device, watts.host and kwh.device, kwh.node, kwh.facility.

    Needs `seconds_key` on the sheet. `shares` is what the work keeps busy on average over that
    time; without it the share of the rated power that training draws in general is taken. A
    recipe's power limit lowers watts (`power_cap`); what it does to the seconds is theirs.
    """
    write_device(sheet, machine, recipe, shares)
    _kwh(sheet, machine, place, seconds_key, around)


def write_device(sheet: Sheet, machine: Machine, recipe: Recipe | None = None,
                 shares: power.Busy | None = None) -> None:
    """Writes watts.device of all accelerators, and the leaves that it follows from."""
    watts, count = machine.watts, machine.accelerators
    if _own_typical(machine) or (machine.kind == "cpu" and watts.get("typical")):
        sheet.leaf("power.accelerator", _own(machine), "watts")
        inputs, text = ["power.accelerator"], "accelerators x typical power"
    elif watts.get("max"):
        sheet.leaf("power.rated", given(watts["max"], f"rated power of {machine.accelerator}"),
                   "watts")
        sheet.leaf("power.share", _share(machine, shares), "fraction")
        inputs, text = ["power.rated", "power.share"], "accelerators x rated power x share drawn"
    elif machine.kind == "cpu" and machine.cores:
        _cpu(sheet, machine)
        return
    else:
        sheet.leaf("watts.device", unknown(f"no power of {machine.accelerator} is known",
                                           "default"), "watts")
        return
    if recipe is not None and recipe.power_limit < 1 and machine.kind != "cpu":
        _capped(sheet, machine, recipe, inputs, text)
        return
    sheet.formula("watts.device", text, inputs,
                  lambda one, share=1.0: count * one * share, "watts", basis="modelled",
                  source=" of ".join(sheet[key].estimate.source for key in reversed(inputs)))


def _capped(sheet: Sheet, machine: Machine, recipe: Recipe, inputs: list[str], text: str) -> None:
    """watts.device under a cap: the share drawn without it sets how far the cap is felt, and
    measured draws lie around what is said.
    """
    constants = power_cap.cap_constants(machine.accelerator)
    count, rated = machine.accelerators, _rated(machine)
    sheet.leaf("recipe.power_limit", given(recipe.power_limit, "the recipe's power limit"),
               "fraction")
    wide = math.exp(Z90 * power_cap.watts_spread())
    sheet.leaf("power.capped_ratio", Estimate(
        1.0, 1 / wide, wide, "modelled", "measured over predicted watts under power caps"))

    def watts(limit: Number, ratio: Number, one: Number, share: Number = 1.0) -> Number:
        drawn = one * share
        kept = power_cap.capped(limit, drawn / rated, constants).watts
        return count * drawn * smaller(kept * ratio, 1.0)

    sheet.formula("watts.device", f"{text} under the power limit",
                  ["recipe.power_limit", "power.capped_ratio", *inputs], watts, "watts",
                  basis="modelled", source="fit to measured power caps (facts/power_caps.csv)")


def _rated(machine: Machine) -> float:
    """Rated watts of an accelerator; where only its typical power is known, what it implies."""
    share = known("power_fraction_training").value
    assert share
    return machine.watts.get("max") or machine.watts["typical"] / share


def _cpu(sheet: Sheet, machine: Machine) -> None:
    gigabytes = (machine.host_memory_bytes or machine.memory_bytes) / 1e9
    cores, count = machine.cores, machine.accelerators
    sheet.leaf("power.core", known("vcpu_watts_max"), "watts")
    sheet.leaf("power.gigabyte", known("memory_watts_per_gb"), "watts")
    sheet.formula("watts.device", "cores x watts a core + GB x watts a GB",
                  ["power.core", "power.gigabyte"],
                  lambda core, each: count * (cores * core + gigabytes * each), "watts",
                  source=f"{cores} cores at vcpu_watts_max, and memory")


def _own_typical(machine: Machine) -> bool:
    """Whether somebody stated or measured the typical power: it is no default share."""
    typical, most = machine.watts.get("typical"), machine.watts.get("max")
    if not typical:
        return False
    default = known(_share_name(machine)).value
    return not most or default is None or abs(typical / (most * default) - 1) > SAME


def _own(machine: Machine) -> Estimate:
    typical, source = machine.watts["typical"], "the machine's own typical power"
    if not {"low", "high"} & machine.watts.keys():
        return given(typical, source)
    return Estimate(typical, min(machine.watts.get("low", typical), typical),
                    max(machine.watts.get("high", typical), typical), "modelled", source)


def _share_name(machine: Machine) -> str:
    return "tpu_power_ratio_training" if machine.kind == "tpu" else "power_fraction_training"


def _share(machine: Machine, shares: power.Busy | None) -> Estimate:
    """Share of the rated power drawn in training: measured runs set its level, and what is kept
    busy moves it, as the power model says of that work over `USUAL`.
    """
    name = _share_name(machine)
    general = known(name)
    assert general.value is not None and general.low is not None and general.high is not None
    if shares is None or machine.kind == "tpu":
        return Estimate(general.value, general.low, general.high, "default",
                        f"{general.value:.0%} of rated power ({name})")
    values = power.power_constants(machine.accelerator)
    if shares.serving:
        return _served_share(shares, values)
    moved = float(busier(shares, machine))
    value = min(1.0, general.value * moved)
    return Estimate(value, min(value, general.low * moved), max(value, min(1.0, general.high
                    * moved)), "modelled",
                    f"{value:.0%} of rated power: multipliers {float(shares.compute):.0%}, memory "
                    f"{float(shares.memory):.0%}, links {float(shares.link):.0%} busy")


def busier(shares: power.Busy, machine: Machine) -> Number:
    """Draw of an accelerator at such training work over that at `USUAL` work; polymorphic."""
    values = power.power_constants(machine.accelerator)
    return (power.accelerator_watts(shares, 1.0, values)
            / power.accelerator_watts(USUAL, 1.0, values))


def _served_share(shares: power.Busy, values: power.PowerConstants) -> Estimate:
    """Share of the rated power drawn by a server's work, as the power model has it."""
    value = float(power.accelerator_watts(shares, 1.0, values))
    wide = math.exp(Z90 * power.log_spread())
    return Estimate(value, value / wide, max(value, min(1.0, value * wide)), "modelled",
                    f"{value:.0%} of rated power: multipliers {float(shares.compute):.0%}, memory "
                    f"{float(shares.memory):.0%}, links {float(shares.link):.0%} busy")


def _kwh(sheet: Sheet, machine: Machine, place: Place, seconds_key: str, around: Around) -> None:
    """Host, PUE and the three boundaries above watts.device."""
    _host(sheet, machine)
    if "place.pue" not in sheet:
        sheet.leaf("place.pue", pue(place), "")
    timed = [seconds_key]
    sheet.formula("kwh.device", "device watts x time", ["watts.device", *timed],
                  lambda watts, seconds: watts * seconds / JOULES_PER_KWH, "kwh")
    if around == "host" or machine.kind == "cpu":
        sheet.formula("kwh.node", "(device + host watts) x time",
                      ["watts.device", "watts.host", *timed],
                      lambda device, host, seconds: (device + host) * seconds / JOULES_PER_KWH,
                      "kwh")
        sheet.formula("kwh.facility", "node energy x PUE", ["kwh.node", "place.pue"],
                      lambda node, factor: node * factor, "kwh")
        return
    sheet.leaf("power.all_equipment", known("all_equipment_power_ratio"), "")
    sheet.formula("kwh.node", "device energy x all equipment",
                  ["kwh.device", "power.all_equipment"], lambda kwh, ratio: kwh * ratio, "kwh")
    sheet.formula("kwh.facility", "device energy x the larger of all equipment and PUE",
                  ["kwh.device", "power.all_equipment", "place.pue"],
                  lambda kwh, ratio, factor: kwh * larger(ratio, factor), "kwh",
                  source="the ratio may hold cooling: not multiplied by PUE")


def _host(sheet: Sheet, machine: Machine) -> None:
    """watts.host: nothing for a CPU machine, whose cores and memory are the node."""
    if machine.kind == "cpu":
        sheet.leaf("watts.host", given(0.0, "cores and memory are the node"), "watts")
        return
    count = machine.accelerators
    name = host_constant(machine)
    sheet.leaf("power.host", known(name), "watts")
    sheet.formula("watts.host", "accelerators x host watts each", ["power.host"],
                  lambda each: count * each, "watts", source=name)


def host_constant(machine: Machine) -> str:
    """Name of the constant for the watts of a host an accelerator."""
    return "host_watts_per_tpu" if machine.kind == "tpu" else "host_watts_per_accelerator"


def pue(place: Place) -> Estimate:
    """The building's power usage effectiveness, never below 1; with the interval of the constant
    that it is the value of, where a plan sets it by that.
    """
    for name in DEFAULT_PUES:
        if known(name).value == place.pue:
            return known(name)
    known_as = round(max(1.0, place.pue), PUE_DIGITS)
    return given(known_as, f"PUE {known_as:g} of the place")


def device_watts(machine: Machine, recipe: Recipe | None = None,
                 shares: power.Busy | None = None) -> Estimate:
    """Power of all accelerators under training.

    From the machine's own figures (typical, low, high), else a share of its rated maximum, else,
    for a CPU, watts a core of cloud servers at full load and watts a GB. No value without any.
    """
    sheet = Sheet()
    write_device(sheet, machine, recipe, shares)
    return sheet.estimates()["watts.device"]


def host_watts(machine: Machine) -> Estimate:
    """Power of the rest of the nodes: nothing for a CPU machine, whose cores and memory are it."""
    sheet = Sheet()
    _host(sheet, machine)
    return sheet.estimates()["watts.host"]


def energy(machine: Machine, place: Place, seconds: Estimate, recipe: Recipe | None = None,
           shares: power.Busy | None = None) -> Mapping[str, Estimate]:
    """kWh of `seconds` of training at the three boundaries, each containing the one before."""
    sheet = Sheet()
    sheet.leaf("seconds.total", seconds, "seconds")
    write(sheet, machine, place, recipe, shares)
    return sheet.account().kwh


def drawn_by_work(machine: Machine) -> bool:
    """Whether the draw follows what the work keeps busy: not where somebody stated it."""
    return bool(machine.watts.get("max")) and not _own_typical(machine)


def drawn_share(machine: Machine, shares: power.Busy | None = None) -> float:
    """Mean draw of an accelerator without a cap, of its rated power: what decides how far a cap is
    felt (`power_cap.stretched`).
    """
    if machine.watts.get("max") and not _own_typical(machine):
        share = _share(machine, shares).value
        assert share is not None
        return min(1.0, share)
    return power_cap.draw_share(machine)


def idle_watts(machine: Machine) -> Estimate:
    """Power of all accelerators of a machine that is on and does nothing; its host adds
    `host_watts`. No value where neither idle nor rated power is known.
    """
    if machine.watts.get("idle"):
        each = given(machine.watts["idle"], "the machine's own idle power")
    elif machine.watts.get("max"):
        share = _idle_share(machine)
        each = share.scaled(machine.watts["max"], share.source)
    elif machine.kind == "cpu" and machine.cores:
        memory = known("memory_watts_per_gb").scaled(
            (machine.host_memory_bytes or machine.memory_bytes) / 1e9)
        each = known("vcpu_watts_min").scaled(machine.cores).plus(
            memory, f"{machine.cores} cores at vcpu_watts_min, and memory")
    else:
        return unknown(f"no power of {machine.accelerator} is known", "default")
    return each.scaled(machine.accelerators)


def _idle_share(machine: Machine) -> Estimate:
    """Share of the rated power at rest: low end of a card left alone, middle and high end of one
    with a model loaded.
    """
    alone, own = known("power_fraction_idle"), family(machine.accelerator)
    found = [one for one in named.constants(power.FILE)
             if one.name == "idle" and one.accelerator in (own, "") and not one.without]
    loaded = max(found, key=lambda one: one.accelerator == own)
    assert alone.low is not None
    return Estimate(loaded.value, min(alone.low, loaded.low), max(loaded.high, loaded.value),
                    "default", f"{loaded.value:.1%} of rated power at rest")


def idle(machine: Machine, place: Place, seconds: Estimate) -> Mapping[str, Estimate]:
    """kWh of a machine that is kept on for `seconds` and does nothing, at the three boundaries:
    what a reservation draws beside its work.
    """
    sheet = Sheet()
    sheet.leaf("seconds.total", seconds, "seconds")
    sheet.leaf("watts.device", replace(idle_watts(machine), basis="modelled"), "watts")
    _kwh(sheet, machine, place, "seconds.total", "host")
    return sheet.account().kwh

"""kgCO2e of making hardware, and the share of it that a run uses up.

Published figures for one chip differ up to forty times (ACT counts the die, Boavizta die and memory
with their losses, a vendor the whole module), so each figure is the span of all of them, from
`facts/embodied.csv`. The low end is never above ACT's own formula for the chip's die and memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from curbcut.accounts.convert import known
from curbcut.accounts.sheet import Sheet
from curbcut.errors import UnknownName
from curbcut.facts import embodied, fab, grid
from curbcut.facts.embodied import EmbodiedRange
from curbcut.physics.numbers import Number
from curbcut.spec.estimate import Estimate, unknown
from curbcut.spec.nouns import Machine

FAB_ZONE = "TWN"
"""Grid that makes the chips: ACT's own default."""
SECONDS_AN_HOUR, HOURS_A_YEAR = 3600.0, 8766.0
GB = 1e9
THREADS_A_CORE = 2
"""Cores that a machine reports may be half a core each."""


def soc_kg(area_cm2: Number, kg_per_kwh: Number, kwh_per_cm2: Number, gas_kg_per_cm2: Number,
           materials_kg_per_cm2: Number, good_share: Number) -> Number:
    """E_SoC = Area (CI_fab EPA + GPA + MPA) / Y of ACT (Gupta et al., ISCA 2022, equation 4)."""
    made = kg_per_kwh * kwh_per_cm2 + gas_kg_per_cm2 + materials_kg_per_cm2
    return area_cm2 * made / good_share


def bill_kg(parts: Sequence[tuple[Number, Number]]) -> Number:
    """Sum of (amount, kg each): cm2 of silicon, GB of memory, packages (ACT's sum of E_r)."""
    total: Number = 0.0
    for amount, kg_each in parts:
        total = total + amount * kg_each
    return total


def share_kg(kg_each: Number, count: Number, seconds: Number, lifetime_years: Number,
             in_use: Number) -> Number:
    """(T / LT) x E_emb of ACT, for `count` pieces of `kg_each` that work `in_use` of their life."""
    hours = seconds / SECONDS_AN_HOUR
    return kg_each * count * hours / (lifetime_years * HOURS_A_YEAR * in_use)


def die_kg(die_mm2: float, process_nm: float, zone: str = FAB_ZONE) -> Estimate:
    """Kg of one die in the process nearest to `process_nm`, made on the grid of `zone`.

    Process gases at 97% abatement, 99% to 95%. Raises UnknownName for the zone.
    """
    process, area_cm2 = fab.fab(process_nm), die_mm2 / 100
    mix, good = grid.intensity(zone), known("fab_yield").value
    low, high = (soc_kg(area_cm2, mix.gco2e_per_kwh / 1000, process.kwh_per_cm2, gas,
                        process.materials_kg_per_cm2, good)
                 for gas in (process.gas_kg_per_cm2_low, process.gas_kg_per_cm2_high))
    return Estimate((low + high) / 2, low, high, "modelled",
                    f"ACT: {area_cm2:g} cm2 at {process.process_nm:g} nm, made in {mix.name}")


def act_kg(accelerator: str, memory_bytes: float) -> Estimate:
    """ACT's sum for a chip: its die, one package, memory at the least figure for DRAM.

    No value where the facts have no die of it. Raises UnknownName for an unknown accelerator.
    """
    die = fab.die(accelerator)
    if die is None:
        return unknown(f"the die of {accelerator} is not known", "default")
    silicon, dram = die_kg(die.die_mm2, die.process_nm), embodied.each_range("dram")
    package = known("packaging_kgco2e_per_ic").value
    low, value, high = (bill_kg([(1.0, kg), (1.0, package), (memory_bytes / GB, dram.low)])
                        for kg in (silicon.low, silicon.value, silicon.high))
    return Estimate(value, low, high, "modelled", f"{silicon.source}; {die.source}")


def accelerator_kg(machine: Machine) -> Estimate:
    """Kg to make one accelerator: the published span, from ACT's own sum where that is lower."""
    try:
        found = embodied.accelerator_range(machine.accelerator)
        floor = act_kg(machine.accelerator, machine.memory_bytes)
    except UnknownName:
        return unknown(f"no embodied carbon of {machine.accelerator} is known", "default")
    if floor.value is None or floor.value >= found.low:
        return _estimate(found)
    return Estimate(found.mid, floor.value, found.high, "default",
                    f"{found.source}; low end: {floor.source}")


def processor_kg(machine: Machine) -> Estimate:
    """Kg of the cores and memory of a CPU machine's node; board, case and disk are not counted.

    A core reported may be half of one (low end), or the whole chip may be this machine's (high).
    """
    cores, memory_bytes = machine.cores, machine.host_memory_bytes or machine.memory_bytes
    if not cores or not memory_bytes:
        return unknown("embodied carbon not known: so are cores or memory", "default")
    core, dram = embodied.each_range("cpu"), embodied.each_range("dram")
    chip = max(one.high for one in embodied.embodied("cpu"))
    gigabytes = memory_bytes / GB
    low = bill_kg([(cores / THREADS_A_CORE, core.low), (gigabytes, dram.low)])
    value = bill_kg([(cores, core.mid), (gigabytes, dram.mid)])
    high = bill_kg([(1.0, max(chip, cores * core.high)), (gigabytes, dram.high)])
    return Estimate(value, low, high, "default",
                    f"{cores} cores and {gigabytes:.0f} GB, without board, case and disk: "
                    f"{'; '.join(dict.fromkeys((core.source, dram.source)))}")


def _estimate(found: EmbodiedRange) -> Estimate:
    return Estimate(found.mid, found.low, found.high, "default", found.source)


def write(sheet: Sheet, machine: Machine) -> None:
    """Writes kgco2e.embodied from seconds.total: kg x hours over lifetime x use of it.

    Of a CPU machine the cores and memory; else accelerators with their share of the server.
    """
    if machine.kind == "cpu":
        made, count, text = ["embodied.node"], float(machine.nodes), "kg a node x nodes"
        sheet.leaf("embodied.node", processor_kg(machine), "kgco2e")
    else:
        made, count = ["embodied.accelerator", "embodied.server_share"], float(machine.accelerators)
        text = "kg an accelerator and its share of the server x accelerators"
        sheet.leaf(made[0], accelerator_kg(machine), "kgco2e")
        sheet.leaf(made[1], _estimate(embodied.server_range()), "kgco2e")
    sheet.leaf("embodied.lifetime_years", known("embodied_lifetime_years"))
    sheet.leaf("embodied.utilisation", known("embodied_utilisation"), "fraction")

    def used(seconds: Number, years: Number, in_use: Number, *kg: Number) -> Number:
        return share_kg(bill_kg([(1.0, one) for one in kg]), count, seconds, years, in_use)

    told = "; ".join(sheet[one].estimate.source for one in made).split("; ")
    sheet.formula("kgco2e.embodied", f"{text} x time / (lifetime x use)",
                  ["seconds.total", "embodied.lifetime_years", "embodied.utilisation", *made],
                  used, "kgco2e", basis="modelled",
                  source=f"{'; '.join(dict.fromkeys(told))}; over embodied_lifetime_years x "
                         "embodied_utilisation")

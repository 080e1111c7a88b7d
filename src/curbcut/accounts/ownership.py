"""What an owned machine costs a run: the value that it loses in its time, and the room it takes.

A machine is bought (chips, servers around them, a network between servers), loses value year by
year (0.14 orders of magnitude, Epoch AI), and stands in a building. What it loses while it is idle
is paid by the time in which it is used: a machine that is idle half of its life costs double.
Electricity is another line, and people are.
"""

from __future__ import annotations

from curbcut.accounts.convert import known
from curbcut.accounts.energy import host_constant
from curbcut.accounts.rent import hours_a_year, once
from curbcut.accounts.sheet import Sheet
from curbcut.errors import UnknownName
from curbcut.facts import accelerators, epoch
from curbcut.facts.accelerators import Accelerator
from curbcut.spec.estimate import Estimate, given, unknown
from curbcut.spec.nouns import Machine, Place

MONTHS = 12
SOCKET_KW = 3.68
"""What a household socket feeds (16 A at 230 V): a machine of no more, in a building without a
cooling plant (PUE 1), stands at a desk and pays for no room."""


def chip_price(machine: Machine) -> Estimate:
    """US dollars an accelerator, bought now; no value where the facts have no price."""
    try:
        found: Accelerator | None = accelerators.accelerator(machine.accelerator)
    except UnknownName:
        found = None
    if not found or not found.purchase_usd:
        return unknown(f"no purchase price of {machine.accelerator} is known", "default")
    around = epoch.constant("spread_price_tpu" if machine.kind == "tpu" else "spread_price_gpu")
    usd = found.purchase_usd
    return Estimate(usd, usd * around.low, usd * around.high, "default",
                    f"${usd:,.0f} a chip, {found.purchase_kind} of "
                    f"{found.purchase_date}; others pay {around.low:g} to {around.high:g} x")


def write_ownership(sheet: Sheet, machine: Machine, place: Place, key: str) -> str:
    """Writes own.* and their sum under `key`; returns it. Needs seconds.total."""
    if "own.depreciation_usd" not in sheet:
        _write_machine(sheet, machine)
        _write_years(sheet)
        charge = once(sheet, "own.capital_charge", known("annual_capital_charge"))
        sheet.formula("own.depreciation_usd", "machine's price x share lost a year x years of it",
                      ("own.machine_usd", charge, "own.years"),
                      lambda usd, share, years: usd * share * years, "usd")
        _write_hosting(sheet, machine, place)
    parts = ["own.depreciation_usd"]
    if sheet.value("own.hosting_usd") is not None:
        parts.append("own.hosting_usd")
    return sheet.formula(key, " + ".join(part[4:-4] for part in parts), parts,
                         lambda *usd: sum(usd), "usd",
                         source=sheet["own.machine_usd"].estimate.source, basis="modelled")


def _write_machine(sheet: Sheet, machine: Machine) -> None:
    """The price of the machine: chips, their servers, and a network where there are several."""
    count = once(sheet, "machine.accelerators", given(
        machine.accelerators, f"{machine.accelerators} x {machine.accelerator}"), "count")
    price = chip_price(machine)
    inputs = [count, once(sheet, "own.chip_usd", price, "usd"),
              once(sheet, "own.server_ratio", known("server_price_ratio"))]
    if machine.nodes == 1:
        sheet.formula("own.machine_usd", "accelerators x price x server over chip price", inputs,
                      lambda many, usd, server: many * usd * server, "usd",
                      source=f"{price.source}, server added")
        return
    inputs.append(once(sheet, "own.network_share", known("interconnect_cost_fraction")))
    sheet.formula("own.machine_usd", "accelerators x price x server over chip price "
                  "/ (1 - network's share)", inputs,
                  lambda many, usd, server, share: many * usd * server / (1 - share), "usd",
                  source=f"{price.source}, server and network added")


def _write_years(sheet: Sheet) -> None:
    """Years of the machine's life that the run uses up, its share of idle time with them."""
    use = once(sheet, "own.utilisation", known("embodied_utilisation"), "fraction")
    seconds = 3600.0 * hours_a_year()
    sheet.formula("own.years", "seconds / seconds of a year / share of its life in use",
                  ("seconds.total", use), lambda time, share: time / seconds / share)


def _write_hosting(sheet: Sheet, machine: Machine, place: Place) -> None:
    """Space, power supply and cooling: a colocation's price by rated power; none at a desk."""
    rated = rated_kw(machine)
    if place.pue <= 1.0 and (rated.value or 0.0) <= SOCKET_KW:
        sheet.leaf("own.hosting_usd", Estimate(
            0.0, basis="default", source="at a desk (PUE 1, no more than a socket feeds), whose "
            "space is not charged"), "usd")
        return
    power = once(sheet, "own.rated_kw", rated)
    price = once(sheet, "own.hosting_usd_per_kw_month", known("hosting_usd_per_kw_month"), "usd")
    sheet.formula("own.hosting_usd", "rated kW x dollars a kW and month x months of it",
                  (power, price, "own.years"),
                  lambda kw, usd, years: kw * usd * MONTHS * years, "usd")


def rated_kw(machine: Machine) -> Estimate:
    """Power that a building must hold ready: accelerators at their most, and their hosts."""
    most = machine.watts.get("max")
    if not most:
        return unknown(f"no rated power of {machine.accelerator} is known", "default")
    each = known(host_constant(machine))
    assert each.value is not None and each.low is not None and each.high is not None
    count = machine.accelerators / 1000
    return Estimate((most + each.value) * count, (most + each.low) * count,
                    (most + each.high) * count, "modelled", "rated power, and its host's")

"""Epoch's three approaches (`accounts.epoch`) for a run of our own: chips, seconds and a day.

The formulas and constants are theirs. Uncertainty is drawn from its components (price, loss of
value, network, power, electricity) and the run's own time; the number of chips is known. Theirs of
the whole, x0.34 to x3.7 for GPUs, has an unknown time and number of chips in it too: it is not
added again.
"""

from __future__ import annotations

from datetime import date, timedelta

from curbcut.accounts import epoch as approaches
from curbcut.accounts import epoch_prices
from curbcut.accounts.epoch_prices import Purchase
from curbcut.accounts.rent import alone, day, once, rent_price, write_hours
from curbcut.accounts.sheet import Sheet
from curbcut.errors import UnknownName
from curbcut.facts import accelerators, epoch, prices
from curbcut.facts.accelerators import Accelerator
from curbcut.facts.constants import Constant
from curbcut.facts.epoch import Chip
from curbcut.spec.estimate import Estimate, given, unknown
from curbcut.spec.nouns import Machine, Place

WAYS = ("epoch_amortised", "epoch_acquisition", "epoch_cloud")
OURS = "the price book's, for Epoch's history has none"


def write(sheet: Sheet, machine: Machine, today: date | None = None) -> None:
    """Writes usd_ways.epoch_*; each not known, with the reason, where a price is missing.

    Training starts on `today`; on the day of the newest price that is known where none is given.
    """
    one = _accelerator(machine.accelerator)
    if one is None:
        for way in WAYS:
            sheet.leaf(f"usd_ways.{way}", unknown(
                f"{machine.accelerator} is no accelerator of the facts", "default"), "usd")
        return
    start = today or newest_price()
    chip, bought = chip_and_price(one)
    hours = write_hours(sheet, machine)
    _write_amortised(sheet, chip, bought, start, hours)
    _write_acquisition(sheet)
    _write_cloud(sheet, machine, chip, start, hours)


def newest_price() -> date:
    """The newest day of the price book and the history."""
    days = [day(one.date) for one in prices.book()]
    return max(days + [day(one.date) for one in prices.history()])


def _accelerator(name: str) -> Accelerator | None:
    try:
        return accelerators.accelerator(name)
    except UnknownName:
        return None


def chip_and_price(one: Accelerator) -> tuple[Chip, Purchase | None]:
    """The chip as Epoch's tables have it, else made from ours; and its price when it was new.

    A chip that is newer than Epoch's history has the price of our table, which the note says.
    """
    same = [chip for chip in epoch.chips() if one.name.startswith(chip.name)]
    if same:
        chip = max(same, key=lambda found: len(found.name))
        return chip, epoch_prices.purchase(chip)
    chip = Chip(name=one.name, kind="tpu" if one.kind == "tpu" else "gpu",
                released=day(one.release_date) if one.release_date else date(1970, 1, 1),
                fp32_flops=None, fp16_flops=None, tf32_flops=None, fp16_tensor_flops=None,
                int8_ops=None, tdp_watts=one.tdp_watts, source=one.source)
    found = epoch_prices.purchase(chip)
    if found or not one.purchase_usd or not one.purchase_date:
        return chip, found
    ratio = epoch_prices.server_ratio(one.name)
    shipped = chip.released + timedelta(days=epoch.constant("shipping_days").value)
    return chip, Purchase(
        usd=one.purchase_usd * ratio, server_ratio=ratio,
        available=max(day(one.purchase_date), shipped),
        note=f"${one.purchase_usd:,.0f} of {one.purchase_date} ({one.purchase_kind}, "
             "accelerators.csv), for Epoch's history has none of this chip")


def _constant(name: str) -> Estimate:
    """A constant of Epoch's approaches with its interval."""
    return _estimate(epoch.constant(name))


def _estimate(found: Constant) -> Estimate:
    return Estimate(found.value, found.low, found.high, "default",
                    f"{found.name}: {found.source}")


def _write_amortised(sheet: Sheet, chip: Chip, bought: Purchase | None, start: date,
                     hours: str) -> None:
    """The first approach, each part of it a line."""
    reason = unknown(f"no purchase price of {chip.name} is known", "default")
    spread = epoch.constant(f"spread_price_{chip.kind}")
    price = reason if bought is None else Estimate(
        bought.usd, bought.usd * spread.low, bought.usd * spread.high, "default", bought.note)
    # Prices of the list and of dealers differ by this much; the middle stays Epoch's own choice.
    once(sheet, "epoch.server_usd", price, "usd")
    owned = 0.0 if bought is None else max(0, (start - bought.available).days) / 365.25
    once(sheet, "epoch.years", given(owned, f"from first availability to {start}"))
    loss = once(sheet, "epoch.value_loss", _constant("value_loss"))
    hours_per_year = epoch.constant("hours_per_year").value
    sheet.formula("epoch.capital_usd", "what the servers lose in value over the chip-hours: "
                  "price x 10^(-loss x years) x loss x ln 10 / 8766 x hours",
                  ("epoch.server_usd", loss, "epoch.years", hours),
                  lambda usd, lost, years, time: approaches.capital_usd(
                      approaches.value_usd(usd, years, lost), lost, time, hours_per_year), "usd")
    once(sheet, "epoch.network_share", _network_share(), "fraction")
    _write_energy(sheet, chip, start, hours)
    sheet.formula("usd_ways.epoch_amortised", "loss of value + its network + energy",
                  ("epoch.capital_usd", "epoch.network_share", "epoch.energy_usd"),
                  approaches.amortised_usd, "usd", source=price.source)


def _network_share() -> Estimate:
    """The network's share of a cluster; Epoch states the interval of 1 / (1 - share)."""
    share, ratio = epoch.constant("network_share"), epoch.constant("network_ratio")
    return Estimate(share.value, 1 - 1 / ratio.low, 1 - 1 / ratio.high, "default", share.source)


def _write_energy(sheet: Sheet, chip: Chip, start: date, hours: str) -> None:
    watts = approaches.chip_watts(chip)
    price = _estimate(epoch.electricity(start.year))
    inputs = (
        once(sheet, "epoch.chip_watts", unknown(f"no power of {chip.name} is known", "default")
             if watts is None else given(watts, f"TDP of {chip.name}"),
             "watts"),
        once(sheet, "epoch.server_power_ratio", _server_power(chip)),
        once(sheet, "epoch.power_fraction", _constant(f"power_fraction_{chip.kind}"), "fraction"),
        once(sheet, "epoch.pue", _constant(approaches.pue(()))),
        once(sheet, "epoch.usd_per_kwh", price, "usd"), hours)
    sheet.formula("epoch.energy_usd", "kW of a server x fraction drawn x PUE x hours x price",
                  inputs, lambda each, server, share, building, usd, time: approaches.energy_kwh(
                      each, server, share, building, time) * usd, "usd",
                  source=f"US industrial electricity of {start.year}, or the nearest year known")


def _server_power(chip: Chip) -> Estimate:
    """A server's TDP over that of its chips; Epoch states no interval: from the least to the most
    of its ratios of that kind of chip.
    """
    own = epoch.constant(approaches.server_power(chip.name))
    ratios = [epoch.constant(name).value for name in approaches.SERVER_POWER[chip.kind]]
    return Estimate(own.value, min(ratios), max(ratios), "default", f"{own.name}: {own.source}")


def _write_acquisition(sheet: Sheet) -> None:
    sheet.formula("usd_ways.epoch_acquisition", "chips with servers / (1 - network's share)",
                  ("machine.accelerators", "epoch.server_usd", "epoch.network_share"),
                  lambda many, usd, share: many * usd / (1 - share), "usd",
                  source=sheet["epoch.server_usd"].estimate.source)


def _write_cloud(sheet: Sheet, machine: Machine, chip: Chip, start: date, hours: str) -> None:
    """The third approach: bound for three years, by the history, else by our book."""
    lead = timedelta(days=epoch.constant("acquisition_lead_days").value)
    found = epoch_prices.rent(chip, start - lead, epoch_prices.vendors((), chip.kind))
    if found:
        price = alone(found.usd_per_hour, found.note)
    else:
        price = rent_price(machine, Place(), "reserved-3y")
        if price.value is not None:
            price = Estimate(price.value, price.low, price.high, price.basis,
                             f"{OURS}: {price.source}")
    once(sheet, "epoch.cloud_usd_per_hour", price, "usd")
    sheet.formula("usd_ways.epoch_cloud", "chip-hours x rent bound for three years",
                  (hours, "epoch.cloud_usd_per_hour"), lambda time, usd: time * usd, "usd",
                  source=price.source)

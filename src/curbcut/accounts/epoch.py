"""Epoch's three approaches to the cost of a training run (arXiv:2405.21015), exactly.

Amortised capital and energy: a chip loses 0.14 orders of magnitude of value a year from the day
when it could first be used; a chip-hour is charged what it loses; network and energy are added.
Acquisition: all chips and their network are bought, and nothing is left of them. Cloud: chip-hours
at the rent of the time, bound for three years. A model that goes on from another has its costs
added. Written from the formulas of the paper and its code (v1.0.0); a test holds every value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from curbcut.accounts import epoch_prices
from curbcut.accounts.epoch_prices import Purchase, Rent
from curbcut.errors import InputError
from curbcut.facts import epoch
from curbcut.facts.epoch import Chip, Model, models
from curbcut.physics.numbers import Number

__all__ = ["WAYS", "Costs", "Model", "Way", "models", "three"]

WAYS = ("amortised", "acquisition", "cloud")
DOLLARS_OF = date(2023, 12, 1)
"""The month in whose dollars figures are given beside the nominal ones."""
HYPERSCALERS = ("google", "deepmind", "microsoft", "amazon", "meta", "facebook")
DAYS_A_YEAR = 365.25
NO_CHIP = "no single kind of chip is named"


@dataclass(frozen=True, kw_only=True)
class Way:
    """What a model cost by one approach, its base model's costs included."""

    usd: float
    """Of the day."""
    usd_2023: float
    """In dollars of December 2023, by producer prices since the month of publication (the
    newest month that is known, for what was published later)."""
    basis: str
    parts: Mapping[str, float] = field(default_factory=dict)
    """Nominal dollars of chips, server, network and energy, where the approach tells them apart."""
    spread: tuple[float, float] | None = None
    """Ends of the authors' 90% interval, as factors of the whole; none is stated for cloud."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """One model by the three approaches; None where one gives no value, and why."""

    model: Model
    chip_hours: float | None
    """Of this training alone."""
    hours_basis: str
    """ "reported", "time x quantity", "compute / (peak x utilisation)" or "none"."""
    start: date
    """Day on which training began."""
    purchase: Purchase | None
    chip_value_usd: float | None
    """A chip with its server on that day."""
    rent: Rent | None
    amortised: Way | None
    acquisition: Way | None
    cloud: Way | None
    missing: Mapping[str, str]
    """By approach without a value: what is not known."""

    def way(self, name: str) -> Way | None:
        """One of `WAYS`."""
        found: Way | None = getattr(self, name)
        return found


def value_usd(price_usd: Number, years: Number, value_loss: Number) -> Number:
    """What a chip of `price_usd` is worth after `years`, losing `value_loss` in log10 a year."""
    return price_usd * 10.0 ** (-value_loss * years)


def capital_usd(value: Number, value_loss: Number, chip_hours: Number,
                hours_per_year: Number) -> Number:
    """What chips worth `value` each lose over `chip_hours`."""
    return value * value_loss * math.log(10) / hours_per_year * chip_hours


def network_usd(capital: Number, share: Number) -> Number:
    """The network between servers worth `capital`, where it is a `share` of the whole cluster."""
    return capital * share / (1 - share)


def energy_kwh(watts: Number, server_ratio: Number, fraction: Number, pue: Number,
               chip_hours: Number) -> Number:
    """Energy at the facility: a server's watts a chip, the fraction of them drawn, and PUE."""
    return watts / 1000 * server_ratio * fraction * pue * chip_hours


def amortised_usd(capital: Number, share: Number, energy: Number) -> Number:
    """The first approach: capital, its network and energy."""
    return capital + network_usd(capital, share) + energy


def three(model: Model | str) -> Costs:
    """What a model cost by each approach.

    Raises UnknownName for a name that no model has, InputError for inputs that cannot be.
    """
    one = epoch.model(model) if isinstance(model, str) else model
    chip = epoch.chip(one.hardware[0]) if len(one.hardware) == 1 else None
    hours, basis = chip_hours(one, chip)
    start = training_start(one)
    bought = epoch_prices.purchase(chip) if chip else None
    value = (value_usd(bought.usd, _years(bought.available, start), _value("value_loss"))
             if bought else None)
    lead = timedelta(days=_value("acquisition_lead_days"))
    rented = epoch_prices.rent(chip, start - lead, epoch_prices.vendors(
        one.organisations, chip.kind)) if chip else None
    parts: dict[str, Mapping[str, float]] = {}
    notes: dict[str, str] = {}
    if chip and bought and value is not None and hours is not None:
        parts["amortised"] = _amortised(one, chip, bought, value, hours)
        notes["amortised"] = f"{bought.note}; chip-hours {basis}"
    if bought and one.quantity is not None:
        chips = one.quantity * bought.usd
        parts["acquisition"] = {"servers": chips,
                                "network": network_usd(chips, _value("network_share"))}
        notes["acquisition"] = bought.note
    if rented and hours is not None:
        parts["cloud"] = {"rent": rented.usd_per_hour * hours}
        notes["cloud"] = f"{rented.note}; chip-hours {basis}"
    base = _base(one)
    ways = {name: _way(one, parts.get(name), base, name, notes.get(name, "")) for name in WAYS}
    missing = {name: _missing(one, chip, name, hours, bought, base)
               for name, way in ways.items() if way is None}
    return Costs(model=one, chip_hours=hours, hours_basis=basis, start=start, purchase=bought,
                 chip_value_usd=value, rent=rented, missing=missing, **ways)


def _base(model: Model) -> Costs | None:
    """Costs of the model that this one goes on from; raises InputError where that is itself."""
    seen, name = [model.name], model.base_model
    while name:
        if name in seen:
            raise InputError(f"{model.name} goes on from itself", where="epoch/models.csv",
                             mend="leave its base_model empty, or name another")
        seen.append(name)
        name = epoch.model(name).base_model
    return three(model.base_model) if model.base_model else None


def _value(name: str) -> float:
    return epoch.constant(name).value


def _way(model: Model, parts: Mapping[str, float] | None, base: Costs | None, name: str,
         basis: str) -> Way | None:
    """One approach's value with its base model's; None where either is not known."""
    if parts is None:
        return None
    if base:
        before = base.way(name)
        if before is None:
            return None
        parts = {part: usd + before.parts[part] for part, usd in parts.items()}
        basis += f"; with {model.base_model}"
    usd = sum(parts.values())
    ratio = epoch.producer_price(DOLLARS_OF) / epoch.producer_price(model.published)
    return Way(usd=usd, usd_2023=usd * ratio, basis=basis, parts=parts,
               spread=_spread(name, epoch.chip(model.hardware[0]).kind))


def _spread(name: str, kind: str) -> tuple[float, float] | None:
    if name == "cloud":
        return None
    found = epoch.constant(f"spread_{name}_{kind}")
    return found.low, found.high


def _missing(model: Model, chip: Chip | None, name: str, hours: float | None,
             bought: Purchase | None, base: Costs | None) -> str:
    """Why an approach gives no value."""
    if chip is None:
        return NO_CHIP
    if name != "acquisition" and hours is None:
        return "no chip-hours are known"
    if name == "acquisition" and model.quantity is None:
        return "no number of chips is known"
    if name != "cloud" and bought is None:
        return f"no price of {chip.name} is known"
    if base and base.way(name) is None:
        return f"no cost of {model.base_model} is known"
    return f"no rent of {chip.name} is known"


def _amortised(model: Model, chip: Chip, bought: Purchase, value: float,
               hours: float) -> dict[str, float]:
    """Nominal dollars of the first approach by part."""
    capital = capital_usd(value, _value("value_loss"), hours, _value("hours_per_year"))
    alone = capital / bought.server_ratio
    watts = chip_watts(chip)
    assert watts is not None
    kwh = energy_kwh(watts, _value(server_power(chip.name)),
                     _value(f"power_fraction_{chip.kind}"), _value(pue(model.organisations)), hours)
    return {"chips": alone, "server": capital - alone,
            "network": network_usd(capital, _value("network_share")),
            "energy": kwh * epoch.electricity(model.published.year).value}


def chip_watts(chip: Chip) -> float | None:
    """TDP of one chip; the authors' own for TPU v4, of which Google states none."""
    return chip.tdp_watts or (_value("tpu_watts_v4") if "TPU v4" in chip.name else None)


SERVER_POWER = {
    "gpu": ("server_power_H100", "server_power_A100", "server_power_V100", "server_power_other"),
    "tpu": ("server_power_TPU v1", "server_power_TPU v2", "server_power_TPU v3",
            "server_power_TPU")}
"""Names of the constants among which `server_power` chooses, by kind of chip."""


def server_power(name: str) -> str:
    """Name of the constant that says a server's TDP over that of its chips."""
    if "TPU" in name:
        version = next((one for one in ("v1", "v2", "v3") if one in name), "")
        return f"server_power_TPU {version}".rstrip()
    own = epoch_prices.family(name, ("H100", "A100", "V100")) or "other"
    return f"server_power_{own}"


def pue(organisations: tuple[str, ...]) -> str:
    """Name of the constant that is the PUE of an organisation's buildings."""
    who = " ".join(organisations).casefold()
    return "pue_hyperscaler" if any(one in who for one in HYPERSCALERS) else "pue_other"


def chip_hours(model: Model, chip: Chip | None) -> tuple[float | None, str]:
    """Chip-hours of a training, and how they were come by."""
    if model.chip_hours:
        return model.chip_hours, "reported"
    if model.hours and model.quantity:
        return model.hours * model.quantity, "time x quantity"
    peak = peak_flops(chip) if chip else None
    if model.compute_flops and peak:
        rate = peak * (model.utilisation or _value("utilisation"))
        return model.compute_flops / rate / 3600, "compute / (peak x utilisation)"
    return None, "none"


def peak_flops(chip: Chip) -> float | None:
    """The peak rate that utilisations are taken of: 16-bit on tensor cores where there are any."""
    if chip.int8_ops and not chip.fp32_flops and not chip.fp16_flops:
        return chip.int8_ops
    return (chip.fp16_tensor_flops or chip.tf32_flops
            or (chip.fp16_flops if chip.kind == "tpu" else None) or chip.fp32_flops)


def training_start(model: Model) -> date:
    """The day on which training began: as known, else counted back from the publication."""
    if model.training_start:
        return model.training_start
    end = model.training_end or model.published - timedelta(days=_value("publication_lag_days"))
    hours = int(model.hours or _value("training_hours"))
    try:
        # A part of a day counts as a day: the day on which the first hour falls.
        return end - timedelta(days=math.ceil(hours / 24))
    except OverflowError:
        raise InputError(f"{model.name} took {hours:.3g} hours, longer than there are days",
                         where="epoch/models.csv", mend="give hours of training") from None


def _years(available: date, start: date) -> float:
    """Years from the first day of use to the start of training; none before it."""
    return max(0, (start - available).days) / DAYS_A_YEAR

"""Epoch AI's inputs for "The rising costs of training frontier AI models" (arXiv:2405.21015).

The models of its paper, the chips that they were trained on, producer prices, and the constants of
its three approaches, all of training-cost-trends v1.0.0 (Apache-2.0); prices by date stand in
`prices.history`. They are apart from `constants.csv`: these reproduce what was published, those
price a run of today.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

from curbcut.errors import InputError, UnknownName
from curbcut.facts import table
from curbcut.facts.constants import Constant, named, of_file
from curbcut.facts.table import Row

Kind = TypeVar("Kind")
CONSTANTS = "epoch/constants"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that was among the ten of most compute when it was published."""

    name: str
    published: date
    organisations: tuple[str, ...]
    domains: tuple[str, ...]
    parameters: float | None
    compute_flops: float | None
    data_points: float | None
    """Size of the data set, which is not always what was seen of it."""
    epochs: float | None
    training_start: date | None
    """Where it is known apart from the publication."""
    training_end: date | None
    hours: float | None
    """Wall-clock hours of training."""
    hardware: tuple[str, ...]
    """Names of chips; empty where not known."""
    quantity: float | None
    """Chips."""
    utilisation: float | None
    chip_hours: float | None
    base_model: str
    """Name of the model that it goes on from, whose costs are part of its own; else ""."""
    confidence: str
    rank: int | None
    """Place among all models by compute on the day of publication."""
    source: str


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One kind of chip; rates are dense, None where the table has none."""

    name: str
    kind: str
    """ "gpu" or "tpu"."""
    released: date
    fp32_flops: float | None
    fp16_flops: float | None
    tf32_flops: float | None
    fp16_tensor_flops: float | None
    int8_ops: float | None
    tdp_watts: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """What Epoch's own code gives for a model: nominal dollars and those of December 2023.

    None where an approach gives no value. Cells of acquisition and cloud are their code's output,
    which they did not print.
    """

    model: str
    chip_hours: float | None
    usd: Mapping[str, float | None]
    """By approach: amortised, acquisition, cloud."""
    usd_2023: Mapping[str, float | None]
    parts: Mapping[str, float | None]
    """Of the first approach: chips, server, network, energy; nominal."""


def models() -> list[Model]:
    """All models, newest first."""
    return list(_models(table.overlay_folder()).values())


def model(name: str) -> Model:
    """The model `name`; raises UnknownName with the nearest names."""
    return _of("model", name, _models(table.overlay_folder()))


def chips() -> list[Chip]:
    """All chips, oldest first."""
    return list(_chips(table.overlay_folder()).values())


def chip(name: str) -> Chip:
    """The chip `name`; raises UnknownName with the nearest names."""
    return _of("chip", name, _chips(table.overlay_folder()))


def constant(name: str) -> Constant:
    """A constant of the three approaches; raises UnknownName with the nearest names."""
    return named(CONSTANTS, name, "constant of Epoch's approaches")


def results() -> Mapping[str, Result]:
    """Their results by model: `accounts.epoch` is held to them."""
    return _results(table.overlay_folder())


def producer_price(day: date) -> float:
    """Index of producer prices (PCU518210518210) in the month of `day`; of the newest month for a
    later one.

    Raises InputError for a month before the first.
    """
    found = _producer_prices(table.overlay_folder())
    month = min(day.isoformat()[:7], max(found))
    if month not in found:
        raise InputError(f"no producer price of {month} is known", where="producer_prices.csv",
                         mend=f"months from {min(found)} to {max(found)} are known")
    return found[month]


def electricity(year: int) -> Constant:
    """US industrial price of electricity in `year`; of the nearest year that is known."""
    known = _electricity(table.overlay_folder())
    return known[min(known, key=lambda one: abs(one - year))]


def _of(noun: str, name: str, found: Mapping[str, Kind]) -> Kind:
    if name not in found:
        raise UnknownName(noun, name, found)
    return found[name]


@functools.cache
def _models(overlay: Path) -> dict[str, Model]:
    found = [_model(row) for row in table.rows("epoch/models", ("name",))]
    found.sort(key=lambda one: one.published, reverse=True)
    return {one.name: one for one in found}


def _model(row: Row) -> Model:
    published = day_of(row, "published")
    if published is None:
        raise InputError("published is empty", where=row.place, mend="give the day")
    rank = row.maybe_number("rank")
    return Model(
        name=row.text("name"), published=published, organisations=row.many("organisations"),
        domains=row.many("domains"), parameters=row.maybe_number("parameters"),
        compute_flops=row.maybe_number("compute_flops"),
        data_points=row.maybe_number("data_points"), epochs=row.maybe_number("epochs"),
        training_start=day_of(row, "training_start"), training_end=day_of(row, "training_end"),
        hours=row.maybe_number("hours"), hardware=row.many("hardware"),
        quantity=row.maybe_number("quantity"), utilisation=row.maybe_number("utilisation"),
        chip_hours=row.maybe_number("chip_hours"), base_model=row.maybe_text("base_model"),
        confidence=row.maybe_text("confidence"), rank=None if rank is None else int(rank),
        source=row.text("source"))


@functools.cache
def _chips(overlay: Path) -> dict[str, Chip]:
    return {one.name: one for one in map(_chip, table.rows("epoch/chips", ("name",)))}


def _chip(row: Row) -> Chip:
    released = day_of(row, "released")
    if released is None:
        raise InputError("released is empty", where=row.place, mend="give the day")
    return Chip(
        name=row.text("name"), kind=row.choice("kind", ("gpu", "tpu")), released=released,
        fp32_flops=row.maybe_number("fp32_flops"), fp16_flops=row.maybe_number("fp16_flops"),
        tf32_flops=row.maybe_number("tf32_flops"),
        fp16_tensor_flops=row.maybe_number("fp16_tensor_flops"),
        int8_ops=row.maybe_number("int8_ops"), tdp_watts=row.maybe_number("tdp_watts"),
        source=row.text("source"))


@functools.cache
def _electricity(overlay: Path) -> dict[int, Constant]:
    stem = "usd_per_kwh_"
    return {int(name.removeprefix(stem)): one for name, one in of_file(CONSTANTS).items()
            if name.startswith(stem)}


@functools.cache
def _results(overlay: Path) -> dict[str, Result]:
    approaches, parts = ("amortised", "acquisition", "cloud"), (
        "chips", "server", "network", "energy")
    return {row.text("model"): Result(
        model=row.text("model"), chip_hours=row.maybe_number("chip_hours"),
        usd={name: row.maybe_number(f"{name}_usd") for name in approaches},
        usd_2023={name: row.maybe_number(f"{name}_usd_2023") for name in approaches},
        parts={name: row.maybe_number(f"{name}_usd") for name in parts})
        for row in table.rows("epoch/results", ("model",))}


@functools.cache
def _producer_prices(overlay: Path) -> dict[str, float]:
    return {row.text("date")[:7]: row.number("index")
            for row in table.rows("epoch/producer_prices", ("date",))}


def day_of(row: Row, column: str) -> date | None:
    """The cell as a day, None where it is empty; raises InputError for what is no day."""
    text = row.maybe_text(column)
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{column} is {text!r}, which is no day", where=row.place,
                         mend="write it like 2024-03-21") from None

"""Published energy against ours: reproduced by its source's own method, and modelled beside it.

Energy that is accelerator-hours times the rated power is an upper bound for the accelerators and
leaves out their hosts: it is reproduced by exactly that method, and what we expect of the
accelerators is 0.6 to 0.9 of it. Measured energy is what the model is held against, at the boundary
that it covers. Rows that the table has from memory are scored apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curbcut.accounts import energy as account
from curbcut.accounts.convert import known
from curbcut.accounts.sheet import Sheet
from curbcut.errors import InputError
from curbcut.physics import power, time
from curbcut.plan.validation import cells as cells_of
from curbcut.plan.validation import energy_published, runs
from curbcut.plan.validation.cells import CannotExpress
from curbcut.plan.validation.energy_published import Published
from curbcut.plan.validation.outcome import Outcome, Part, Regime
from curbcut.plan.validation.score import Prediction, Unexpressed, quantile, share
from curbcut.spec.estimate import Z90, Estimate, given
from curbcut.spec.nouns import Machine, Place

Z80, Z95 = 1.2815515655446004, 1.959963984540054
EXPECTED = (0.6, 0.9)
"""Modelled accelerator energy over hours times rated power."""
WHY = ("hours x rated power is an upper bound for the accelerators, which draw 55 to 92% of it in "
       "training; it leaves out hosts, network and cooling")
EXACT = 0.01
"""What is called reproduced: the published figure within 1%."""
EXPLAINED = 0.4
"""Share of published hours that a run's tokens must explain: hours of further stages (a teacher,
trials) keep accelerators busy with work that the row does not tell."""
ROUNDED = 0.03
"""How far hours x power may be from a figure that is nothing else, both rounded."""
OWN_HOSTS = ("host watts of a TPU are a median over three published runs (host_watts_per_tpu: "
             "Switch-C, Gopher, GLaM): of those the modelled figure has seen its own")
PART_OF = {"measured": "", "rated": "rated", "idle": "idle"}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One published energy beside ours, in kWh."""

    of: Published
    reproduced: float | None
    """Hours x stated or rated power x stated PUE; None where the source's method is no such."""
    modelled: Estimate

    @property
    def part(self) -> str:
        """What it is scored with."""
        name = PART_OF[self.of.way]
        return f"{name or 'measured'} from memory" if self.of.from_memory else name

    def plain(self) -> dict[str, Any]:
        """The row as JSON has it."""
        value = self.modelled.value
        return {"id": self.of.id, "source": self.of.source, "way": self.of.way,
                "boundary": self.of.boundary, "from_memory": self.of.from_memory,
                "reported": self.of.kwh, "unit": "kWh", "reproduced": self.reproduced,
                "reproduced_error_pct": None if self.reproduced is None
                else 100 * (self.reproduced / self.of.kwh - 1),
                "modelled": value, "low": self.modelled.low, "high": self.modelled.high,
                "ratio": None if value is None else value / self.of.kwh,
                "assumed": list(self.of.cells.assumed)}


def validate_energy(path: Path, regime: Regime) -> Outcome:
    """Scores a table of energies, of runs, of power caps or of J a token, whichever it is.

    Raises InputError for a table of none of these.
    """
    if regime.calibrate or regime.folds:
        raise InputError("energy has no calibrated regime", where="validate",
                         mend="leave out --calibrate and --folds")
    header, lines = cells_of.read(path)
    has = set(header)
    if {"j_per_output_token", "avg_batch"} <= has:
        return _inference(path, regime)
    if {"limit_frac", "energy_rel"} <= has:
        return _caps(path, regime)
    if set(energy_published.ENERGY_COLUMNS) <= has:
        train = [line for line in lines if (line.get("kind") or "train").strip() != "inference"]
        found, left = energy_published.of_energy(train)
        more = [line for line in lines if line not in train]
        return _training("energy", regime, found, left, more)
    if set(energy_published.RUN_COLUMNS) <= has:
        found, left = energy_published.of_runs(lines)
        return _training("runs", regime, found, left, [])
    raise InputError("is no table of energy: it has neither energies, runs, power caps nor J a "
                     "token", where=str(path),
                     mend=f"give the columns {', '.join(energy_published.ENERGY_COLUMNS)}")


def _caps(path: Path, regime: Regime) -> Outcome:
    from curbcut.plan.validation import power_caps

    found = power_caps.predict(path, regime.known)
    parts = {"" if name == "energy" else name: Part(predictions=own, unexpressed=left)
             for name, (own, left) in reversed(found.items())}
    return Outcome(kind="energy", table="power_caps", regime=regime, parts=parts)


def _inference(path: Path, regime: Regime) -> Outcome:
    from curbcut.plan.validation import energy_inference

    return energy_inference.validate_inference(path, regime)


def _training(table: str, regime: Regime, found: Sequence[Published],
              left: Sequence[Unexpressed],
              inference: Sequence[Mapping[str, str]]) -> Outcome:
    parts: dict[str, Part] = {}
    judged, unexpressed = [], list(left)
    for one in found:
        try:
            judged.append(judge(one))
        except (CannotExpress, InputError) as error:
            unexpressed.append(Unexpressed(one.id, one.source, str(error).partition("\n")[0]))
    for name in ("", *sorted({one.part for one in judged} - {""})):
        parts[name] = Part(
            predictions=[_prediction(one) for one in judged if one.part == name],
            unexpressed=unexpressed if not name else [])
    if inference:
        from curbcut.plan.validation import energy_inference

        own, without = energy_inference.published(inference)
        parts["inference"] = Part(predictions=own, unexpressed=without)
    more = {"lines": [one.plain() for one in judged]} | _rated(judged)
    return Outcome(kind="energy", table=table, regime=regime, parts=parts, more=more)


def _rated(judged: Sequence[Judged]) -> dict[str, Any]:
    """How rows that are hours x rated power came out: reproduced, and what we expect of them."""
    rows = [one for one in judged if one.of.way == "rated"]
    ratios = sorted(one.modelled.value / one.of.kwh for one in rows
                    if one.modelled.value is not None)
    if not ratios:
        return {}
    off = [abs(one.reproduced / one.of.kwh - 1) for one in rows if one.reproduced is not None]
    return {"rated_power": {
        "rows": len(rows), "reproduced": sum(error <= EXACT for error in off),
        "median_ratio": quantile(ratios, 0.5), "least_ratio": ratios[0], "most_ratio": ratios[-1],
        "inside": share(EXPECTED[0] <= one <= EXPECTED[1] for one in ratios),
        "expected": list(EXPECTED), "why": WHY}}


def judge(one: Published) -> Judged:
    """One row beside ours. Raises CannotExpress for one without hours and without tokens, and for
    an accelerator of unknown power.
    """
    if one.machine.kind == "tpu" and one.boundary == "node":
        one.cells.assume(OWN_HOSTS)
    hours, shares = _worked(one)
    modelled = _modelled(one, hours, shares)
    if modelled.value is None:
        raise CannotExpress(modelled.source)
    return Judged(of=one, reproduced=_reproduced(one), modelled=modelled)


def _reproduced(one: Published) -> float | None:
    """By the source's method: hours x power, with PUE unless the figure is nearer without it."""
    plain = _hours_by_power(one)
    if plain is None:
        return None
    return plain if _without_pue(one) else plain * (one.pue or 1.0)


def _hours_by_power(one: Published) -> float | None:
    watts = one.watts or (one.machine.watts.get("max") if one.way == "rated" else None)
    if one.hours is None or watts is None or one.way == "idle":
        return None
    return one.hours * watts / 1000


def _without_pue(one: Published) -> bool:
    """Whether the published figure is hours x power and no more, a PUE stated or not."""
    plain = _hours_by_power(one)
    return plain is not None and abs(one.kwh / plain - 1) <= abs(
        one.kwh / (plain * (one.pue or 2.0)) - 1) and abs(one.kwh / plain - 1) <= ROUNDED


def _worked(one: Published) -> tuple[Estimate, power.Busy | None]:
    """Accelerator-hours, and what they kept busy where parameters and tokens are known: the
    operations of the fastest layout that fits, in the hours that it took.
    """
    tokens = _tokens(one)
    if tokens is None or one.way == "idle" or not one.cells.text("params_total"):
        if one.hours is None:
            raise CannotExpress("no accelerator-hours, and no parameters and tokens to tell them")
        return given(one.hours, "published accelerator-hours"), None
    try:
        found = runs.priced(one.cells, one.id, tokens)
    except (CannotExpress, InputError):
        if one.hours is None:
            raise
        return given(one.hours, "published accelerator-hours"), None
    row = found.row
    parts = time.step_parts(row.shape, row.recipe, row.machine, unseen=True)
    busy = None if parts is None else power.of_step(parts, row.shape, row.recipe, row.machine)
    productive = tokens / row.recipe.step_tokens * row.measured["seconds"] / 3600 \
        * row.machine.accelerators
    if one.hours is not None:
        part = productive / one.hours
        if part < EXPLAINED:
            one.cells.assume(f"its tokens are {part:.0%} of the work of its hours: usual draw")
        busy = None if busy is None or part < EXPLAINED else _in(busy, part)
        return given(one.hours, "published accelerator-hours"), busy
    wide = math.exp(Z90 * found.log_spread)
    hours = Estimate(found.hours, found.hours / wide, found.hours * wide, "modelled",
                     "operations of the fastest layout that fits")
    return hours, None if busy is None else _in(busy, productive / found.hours)


def _in(busy: power.Busy, part: float) -> power.Busy:
    """The same work in another time: never busier than all of it."""
    moved = busy.over(part)
    return dataclasses.replace(moved, compute=min(1.0, float(moved.compute)),
                               memory=min(1.0, float(moved.memory)),
                               link=min(1.0, float(moved.link)))


def _tokens(one: Published) -> float | None:
    """Tokens trained on; from the rate of an accelerator where only that is published."""
    tokens = one.cells.positive("tokens")
    rate = one.cells.positive("tok_s_gpu_reported")
    if tokens is None and rate and one.hours:
        one.cells.assume("tokens from tokens a second and accelerator")
        return rate * one.hours * 3600
    return tokens


def _modelled(one: Published, hours: Estimate, shares: power.Busy | None) -> Estimate:
    """Our kWh at the row's boundary, with PUE where its figure holds it."""
    sheet = Sheet()
    machine = dataclasses.replace(one.machine, nodes=1, accelerators_per_node=1)
    sheet.leaf("seconds.total", hours.scaled(3600), "seconds")
    sheet.leaf("place.pue", _pue(one), "")
    if one.way == "idle":
        return _idle(machine, hours)
    account.write(sheet, machine, Place(), None, shares,
                  around="all equipment" if one.boundary == "all equipment" else "host")
    if one.boundary == "device":
        sheet.formula("kwh.published", "device energy x PUE", ["kwh.device", "place.pue"],
                      lambda kwh, factor: kwh * factor, "kwh")
        return sheet.estimates()["kwh.published"]
    return sheet.estimates()["kwh.facility"]


def _idle(machine: Machine, hours: Estimate) -> Estimate:
    """kWh of nodes at rest, without their building."""
    return account.idle(machine, Place(), hours.scaled(3600))["node"]


def _pue(one: Published) -> Estimate:
    """What the row's figure multiplies by: the stated PUE; none for rated power and for figures of
    accelerators alone; else that of a large data centre, as an assumption.
    """
    if _without_pue(one):
        return given(1.0, "no PUE in the published figure")
    if one.pue:
        return given(max(1.0, one.pue), "published PUE")
    said = " ".join(one.cells.text(name) for name in ("basis", "method", "note")).casefold()
    if one.way == "rated" or "gpu only" in said or one.boundary == "all equipment":
        return given(1.0, "no PUE in the published figure")
    one.cells.assume("PUE of a large data centre")
    return known("pue_hyperscaler")


def _prediction(one: Judged) -> Prediction:
    """The modelled kWh as what was predicted; of rows at rated power what reproduces them."""
    value, low, high = one.modelled.value, one.modelled.low, one.modelled.high
    beside = ""
    assert value is not None and low is not None and high is not None
    if one.of.way == "rated" and one.reproduced is not None:
        beside = f"modelled {value:.4g} kWh ({low:.4g} to {high:.4g})"
        value = one.reproduced
        low, high = value * (1 - EXACT), value * (1 + EXACT)
    down, up = (math.log(value / low) / Z90, math.log(high / value) / Z90)
    return Prediction(
        id=one.of.id, source=one.of.source, predicted=value, measured=one.of.kwh,
        low80=value * math.exp(-Z80 * down), high80=value * math.exp(Z80 * up),
        low95=value * math.exp(-Z95 * down), high95=value * math.exp(Z95 * up),
        assumed=(*one.of.cells.assumed, *([beside] if beside else [])))

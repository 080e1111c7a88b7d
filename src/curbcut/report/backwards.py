"""What a budget buys, as a newcomer reads it: the answer in words, its account, what binds, what
more would buy, the front, and what the best beat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from curbcut import units
from curbcut.plan import rules
from curbcut.plan.backwards.answer import Answer
from curbcut.plan.backwards.points import Point
from curbcut.plan.backwards.question import COSTS, NAMES
from curbcut.plan.backwards.solve import Shadow
from curbcut.report import tables
from curbcut.report.tables import Cell, Column, Table, Value
from curbcut.spec import codec
from curbcut.spec.nouns import Machine, ModelShape, Place
from curbcut.train import refusals

UNITS = {"usd": "usd", "kwh": "kwh", "kgco2e": "kgco2e", "seconds": "seconds", "data": "bytes",
         "loss": ""}
DIGITS = 3


def said(answer: Answer) -> Table:
    """The answer in words, without columns."""
    first, *others = in_words(answer)
    return Table(first, (), (), others)


def all_tables(answer: Answer) -> Iterator[Table]:
    """What binds and what more would buy, the front, the runners-up."""
    yield limits(answer)
    yield front(answer)
    if answer.runners_up:
        yield runners_up(answer)


def in_words(answer: Answer) -> Iterator[str]:
    """The answer as sentences, the first of them the whole of it."""
    run, question = answer.best.resolved.run, answer.question
    bits = answer.best.account.loss["bits_per_byte"]
    loss = f"{units.sig(bits.value or 0, DIGITS)} bits a byte"
    span = tables.interval(bits, "loss")
    what = (f"{_model(run.model)}, trained on {units.show(run.train.tokens, 'count')} tokens for "
            f"{tables.figure(answer.best.account.seconds['total'].value, 'seconds')} on "
            f"{_machine(run.machine)}, {_place(run.place)}")
    if question.loss is None:
        given = _given(answer)
        buy = "buys" if len(given) == 1 else "buy"
        yield f"{_listed(given)} {buy} {loss} ({span}): {what}."
    else:
        cost = _money(answer, answer.spent["usd"])
        yield f"{question.loss:g} bits a byte costs {cost} at least: {what}."
    bound = [NAMES[name] for name in answer.binds]
    yield (f"What binds: {_listed(bound)}." if bound else
           "Nothing binds: more would buy no lower loss.")
    yield f"Planned with {rules.LIMIT_MARGIN:.0%} of each limit, because forecasts err."
    if "seconds" in question.assumed:
        yield "Nobody said how long it may take: a month is assumed (--hours changes it)."
    if question.multiplier.value != 1.0:
        yield (f"The budget is the project's: this run has 1/{question.multiplier.value:.2f} of "
               f"it ({question.multiplier.source}).")
    else:
        yield "The budget is for this run alone; --project counts experiments and failed runs too."
    if run.place.tenure == "own" and run.machine.kind != "cpu":
        yield "Owned: what its hours wear off is counted, not the purchase of the machine."
    if question.traffic is not None:
        yield _serving(answer)
    if reason := refusals.reason(run.model, run.recipe, run.machine):
        yield f"This version prices it and does not train it itself: {reason}."


def _listed(names: Sequence[str]) -> str:
    """ "money, time and memory"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _given(answer: Answer) -> list[str]:
    """The limits that somebody gave."""
    run, found = answer.best.resolved.run, []
    for name, limit in answer.question.limits.items():
        if name in answer.question.assumed:
            continue
        whole = limit * (1.0 if name == "seconds" else answer.question.multiplier.value or 1.0)
        found.append(tables.quantity(whole, UNITS[name], run.place.currency))
    return found


def _model(shape: ModelShape) -> str:
    size = units.show(shape.parameters, "count")
    if not shape.experts:
        return f"a dense model of {size} parameters"
    return (f"a model of {shape.experts} experts a layer, {size} parameters "
            f"({units.show(shape.active_parameters, 'count')} of them active)")


def _machine(machine: Machine) -> str:
    return f"{machine.accelerators} x {machine.accelerator}"


def _place(place: Place) -> str:
    how = {"rent": f"rented {place.contract.replace('-', ' ')}", "own": "owned",
           "academic": "granted"}[place.tenure]
    return f"{how}, grid {place.zone}"


def _serving(answer: Answer) -> str:
    traffic = answer.question.traffic
    assert traffic is not None
    ranks, servers = (int(one) for one in answer.solution.choices.servers[answer.best.row])
    cost = _money(answer, answer.serving["usd"])
    return (f"Serving {units.show(traffic.tokens, 'count')} tokens over {traffic.job.months:g} "
            f"months costs {cost}: {servers} server{'s' if servers > 1 else ''} of {ranks} "
            f"accelerator{'s' if ranks > 1 else ''}, paid for around the clock; it is in the "
            "totals below, and not in the account of training.")


def _money(answer: Answer, usd: float | None) -> str:
    return tables.quantity(usd, "usd", answer.best.resolved.run.place.currency)


def limits(answer: Answer) -> Table:
    """Each limit: how much of it is planned, whether it binds, and what more of it would buy."""
    currency, target = answer.best.resolved.run.place.currency, answer.question.loss is not None
    what = "money" if target else "bits a byte"
    rows: list[Sequence[Value]] = []
    for shadow in answer.shadows:
        step = _step(shadow, currency)
        rows.append((
            NAMES[shadow.name], Cell(_amount(shadow.name, shadow.limit, currency),
                                     plain=shadow.limit),
            _used(answer, shadow),
            shadow.name in answer.binds, Cell(_amount(shadow.name, step, currency), plain=step),
            Cell(_gain(answer, shadow.per_unit * step), plain=shadow.per_unit * step),
            Cell(_gain(answer, shadow.tenth), plain=shadow.tenth)))
    notes = [f"Gains are {what} saved, by the law's middle, with all other limits as they are."]
    others = [NAMES[name] for name in answer.binds if name in ("memory", "law")]
    if "memory" in others:
        notes.append("Memory binds too: with endless memory another layout or model would do "
                     "better.")
    if "law" in others:
        notes.append("The largest shape of the family was taken: beyond it nothing is priced.")
    return Table("What binds, and what more would buy", (
        Column("limit"), Column("given", right=True), Column("used", right=True), Column("binds"),
        Column("so much more", right=True), Column(f"saves {what}", right=True, name="saves"),
        Column("a tenth more saves", right=True, name="tenth_saves")), rows, notes, currency)


def _used(answer: Answer, shadow: Shadow) -> Cell:
    """Share of a limit that the plan takes; of text, how many times it is read."""
    if shadow.name == "data":
        choices, run = answer.solution.choices, answer.best.resolved.run
        unique = choices.law.unique_tokens(int(choices.of_shape[answer.best.row]))
        times = run.train.tokens / unique if unique else 0.0
        return Cell(f"{times:.1f} times", plain=times)
    used = answer.spent.get(shadow.name)
    if used is None:
        return Cell("", plain=None)
    return Cell(f"{used / shadow.limit:.0%}", plain=used / shadow.limit)


def _step(shadow: Shadow, currency: str) -> float:
    """A round amount, between 1% and 10% of the limit, in the unit that people read."""
    from curbcut.facts.currency import usd_per

    unit = {"usd": usd_per(currency).value, "seconds": 3600.0, "data": 1e9}.get(shadow.name, 1.0)
    return float(unit * 10 ** math.floor(math.log10(shadow.limit / unit / 10)))


def _amount(name: str, value: float, currency: str) -> str:
    if name == "data":  # people count text in GB, and so does --data
        scale, unit = next(((f, n) for f, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"))
                            if value >= f), (1e3, "kB"))
        return f"{units.sig(value / scale)} {unit}"
    return tables.quantity(value, UNITS[name], currency)


def _gain(answer: Answer, gain: float) -> str:
    if gain == 0:
        return "nothing"
    return _money(answer, gain) if answer.question.loss is not None else units.small(gain)


def front(answer: Answer) -> Table:
    """Points of the front with their figures and intervals, a row each."""
    currency = answer.best.resolved.run.place.currency
    rows: list[Sequence[Value]] = []
    for one in answer.front:
        usd = one.costs["usd"]
        rows.append((*_bits(one), Cell(_compact(usd.value, currency), plain=usd),
                     Cell(f"{_compact(usd.low, currency)}..{_compact(usd.high, currency)}",
                          plain=None),
                     one.costs["seconds"], one.costs["kwh"], one.costs["kgco2e"],
                     float(one.shape.parameters), one.tokens, _stands(one)))
    return Table("The front: what nothing beats in loss, money, time, energy and carbon together", (
        Column("bits/byte", right=True, interval=True, name="bits_per_byte"),
        Column("90%", right=True, only="people"),
        Column(currency, right=True, unit="usd", interval=True, name="money_usd"),
        Column("90% ", right=True, only="people"), Column("time", unit="seconds"),
        Column("energy", unit="kwh"), Column("carbon", unit="kgco2e"),
        Column("model", unit="count", name="parameters"), Column("tokens", unit="count"),
        Column("machine", least=20)), rows, currency=currency)


def runners_up(answer: Answer) -> Table:
    """The best of other machines, each with why it lost."""
    currency = answer.best.resolved.run.place.currency
    rows: list[Sequence[Value]] = [(
        _stands(one), *_bits(one), Cell(_compact(one.costs["usd"].value, currency),
                                     plain=one.costs["usd"]),
        one.costs["seconds"], float(one.shape.parameters), _chance(one), one.why)
        for one in answer.runners_up]
    return Table("The best of other machines, and why they lost", (
        Column("machine"), Column("bits/byte", right=True, interval=True, name="bits_per_byte"),
        Column("90%", right=True, only="people"),
        Column(currency, right=True, unit="usd", interval=True, name="money_usd"),
        Column("time", unit="seconds"), Column("model", unit="count", name="parameters"),
        Column("better after all", right=True, name="chance"),
        Column("beside the best", least=26, name="why")), rows,
        ["Better after all: in that share of seeded draws of prices, speeds, power and the law's "
         "words it beats the best within the same limits.",
         "x: times the best's price of an accelerator and hour, and of 6 N D FLOPs."], currency)


def _chance(one: Point) -> Cell:
    """How likely a runner-up is the better one; programs read a share."""
    if one.chance is None:
        return Cell("", plain=None)
    return Cell(f"{one.chance:.0%}", plain=one.chance)


def _bits(one: Point) -> tuple[Cell, Cell]:
    """Bits a byte, and the interval in few letters; programs read it with the value."""
    bits = one.bits
    return (Cell(units.sig(bits.value or 0, DIGITS), plain=bits),
            Cell(f"{bits.low:.2f}..{bits.high:.2f}", plain=None))


def _stands(one: Point) -> str:
    """The machine, and its precision and contract where they are not the usual ones."""
    precision = "" if one.precision == rules.precision(one.machine)[0] else f" {one.precision}"
    contract = "" if one.place.contract == "on-demand" else f", {one.place.contract}"
    return f"{one.machine.name}{precision}{contract}"


def _compact(usd: float | None, currency: str) -> str:
    """An amount in three digits: "4.25k"."""
    from curbcut.facts.currency import usd_per

    if usd is None:
        return "unknown"
    amount = usd / usd_per(currency).value
    factor, letter = next(((f, n) for f, n in ((1e9, "B"), (1e6, "M"), (1e3, "k"))
                           if abs(amount) >= f), (1.0, ""))
    return f"{units.small(amount / factor, DIGITS)}{letter}"


def as_plain(answer: Answer) -> dict[str, Any]:
    """The answer for programs: nothing in it depends on the clock."""
    question, run = answer.question, answer.best.resolved.run
    return {
        "answer": list(in_words(answer)),
        "question": {"limits": dict(question.limits), "assumed": sorted(question.assumed),
                     "loss_bits_per_byte": question.loss, "text_bytes": question.text_bytes,
                     "margin": rules.LIMIT_MARGIN,
                     "development_multiplier": codec.plain(question.multiplier),
                     "served_tokens": question.traffic.tokens if question.traffic else None},
        "compared": {"machines": answer.machines, "plans": answer.priced,
                     "recipes": answer.best.priced},
        "best": _plain(answer.chosen) | {
            "bits_per_byte": codec.plain(answer.best.account.loss["bits_per_byte"]),
            "tokens": run.train.tokens,
            "priced_only_for": refusals.reason(run.model, run.recipe, run.machine) or None},
        "serving": answer.serving or None,
        "binds": list(answer.binds),
        "shadow_prices": [{"limit": one.name, "given": one.limit, "per_unit": one.per_unit,
                           "a_tenth_more": one.tenth,
                           "of": "usd" if question.loss is not None else "bits_per_byte"}
                          for one in answer.shadows],
        "front": [_plain(one) for one in answer.front],
        "runners_up": [_plain(one) | {"why": one.why, "chance_better": one.chance}
                       for one in answer.runners_up],
    }


def _plain(one: Point) -> dict[str, Any]:
    return {"machine": one.machine.name, "precision": one.precision,
            "contract": one.place.contract, "zone": one.place.zone,
            "parameters": one.shape.parameters, "active_parameters": one.shape.active_parameters,
            "layers": one.shape.layers, "width": one.shape.width, "experts": one.shape.experts,
            "tokens": one.tokens, "bits_per_byte": codec.plain(one.bits)} | {
                name: codec.plain(one.costs[name]) for name in COSTS}

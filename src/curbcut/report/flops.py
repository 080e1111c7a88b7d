"""FLOPs of a model by convention, the rule of thumb beside the count, and the matmuls it sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from curbcut import units
from curbcut.physics.flops import CONVENTIONS, TRAINING_OVER_FORWARD, forward_flops
from curbcut.physics.operations import Matmul, head_matmul, layer_matmuls
from curbcut.plan.rule_of_thumb import TOKENS_PER_PARAMETER, Line, Rule, Supply, of_shape
from curbcut.report.tables import Cell, Column, Format, Table, Value, show
from curbcut.spec import ModelShape

if TYPE_CHECKING:
    from rich.console import Console

FRAMEWORK = "framework of arXiv:2404.08811"


@dataclass(frozen=True)
class Count:
    """What one token of a sequence of `sequence_tokens` costs."""

    shape: ModelShape
    sequence_tokens: int
    by_convention: Mapping[str, float]
    """Training FLOPs a token."""
    matmuls: tuple[Matmul, ...]
    """Of one sequence, forward, scores apart."""
    scores: float
    """Forward FLOPs of one sequence's causal scores."""
    rule: Rule
    """C0 P T and 120 P^2 / K."""

    @property
    def training_flops(self) -> float:
        """The exact count of training on the rule's tokens."""
        return self.by_convention["exact"] * self.rule.tokens


def count(shape: ModelShape, sequence_tokens: int) -> Count:
    """Counts `shape` over sequences of `sequence_tokens`."""
    matmuls = (*layer_matmuls(shape, sequence_tokens), head_matmul(shape, sequence_tokens))
    scores = sequence_tokens * forward_flops(shape, sequence_tokens).scores
    return Count(shape, sequence_tokens, {
        name: float(each(shape, sequence_tokens)) for name, each in CONVENTIONS.items()},
        matmuls, scores, of_shape(shape))


def as_plain(counted: Count) -> dict[str, Any]:
    """The count as JSON has it: every FLOP figure for training, forward and backward."""
    times = TRAINING_OVER_FORWARD / counted.sequence_tokens
    return {
        "model": counted.shape.preset, "sequence_tokens": counted.sequence_tokens,
        "parameters": counted.shape.parameters,
        "active_parameters": counted.shape.active_parameters,
        "flops_per_token": dict(counted.by_convention),
        "matmuls": [{"name": one.name, "rows": one.rows, "inner": one.inner,
                     "columns": one.columns, "copies": one.copies,
                     "flops_per_token": one.flops * times} for one in counted.matmuls],
        "causal_scores_flops_per_token": counted.scores * times,
        "rule_of_thumb": {"tokens": counted.rule.tokens, "sparsity": counted.rule.sparsity,
                          "flops": counted.rule.flops, "exact_flops": counted.training_flops,
                          "source": FRAMEWORK},
    }


def print_count(counted: Count, mfu: Mapping[str, float] | None = None, chosen: Format = "text",
                console: Console | None = None) -> None:
    """Prints the tables in a format; `mfu` is one utilisation as each convention counts it."""
    plain = as_plain(counted) | ({"mfu": dict(mfu)} if mfu else {})
    show(tables(counted, mfu), chosen, plain=plain, console=console)


def tables(counted: Count, mfu: Mapping[str, float] | None = None) -> list[Table]:
    """By convention; by the rule of thumb; and the matmuls."""
    return [_conventions(counted, mfu or {}), rule_table(counted), _matmuls(counted)]


def _conventions(counted: Count, mfu: Mapping[str, float]) -> Table:
    shape, exact = counted.shape, counted.by_convention["exact"]
    active = "" if shape.active_parameters == shape.parameters else (
        f" ({units.show(shape.active_parameters, 'count')} active)")
    title = (f"{shape.preset}: {units.show(shape.parameters, 'count')} parameters{active}, "
             f"sequences of {counted.sequence_tokens:,} tokens")
    columns = [Column("convention"), Column("training GFLOPs a token", right=True),
               Column("of the exact count", right=True)]
    rows: list[list[Value]] = [[
        Cell(name, "bold" if name == "exact" else ""),
        Cell(units.sig(flops / 1e9), plain=flops / 1e9),
        Cell(f"{flops / exact:.3f}", plain=flops / exact)]
        for name, flops in counted.by_convention.items()]
    if mfu:
        columns.append(Column("the utilisation", right=True))
        rows = [[*row, Cell(f"{share:.1%}", plain=share)]
                for row, share in zip(rows, mfu.values(), strict=True)]
    return Table(title, tuple(columns), rows)


def rule_table(counted: Count) -> Table:
    """The rule of thumb beside the real count, at the rule's own tokens."""
    rule, exact = counted.rule, counted.training_flops
    sparse = rule.sparsity > 1
    rows: list[tuple[Value, ...]] = [
        ("120 P^2 / K" if sparse else "120 P^2", rule.flops, _share(rule.flops / exact)),
        (Cell("real count", "bold"), exact, _share(1.0))]
    experts = f"; K = {units.sig(rule.sparsity)}, total over active" if sparse else ""
    return Table(
        f"Rule of thumb: to train on {TOKENS_PER_PARAMETER:g} tokens a parameter "
        f"({units.show(rule.tokens, 'count')})",
        (Column("by"), Column("training FLOPs", unit="flops"),
         Column("of the real count", right=True)), rows,
        [f"C = 6 P T with T = 20 P{experts} ({FRAMEWORK})"])


def _share(value: float) -> Cell:
    return Cell(f"{value:.3f}", plain=value)


def size_table(lines: list[Line], by: Supply) -> Table:
    """Sizes by the rule of thumb on one kind of accelerator: orders of magnitude, no plan."""
    name = by.name.upper()
    return Table(
        f"By the rule of thumb, on {name}",
        (Column("parameters", unit="count"), Column("tokens", unit="count"),
         Column("training FLOPs", unit="flops"), Column("accelerator hours", unit="count"),
         Column("rent", unit="usd"), Column("energy", unit="kwh"),
         Column("training state", unit="bytes"),
         Column("on 1,024", unit="seconds", name="seconds_on_1024")),
        [(one.rule.parameters, one.rule.tokens, one.rule.flops, one.accelerator_hours, one.usd,
          1000 * one.mwh, one.training_bytes, 86_400 * one.days_on_many) for one in lines],
        [f"C = 120 P^2 ({FRAMEWORK}), {by.utilisation:.0%} of "
         f"{units.show(by.flops_per_second, 'flops/s')}, {by.kilowatts:.2f} kW each with server "
         "and building, 16 bytes a parameter"])


def _matmuls(counted: Count) -> Table:
    total = sum(one.flops for one in counted.matmuls) + counted.scores
    rows: list[tuple[Value, ...]] = [
        (one.name, *(Cell(f"{number:,.0f}", plain=float(number))
                     for number in (one.rows, one.inner, one.columns, one.copies)),
         Cell(f"{one.flops / total:.1%}", plain=one.flops / total)) for one in counted.matmuls]
    rows.append(("causal scores", *(Cell("", plain=None) for _ in range(4)),
                 Cell(f"{counted.scores / total:.1%}", plain=counted.scores / total)))
    return Table("Matmuls of one sequence: rows x inner by inner x columns", (
        Column("name"), *(Column(title, right=True) for title in (
            "rows", "inner", "columns", "copies", "of forward"))), rows)

"""The ways to serve a run beside each other, and which is taken, as people read it."""

from __future__ import annotations

from typing import Any

from curbcut import units
from curbcut.plan.serving_choice import Choice, Way
from curbcut.report.tables import Cell, Column, Table, Value
from curbcut.spec import codec

COLUMNS = (Column("way", least=24), Column("together", unit="count"),
           Column("ttft", unit="seconds"), Column("tpot", unit="seconds", interval=True),
           Column("tokens/s", unit="count"), Column("J/token"), Column("USD/M"),
           Column("memory", unit="bytes", only="programs"),
           Column("loss", unit="fraction", only="programs"),
           Column("refused", only="programs"), Column("quality and memory", below=True,
                                                      only="people"))
SHOWN = 12
"""Ways in a table for people."""


def table(choice: Choice, *, most: int = SHOWN) -> Table:
    """The cheapest ways, the chosen one first."""
    ways = [way for way in choice.ways if way is choice.chosen]
    ways += [way for way in choice.ways if way is not choice.chosen]
    job = choice.run.serve
    title = (f"Ways to serve {choice.run.name} on {choice.run.machine.name}: prompts of "
             f"{job.prompt_tokens}, answers of {job.output_tokens}, kept full within the objective")
    notes = [*choice.reasons, *(f"warning: {said}" for said in choice.warnings)]
    return Table(title, COLUMNS, [_row(way, choice) for way in ways[:most]], notes=notes)


def _row(way: Way, choice: Choice) -> tuple[Value, ...]:
    chosen = " (taken)" if way is choice.chosen else ""
    return (Cell(way.name + chosen, way.name), way.run.serve.max_batch, way.ttft, way.tpot,
            way.tokens_per_second.value, way.joules.value, way.usd.value, way.memory_bytes,
            way.loss.value, way.refused or None, _words(way))


def _words(way: Way) -> str:
    """Memory, loss of quality and why it is not taken, where something is to be said."""
    said = [units.show(way.memory_bytes, "bytes")]
    if way.loss.value:
        said.append(f"loses {way.loss.value:.2%} of bits a byte (to {way.loss.high or 0:.2%})")
    if way.refused:
        said.append(way.refused)
    return ", ".join(said)


def as_plain(choice: Choice) -> dict[str, Any]:
    """The same in full, for programs."""
    return {"serve": codec.plain(choice.run.serve), "precision": choice.run.recipe.precision,
            "met": choice.chosen is not None, "reasons": list(choice.reasons),
            "warnings": list(choice.warnings),
            "ways": [{"way": way.name, "serve": codec.plain(way.run.serve),
                      "precision": way.run.recipe.precision, "refused": way.refused,
                      "memory_bytes": way.memory_bytes} | {
                          name: codec.plain(getattr(way, name)) for name in
                          ("ttft", "tpot", "tokens_per_second", "joules", "usd", "loss")}
                     for way in choice.ways]}

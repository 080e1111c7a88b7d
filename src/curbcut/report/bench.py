"""What users of a server meet under load, as tables; beside it what the plan promised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from curbcut.report.tables import Cell, Column, Figure, Table, Value
from curbcut.serve.bench.drive import Found
from curbcut.serve.bench.promise import account
from curbcut.serve.bench.result import PERCENTILES, Result, Spread
from curbcut.spec import codec
from curbcut.spec.account import UNIT_OF, Account

LATE_SHARE = 0.1
"""Share of the median TTFT from which a late client is worth a word."""
FIGURES = {("seconds", "ttft"): "TTFT", ("seconds", "tpot"): "TPOT",
           ("tokens_per_second", "answers"): "answers",
           ("joules_per_token", "answer"): "energy a token"}
"""What is promised of a load, as people call it."""


def tables(found: Found, promised: Sequence[Account] = (),
           notes: Sequence[str] = ()) -> Iterator[Table]:
    """Speed, latency and, where there is a plan, promised against measured."""
    yield _speed(found, [*found.notes, *notes])
    yield _latency(found)
    if promised:
        yield _against(found, promised)


def _speed(found: Found, notes: Sequence[str]) -> Table:
    rows: list[Sequence[Value]] = []
    for one in found.results:
        rows.append((one.load, one.requests, sum(one.errors.values()), round(one.in_flight, 2),
                     round(one.requests_per_second, 3), Figure(one.input_per_second, "tokens/s"),
                     Figure(one.output_per_second, "tokens/s"),
                     None if one.goodput is None else round(one.goodput, 3), one.joules_per_token))
    columns = [Column("load"), Column("answered"), Column("failed"), Column("in flight"),
               Column("requests/s"), Column("in", name="input_tokens_per_second"),
               Column("out", name="output_tokens_per_second"), Column("goodput/s"),
               Column("J/token", name="joules_per_token", unit="joules")]
    dropped = [place for place, gone in ((2, not any(one.errors for one in found.results)),
                                         (7, all(one.good is None for one in found.results)))
               if gone]
    kept = [place for place in range(len(columns)) if place not in dropped]
    return Table(f"{found.model} under load", tuple(columns[place] for place in kept),
                 [[row[place] for place in kept] for row in rows],
                 [*_counted(found.results), *_energy(found.results), *_failed(found.results),
                  *_late(found.results), *notes])


def _latency(found: Found) -> Table:
    rows: list[Sequence[Value]] = []
    for one in found.results:
        for n, (name, spread) in enumerate((
                ("TTFT", one.ttft), ("TPOT", one.tpot), ("between pieces", one.gaps),
                ("whole answer", one.end_to_end))):
            if spread is not None:
                rows.append((Cell(one.load if n == 0 else "", plain=one.load), name,
                             *_spread(spread)))
    return Table("Latency", (Column("load"), Column("of"), Column("mean", unit="seconds"), *(
        Column(f"p{percent}", unit="seconds") for percent in PERCENTILES),
        Column("most", unit="seconds")), rows,
        ["from when a request was due; TPOT: mean of an answer's tokens after its first"])


def _spread(spread: Spread) -> list[float]:
    return [spread.mean, *(spread.percentiles[percent] for percent in PERCENTILES), spread.most]


def _against(found: Found, promised: Sequence[Account]) -> Table:
    rows: list[Sequence[Value]] = []
    for one, plan in zip(found.results, promised, strict=True):
        measured = account(one)
        for n, ((section, kind), name) in enumerate(FIGURES.items()):
            line = next((line for line in plan.against(measured)
                         if (line.section, line.kind) == (section, kind)), None)
            if line is None or line.promised is None or line.measured is None:
                continue
            unit = UNIT_OF[section]
            mark = {True: Cell("inside", "green"), False: Cell("OUTSIDE", "bold red"),
                    None: Cell("")}[line.inside]
            rows.append((Cell(one.load if n == 0 else "", plain=one.load), name,
                         Figure(line.promised, unit), Figure(line.measured.value, unit),
                         Cell("" if line.ratio is None else f"{line.ratio:.2f}",
                              plain=line.ratio), mark))
    return Table("The plan against it (means)", (
        Column("load"), Column("of"), Column("promised", right=True, interval=True),
        Column("measured", right=True), Column("ratio", right=True),
        Column("", name="verdict")), rows)


def _counted(results: Sequence[Result]) -> list[str]:
    how = {one.counted for one in results}
    if "chunks" in how:
        return ["the server counts no tokens: pieces of its stream are taken for tokens"]
    if "tokenizer" in how:
        return ["tokens are counted here, by the tokenizer that was given: the server says none"]
    cached = sum(one.cached_tokens for one in results)
    prompts = sum(one.prompt_tokens for one in results)
    known = f"; {cached / prompts:.0%} of prompt tokens were remembered" if cached else ""
    return [f"tokens as the server counts them{known}"]


def _energy(results: Sequence[Result]) -> list[str]:
    return [f"J/token: {source}" for source in
            dict.fromkeys(one.joules.source.partition(":")[0] for one in results)]


def _failed(results: Sequence[Result]) -> list[str]:
    return [f"{count} failed at {one.load}: {why}" for one in results
            for why, count in one.errors.items()]


def _late(results: Sequence[Result]) -> list[str]:
    return [f"at {one.load} the client itself was late by {1e3 * one.late.percentiles[99]:.1f} ms "
            "(p99): it has too little of this computer" for one in results
            if one.late and one.ttft
            and one.late.percentiles[99] > LATE_SHARE * one.ttft.percentiles[50]]


def as_plain(found: Found, promised: Sequence[Account] = (),
             asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All that was found, JSON-ready; what was not measured is None."""
    return {"model": found.model, **(asked or {}), "notes": list(found.notes),
            "loads": [_plain(one) | ({"promised": codec.plain(promised[n])} if promised else {})
                      for n, one in enumerate(found.results)]}


def _plain(one: Result) -> dict[str, Any]:
    plain = asdict(one)
    for name in ("ttft", "tpot", "gaps", "end_to_end", "late"):
        spread: Spread | None = getattr(one, name)
        plain[f"{name}_seconds"] = None if spread is None else {
            "mean": spread.mean, **{f"p{p}": v for p, v in spread.percentiles.items()},
            "most": spread.most}
        del plain[name]
    for name in ("requests_per_second", "goodput"):
        plain[name] = getattr(one, name)
    plain["input_tokens_per_second"] = one.input_per_second
    plain["output_tokens_per_second"] = one.output_per_second
    plain["joules"] = codec.plain(one.joules)
    plain["joules_per_token"] = codec.plain(one.joules_per_token)
    plain["errors"] = dict(one.errors)
    return plain

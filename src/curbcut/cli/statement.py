"""`curbcut statement [MONTH]`: a month's account of an organisation or a project."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.cli import formats
from curbcut.cli.keys import add_ledger_options, ledger_of
from curbcut.errors import InputError

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger
    from curbcut.papers.statement import Statement
    from curbcut.report.tables import Table

SUFFIXES = (".pdf", ".csv")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "statement", help="a month's account of an organisation or project, as PDF or CSV",
        description="What was asked in a month, by key and model: tokens, money, energy and "
                    "carbon, with how each is known.")
    parser.add_argument("month", nargs="?", metavar="MONTH",
                        help="as in 2026-11, of UTC (default: this one)")
    parser.add_argument("--organisation", metavar="NAME",
                        help="of all its projects (default: the only one that asked anything)")
    parser.add_argument("--project", metavar="NAME", help="of this project alone")
    parser.add_argument("--to", type=Path, metavar="FILE", action="append", default=[],
                        help="write it to FILE.pdf or FILE.csv; may be given for both")
    add_ledger_options(parser)
    formats.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the statement, or writes the files that were asked for; returns 0."""
    chosen = formats.chosen(args)
    for path in args.to:
        if path.suffix.lower() not in SUFFIXES:
            raise InputError(f"{path.name!r} is neither a PDF nor a CSV", where="--to",
                             mend=f"call it {path.stem or 'statement'}.pdf")
    from curbcut.papers.statement import as_csv, statement

    with ledger_of(args, create=False) as ledger:
        found = statement(ledger, _scope(ledger, args), args.month)
    if not args.to:
        from curbcut.report.tables import show

        if chosen == "csv":
            print(as_csv(found), end="")
        else:
            show(_tables(found), chosen, plain=_plain(found) if chosen == "json" else None)
        return 0
    for path in args.to:
        _write(found, path)
        print(f"{path}: statement of {found.scope}, {found.month}")
    return 0


def _write(found: Statement, path: Path) -> None:
    from curbcut.papers.statement import as_csv
    from curbcut.papers.statement_pdf import write_pdf

    try:
        if path.suffix.lower() == ".pdf":
            write_pdf(found, path)
        else:
            path.write_text(as_csv(found), encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"cannot be written ({error.strerror})", where=str(path),
                         mend="name a file in a folder that is there") from None


def _scope(ledger: Ledger, args: argparse.Namespace) -> str:
    if args.organisation and args.project:
        raise InputError("is for an organisation, or for a project of it", where="statement",
                         mend="give one of --organisation and --project")
    if args.project:
        return f"project:{args.project}"
    if args.organisation:
        return f"organisation:{args.organisation}"
    from curbcut.ledger import access, usage

    # The first organisation is made with the ledger, and often nobody is in it.
    known = access.organisations(ledger)
    asked = {one.organisation for one in usage.used(ledger, by=("organisation",))}
    known = [name for name in known if name in asked] or known
    if len(known) != 1:
        raise InputError(f"there are {len(known)} organisations", where="statement",
                         mend=f"--organisation {' or '.join(known[:8])}")
    return f"organisation:{known[0]}"


def _tables(found: Statement) -> list[Table]:
    from curbcut.papers.statement import notes
    from curbcut.report.tables import Column, Table

    columns = (Column("key", least=12), Column("model", least=10), Column("requests", unit="count"),
               Column("prompt", unit="count"), Column("answer", unit="count"),
               Column("charged", unit="usd"), Column("cost", unit="usd"),
               Column("energy", unit="kwh"), Column("carbon", unit="kgco2e"))
    every = [(line.key or "no key", line.model, line) for line in found.lines]
    every += [("total", "", found.total)] if every else []
    rows = [(key, model, line.requests, line.prompt_tokens, line.answer_tokens, line.charged_usd,
             line.cost_usd, line.kwh, None if line.gco2e is None else line.gco2e / 1000)
            for key, model, line in every]
    total = found.total
    said = [] if rows else ["Nothing was asked in this time."]
    said += notes(found)
    if total.kwh:
        said.append(f"Energy: {(total.kwh_measured or 0.0) / total.kwh:.0%} measured, the rest "
                     "modelled.")
    if found.idle_share is not None:
        said.append(f"Idle: {found.idle_share:.0%} of the machines' energy, charged to nobody.")
    if found.audit is not None:
        said.append(f"Audit chain: {found.audit.rows} rows, {found.audit.fault or 'sound'}, head "
                     f"{found.audit.head}")
    return [Table(f"{found.scope}, {found.month}", columns, rows, said)]


def _plain(found: Statement) -> dict[str, Any]:
    from curbcut.papers.statement import notes, rows

    table = rows(found)
    return {"scope": found.scope, "month": found.month, "whole": found.whole,
            "lines": [row for row in table if row["line"] == "use"],
            "total": next(row for row in table if row["line"] == "total"),
            "machines": [{"kind": part.kind, "seconds": part.seconds, "kwh": part.kwh,
                          "usd": part.usd, "gco2e": part.gco2e} for part in found.parts],
            "idle_share": found.idle_share, "notes": notes(found), "sources": list(found.sources),
            "audit": None if found.audit is None else {
                "rows": found.audit.rows, "head": found.audit.head,
                "fault": found.audit.fault or None}}

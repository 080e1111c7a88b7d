"""`curbcut access organisation | project | limit | budget | price | licence | show`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.cli import formats
from curbcut.cli.keys import actor, add_ledger_options, ledger_of
from curbcut.errors import EXIT_OK, InputError, UnknownName

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

Does = Callable[[argparse.Namespace, "Ledger"], None]
_SCOPE = "organisation:NAME, project:NAME or key:NAME"
_COUNTS = ("requests_a_minute", "tokens_a_minute", "concurrency")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "access", help="organisations, projects, limits, budgets, prices and licences",
        description="Who may ask how much of what is served. Keys belong to projects, projects to "
        "organisations; limits and budgets of all three hold at once. A running server heeds a "
        "change within two seconds.")
    nouns = parser.add_subparsers(dest="noun", metavar="NOUN", required=True)
    organisation = _noun(nouns, "organisation", "who projects belong to")
    _named(_action(organisation, "add", _add_organisation, "make one"))
    _action(organisation, "list", _show("organisations"), "all, with their projects")
    project = _noun(nouns, "project", "what keys belong to")
    adding = _named(_action(project, "add", _add_project, "make one"))
    adding.add_argument("--organisation", metavar="NAME", help="whose it is (default)")
    _named(_action(project, "archive", _archive_project, "end one, and all its keys"))
    _action(project, "list", _show("organisations"), "all, by organisation")
    limit = _noun(nouns, "limit", "what a scope may ask at a time")
    setting = _scoped(_action(limit, "set", _limit, "change some limits of a scope"))
    setting.add_argument("--models", metavar="A,B|any", help="the only models it may ask")
    for name, what in zip(_COUNTS, ("requests begun", "tokens asked for", "requests at a time"),
                          strict=True):
        setting.add_argument(f"--{name.replace('_', '-')}", metavar="N|any", help=f"{what}")
    setting.add_argument("--weight", metavar="W", help="its share beside others who wait: of two "
                         "with 1 and 3, the second gets three quarters (1)")
    _action(limit, "list", _show("limits"), "all limits")
    _add_money(nouns)
    licence = _noun(nouns, "licence", "texts to accept before a key is issued")
    setting = _scoped(_action(licence, "set", _set_licence, "put a text before keys of a scope"),
                      "organisation:NAME, project:NAME or model:NAME")
    setting.add_argument("file", type=Path, metavar="FILE", help="the text, UTF-8")
    _scoped(_action(licence, "end", _end_licence, "need it no more"), "its scope")
    _scoped(_action(licence, "show", _read_licence, "print a text"), "its scope")
    _action(licence, "list", _show("licences"), "all texts with their hashes")
    showing = nouns.add_parser("show", help="all of this")
    _finish(showing, _show())


def _add_money(nouns: Any) -> None:
    budget = _noun(nouns, "budget", "what a scope may take of tokens, money or energy")
    setting = _scoped(_action(budget, "set", _set_budget, "give a scope a budget"))
    setting.add_argument("amount", metavar="AMOUNT", help='like "5 EUR", "2 kWh" or "1M tokens"')
    ending = _scoped(_action(budget, "end", _end_budget, "take a budget away: then nothing bounds "
                             "it"))
    ending.add_argument("unit", metavar="usd|kwh|tokens", help="which of its budgets")
    for action in (setting, ending):
        action.add_argument("--period", metavar="all|month|day", default="all",
                            help="once for all, or anew each month or day, UTC (all)")
    _action(budget, "list", _show("budgets"), "all, with what is spent and left")
    price = _noun(nouns, "price", "what a million tokens of a model cost")
    setting = _action(price, "set", _set_price, "the price from now on")
    setting.add_argument("model", metavar="MODEL", help="what the model is called where it is "
                         "served")
    for name, need, what in (("prompt", True, "of the prompt"), ("output", True, "of the answer"),
                             ("cached", False, "of a prompt that is remembered (as the prompt)")):
        setting.add_argument(f"--{name}", required=need, metavar="MONEY",
                             help=f'a million tokens {what}, like "0.20 USD"')
    for name in ("prompt", "output"):
        setting.add_argument(f"--{name}-energy", metavar="ENERGY", help="what these take at most, "
                             'like "0.5 kWh"; budgets of energy need it')
    setting.add_argument("--source", default="", help="where the price is from")
    _action(price, "list", _show("prices"), "the price list")


def _noun(nouns: Any, name: str, what: str) -> Any:
    return nouns.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.") \
        .add_subparsers(dest="action", metavar="ACTION", required=True)


def _action(actions: Any, name: str, does: Does, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=what)
    _finish(parser, does)
    return parser


def _finish(parser: argparse.ArgumentParser, does: Does) -> None:
    formats.add(parser)
    add_ledger_options(parser)
    parser.set_defaults(run=run, does=does)


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME", help="a-z, 0-9, dot, dash, _")
    return parser


def _scoped(parser: argparse.ArgumentParser, what: str = _SCOPE) -> argparse.ArgumentParser:
    parser.add_argument("scope", metavar="SCOPE", help=what)
    return parser


def run(args: argparse.Namespace) -> int:
    """Does one action, and prints what then stands; returns 0."""
    formats.chosen(args)
    making = getattr(args, "action", "show") in ("add", "set")
    with ledger_of(args, create=making) as ledger:
        args.does(args, ledger)
    return EXIT_OK


def _show(*names: str) -> Does:
    """Prints tables: those named, or all that are not empty."""
    def does(args: argparse.Namespace, ledger: Ledger) -> None:
        from curbcut.report import access as report
        from curbcut.report.tables import show

        tables, rows = report.tables(ledger, names), report.as_plain(ledger, names)
        chosen = formats.chosen(args)
        if chosen == "text" and not any(table.rows for table in tables):
            print(f"no {' and '.join(names)} yet" if names else "nothing yet")
            return
        show([table for table in tables if table.rows], chosen,
             plain=rows[names[0]] if len(names) == 1 else rows)
    return does


def _add_organisation(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import access

    access.create_organisation(ledger, args.name, actor=actor())
    _show("organisations")(args, ledger)


def _add_project(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import access
    from curbcut.ledger.migrations import DEFAULT

    access.create_project(ledger, args.name, args.organisation or DEFAULT, actor=actor())
    _show("organisations")(args, ledger)


def _archive_project(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import access

    access.archive_project(ledger, args.name, actor=actor())
    _show("organisations")(args, ledger)


def _limit(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut import units
    from curbcut.ledger import access, said

    given: dict[str, Any] = {name: _count(getattr(args, name), name) for name in _COUNTS
                             if getattr(args, name) is not None}
    if args.models is not None:
        given["models"] = None if args.models == "any" else _models(args.models)
    if args.weight is not None:
        given["weight"] = units.parse(args.weight, "count", "--weight")
    if not given:
        raise InputError("says no limit", where="access limit set",
                         mend="give --models, --requests-a-minute, --tokens-a-minute, "
                              "--concurrency or --weight")
    scope = said.scope(ledger, args.scope)
    before = access.allowances(ledger, [scope]).get(scope, access.Allowance())
    access.set_allowance(ledger, scope, replace(before, **given), actor=actor())
    _show("limits")(args, ledger)


def _set_budget(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import budgets, said

    unit, amount = said.amount(args.amount, "the budget")
    budgets.set_budget(ledger, said.scope(ledger, args.scope), unit, amount, period=args.period,
                       actor=actor())
    _show("budgets")(args, ledger)
    if unit == "nanousd":
        _tell_rates(args, args.amount)


def _end_budget(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import budgets, said

    unit = said.unit(args.unit, "access budget end")
    budgets.set_budget(ledger, said.scope(ledger, args.scope), unit, None, period=args.period,
                       actor=actor())
    _show("budgets")(args, ledger)


def _set_price(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import said
    from curbcut.ledger.prices import Price, set_price

    prompt, output = (said.nanousd(getattr(args, name), f"--{name}")
                      for name in ("prompt", "output"))
    cached = prompt if args.cached is None else said.nanousd(args.cached, "--cached")
    if cached > prompt:
        raise InputError("what is remembered costs no more than what is not", where="--cached",
                         mend="leave it out, or give less than --prompt")
    energies = [None if text is None else said.millijoules(text, f"--{name}-energy")
                for name, text in (("prompt", args.prompt_energy),
                                   ("output", args.output_energy))]
    set_price(ledger, Price(
        model=said.model(args.model), prompt_nanousd=prompt, cached_nanousd=cached,
        output_nanousd=output, prompt_millijoules=energies[0], output_millijoules=energies[1],
        source=args.source), actor=actor())
    _show("prices")(args, ledger)
    _tell_rates(args, args.prompt, args.output, *([args.cached] if args.cached else []))


def _tell_rates(args: argparse.Namespace, *moneys: str) -> None:
    """To people, at what rate money of another currency became the dollars that are kept."""
    from curbcut.facts import currency
    from curbcut.units import parse_money

    for code in dict.fromkeys(parse_money(text).currency for text in moneys):
        if code != "USD" and formats.chosen(args) == "text":
            rate = currency.usd_per(code)
            print(f"kept in dollars: 1 {code} is {rate.value:.4g} USD (rate of {rate.date})")


def _set_licence(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import licences

    try:
        text = args.file.read_bytes().decode()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(args.file),
                         mend="name the file of the text") from None
    except UnicodeDecodeError:
        raise InputError("is no UTF-8 text", where=str(args.file), mend="save it as UTF-8") \
            from None
    licences.set_licence(ledger, args.scope, text, actor=actor())
    _show("licences")(args, ledger)


def _end_licence(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import licences

    licences.end_licence(ledger, args.scope, actor=actor())
    _show("licences")(args, ledger)


def _read_licence(args: argparse.Namespace, ledger: Ledger) -> None:
    from curbcut.ledger import licences, plain

    found: Mapping[str, Any] = {one.scope: one for one in licences.licences(ledger)}
    if args.scope not in found:
        raise UnknownName("scope with a text", args.scope, found, where="access licence show")
    licence = found[args.scope]
    if formats.chosen(args) == "json":
        import json

        print(json.dumps({**plain.licence(licence), "text": licence.text}, indent=2))
    else:
        print(f"{licence.text.rstrip()}\n\n{licence.scope}, accepted with "
              f"--accept-licence {licence.hash[:12]}")


def _count(text: str, name: str) -> int | None:
    """A limit, None for "any"; raises InputError."""
    from curbcut import units

    if text == "any":
        return None
    where = f"--{name.replace('_', '-')}"
    value = units.finite(units.parse(text, "count", where), where, at_least=0, said=text)
    if not value.is_integer():
        raise InputError(f"{text!r} is no whole number", where=where, mend='like 60, or "any"')
    return int(value)


def _models(text: str) -> tuple[str, ...]:
    """Names of models, as they are called where they are served; raises InputError."""
    from curbcut.ledger.said import model

    return tuple(dict.fromkeys(model(one) for one in text.split(",")))

"""`curbcut plan` run backwards: a budget in, the best model out. `cli.plan` hands over to here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from curbcut import units
from curbcut.errors import InputError
from curbcut.ledger import FILE_NAME, kept_pairs
from curbcut.plan.contracts import ANY, contracts_of
from curbcut.plan.machines import HERE, is_here
from curbcut.plan.resolve import DIMENSIONS
from curbcut.spec import codec
from curbcut.spec.draft import Draft
from curbcut.spec.nouns import ServeJob

if TYPE_CHECKING:
    from curbcut.plan.backwards.answer import Answer
    from curbcut.plan.backwards.question import Traffic
    from curbcut.spec.estimate import Estimate
    from curbcut.spec.nouns import Machine


WHOLE = frozenset(f"model.{name}" for name in DIMENSIONS)


def add(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a budget."""
    group = parser.add_argument_group(
        "a budget", "With a limit and no model, the plan runs backwards: model, tokens, machine "
        "and recipe of the lowest expected loss.")
    group.add_argument("--budget", metavar="MONEY", help='the most money, like "500 EUR"')
    group.add_argument("--hours", metavar="TIME", help='the most time: hours, or "30 min"')
    group.add_argument("--energy", metavar="KWH", help='the most energy, like "3 kWh"')
    group.add_argument("--carbon", metavar="KG", help='the most carbon, like "5 kg"')
    group.add_argument("--data", metavar="BYTES", help='different text at hand, like "30 GB"')
    group.add_argument("--serve", metavar="TOKENS", help="traffic that the money must last for, "
                       'like "2e9tok/month", for serve.months (12)')
    group.add_argument("--loss", metavar="BITS", help="bits a byte that are wanted, for the least "
                       "money over the model's life")
    group.add_argument("--contract", metavar="HOW", help="on-demand, spot, reserved-1y or "
                       'reserved-3y; several with commas, or "any" for the first two')
    group.add_argument("--project", action="store_true", help="the budget is for the whole "
                       "project: experiments and failed runs too")


def names(args: argparse.Namespace) -> list[str]:
    """The machines that --on names."""
    return [name.strip() for name in (args.on or "").split(",") if name.strip()]


def contracts(args: argparse.Namespace) -> list[str]:
    """The contracts that --contract names; raises UnknownName."""
    return contracts_of(args.contract or "", "--contract")


def backwards(args: argparse.Namespace, draft: Draft) -> bool:
    """Whether what was asked leaves the plan a model, or a machine, to choose."""
    if draft.has("train.tokens"):
        return False
    on = names(args)
    many = len(on) > 1 or ANY in on or args.zone == ANY or len(contracts(args)) > 1
    whole = bool(draft.get("model.preset")) or set(draft.values) >= WHOLE
    if whole:
        return many
    limited = any((args.budget, args.energy, args.carbon, args.serve, args.loss, args.project))
    away = any(not is_here(name) for name in on)
    elsewhere = (args.hours and (away or args.data)) or (args.data and (away or not on))
    return bool(many or limited or elsewhere)


def run(args: argparse.Namespace, draft: Draft) -> int:
    """Prints what the budget buys; returns the exit code. Raises InputError for what cannot be."""
    import time

    from curbcut.cli import plan, told
    from curbcut.plan.backwards.answer import backwards as solved
    from curbcut.plan.backwards.drafts import Wish
    from curbcut.report import backwards as report

    on = names(args) or _machines(args, draft)
    pairs = kept_pairs(args.runs / FILE_NAME)
    here: Machine | None = plan.this_machine([name or draft.get("machine.name", HERE)
                                              for name in on])
    ways = contracts(args)
    started = time.perf_counter()
    answer: Answer = solved(draft, Wish(
        names=on, any_zone=args.zone == ANY, contracts=ways if len(ways) > 1 else (),
        traffic=traffic(args.serve, draft), multiplier=_multiplier(args, draft),
        experts=not any(is_here(name) for name in on)), here=here, pairs=pairs)
    seconds = time.perf_counter() - started
    resolved = answer.best.resolved
    if args.write:
        plan.write(args.write, resolved)
    account = told.priced(args, resolved, pairs)
    if args.plot:
        from curbcut.report.pictures import plan as picture

        picture.draw(resolved, account, args.plot, points=answer.front,
                     chosen=answer.chosen if answer.serving else None)
    told.tell(args, resolved, account, pairs, before=[report.said(answer)],
              after=list(report.all_tables(answer)), more={"backwards": report.as_plain(answer)})
    print(f"curbcut: {answer.priced:,} plans on {answer.machines} machines compared in "
          f"{seconds:.2f} s", file=sys.stderr)
    return 0


def forwards(args: argparse.Namespace, draft: Draft) -> Draft:
    """The draft of a run that needs no choosing, with its traffic. Raises InputError for options
    that leave something to choose.
    """
    if len(names(args)) > 1 or ANY in (args.on, args.zone) or len(contracts(args)) > 1:
        raise InputError(f"--on {args.on or ANY} leaves the machine to choose, for so many tokens",
                         mend="add --search to compare recipes on named machines, name one, or "
                         "leave the tokens to a budget")
    return with_traffic(args, draft)


def with_traffic(args: argparse.Namespace, draft: Draft) -> Draft:
    """The draft of a whole run with the traffic of --serve. Raises InputError for a project's
    budget, of which nothing is left to share out.
    """
    if args.project:
        raise InputError("--project shares out a budget, and here there is no model to choose",
                         where="--project", mend="leave it out: the account has the project's "
                         "lines beside the run's")
    found = traffic(args.serve, draft) if args.serve else None
    if found is None:
        return draft
    return draft.with_values({
        "serve.requests_per_second": found.tokens_per_second / found.job.output_tokens,
        "serve.months": found.job.months}, "command line", override=True)


def _machines(args: argparse.Namespace, draft: Draft) -> Sequence[str]:
    """Where to look when nobody said: the draft's machine; any for money, energy, carbon or a
    loss; else here.
    """
    if draft.has("machine.name") or draft.has("machine.accelerator"):
        return [""]
    anywhere = any(draft.has(f"limits.{name}") for name in ("money", "kwh", "kgco2e", "loss"))
    return [ANY] if anywhere or args.zone == ANY or args.contract else [HERE]


def traffic(text: str | None, draft: Draft) -> Traffic | None:
    """The traffic of --serve, else of a file that says for how many months it serves."""
    from curbcut.plan.backwards.question import Traffic, parse_traffic

    said = {key.partition(".")[2]: value for key, value in draft.values.items()
            if key.startswith("serve.")}
    job: ServeJob = codec.build(ServeJob, said, "serve")
    if text is not None:
        return parse_traffic(text, job)
    if not job.months:
        return None
    return Traffic(job.requests_per_second * job.output_tokens, job)


def _multiplier(args: argparse.Namespace, draft: Draft) -> Estimate | None:
    """All runs of the project over this one, where the budget is the project's."""
    if not args.project:
        return None
    from curbcut.accounts.development import ledger_ratio, multiplier

    found: Estimate = multiplier(draft.get("train.development", 0.0),
                                 ledger_ratio(args.runs / FILE_NAME))
    return found


def loss(text: str) -> float:
    """Bits a byte, with or without the words; raises InputError."""
    number = text.strip().removesuffix("bits/byte").removesuffix("bits a byte").strip()
    try:
        value = float(number)
    except ValueError:
        raise InputError(f"cannot read {text!r} as bits a byte", where="--loss",
                         mend="write a number, like --loss 0.9") from None
    return units.finite(value, "--loss", above=0, said=text)

"""`curbcut flops`: a model's FLOPs a token by every published convention, and its matmuls."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from curbcut import units
from curbcut.cli import formats
from curbcut.errors import InputError, UnknownName
from curbcut.facts import presets
from curbcut.physics.flops import CONVENTIONS
from curbcut.spec import ModelShape, codec


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "flops", help="FLOPs a token by every published convention, and an MFU in ours",
        description="Counts a model's training FLOPs a token by each published convention, so that "
        "utilisations of different papers can be compared, and lists its matmuls.")
    parser.add_argument("model", help='a known shape, like "Llama-3-8B"')
    parser.add_argument("--sequence", metavar="TOKENS", help="tokens a sequence (the model's own)")
    parser.add_argument("--mfu", metavar="SHARE", help='a published utilisation, like "43%%"')
    parser.add_argument("--said", metavar="CONVENTION", default="6N+12Lhs",
                        help="the convention that it was counted by (6N+12Lhs)")
    formats.add(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the tables; returns 0. Raises InputError or UnknownName for bad options."""
    from curbcut.report import flops as report

    shape: ModelShape = codec.build(ModelShape, presets.shape(args.model), "model")
    tokens = int(codec.check(ModelShape, {"context_tokens": args.sequence}, "--sequence:")[
        "context_tokens"]) if args.sequence else shape.context_tokens
    counted = report.count(shape, tokens)
    report.print_count(counted, _utilisation(args, shape, tokens), formats.chosen(args))
    return 0


def _utilisation(args: argparse.Namespace, shape: ModelShape, tokens: int) -> Mapping[str, float]:
    """The utilisation that was asked about, by every convention; empty where none was."""
    from curbcut.physics.flops import translate

    if args.said not in CONVENTIONS:
        raise UnknownName("convention", args.said, list(CONVENTIONS), where="--said")
    if not args.mfu:
        return {}
    percent = args.mfu.strip().endswith("%")
    share = units.parse(args.mfu.strip().rstrip("%"), "count", "--mfu") / (100 if percent else 1)
    if not 0 < share <= 1:
        raise InputError(f"a utilisation of {args.mfu} is none", where="--mfu",
                         mend='give a share of the peak, like "43%" or 0.43')
    return {name: translate(share, shape, tokens, args.said, name) for name in CONVENTIONS}

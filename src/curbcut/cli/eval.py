"""`curbcut eval RUN|FOLDER [--text FOLDER]`: how well a model knows text it was not trained on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from curbcut.cli.go import add_run_options, draft_of


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers the verb."""
    parser = subparsers.add_parser(
        "eval", help="held-out bits per byte", description="Score a trained run on held-out text, "
        "or any model folder on any text: bits per byte, perplexity, compressors, samples.")
    add_run_options(parser)
    parser.add_argument("--text", metavar="FOLDER", help="score on the text of this folder; "
                        "RUN may then be a folder with a model in Hugging Face's format")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Does it; raises InputError for a run that is not trained yet."""
    from rich.console import Console

    from curbcut import circle

    console = Console(quiet=args.json)
    if args.text is not None:
        result = circle.judge_folder(_model_folder(args), args.text, console)
    else:
        draft = draft_of(args)
        _trained(args.runs, draft.get("name", circle.DEFAULT_NAME))
        result = circle.judge(circle.settle(draft, args.runs, console), console)
    if args.json:
        print(json.dumps(vars(result) | {"perplexity": result.perplexity}))
    return 0


def _model_folder(args: argparse.Namespace) -> Path:
    """A folder with a config.json as it is said, else the model of a run."""
    from curbcut.circle import DEFAULT_NAME

    if args.file and (Path(args.file) / "config.json").is_file():
        return Path(args.file)
    return _trained(args.runs, draft_of(args).get("name", DEFAULT_NAME))


def _trained(runs: Path, name: str) -> Path:
    """The model of a run; raises InputError where it has none."""
    from curbcut.errors import InputError
    from curbcut.train.folder import run_folder

    folder = run_folder(runs, name)
    if not (folder / "model").is_dir():
        raise InputError("has no trained model", where=str(folder), mend=f"curbcut train {name}")
    return folder / "model"

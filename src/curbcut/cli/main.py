"""`curbcut VERB`: parse, call, print. One file a verb; no verb is imported before it is needed."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from curbcut import __version__
from curbcut.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    CurbcutError,
    InputError,
    MissingExtra,
    nearest,
)

VERBS = {
    "go": "the whole circle: plan, data, train, eval, serve one question, report",
    "doctor": "what this machine is, can do, and can measure",
    "plan": "price a run: memory, time, money, energy, carbon, expected loss",
    "data": "prepare text: split, tokenizer, tokens",
    "train": "train a planned run, or go on with a stopped one",
    "eval": "held-out bits per byte, beside gzip and xz",
    "serve": "serve models with an OpenAI-compatible API",
    "chat": "ask a model in the terminal",
    "bench": "what users of a server meet under load, against the plan",
    "export": "write a model for other engines: hf folder or gguf file",
    "manifest": "a server of vLLM for Kubernetes, Ray Serve or docker compose",
    "report": "promised against measured, line by line",
    "levers": "a run priced again with each method: a waterfall of what each saves",
    "trend": "what training costs over time, and who can train what",
    "methods": "the methods: planned? runs? measured gain, source",
    "flops": "a model's FLOPs a token by every published convention",
    "validate": "our predictions against published measurements, in a table",
    "calibrate": "fit the time model's constants to your own measured rows",
    "keys": "add, list, rotate and revoke API keys",
    "access": "organisations, projects, limits, budgets, prices and licences",
    "audit": "who changed what, and whether the record is whole",
    "statement": "a month's account of an organisation or project, as PDF or CSV",
    "ui": "the page: runs, comparisons, planner, models and keys, budget",
    "top": "the runs, live in the terminal",
}
_EXTRA_OF = {"torch": "train", "tokenizers": "train", "safetensors": "train", "pyarrow": "train",
             "starlette": "serve", "uvicorn": "serve", "jinja2": "serve", "filelock": "train",
             "llguidance": "serve", "matplotlib": "plot", "gguf": "gguf",
             "transformers": "transformers", "reportlab": "pdf", "psycopg": "postgres",
             "wandb": "wandb", "mlflow": "mlflow", "tensorboard": "tensorboard",
             "trackio": "trackio"}
_OF_THE_PAGE = {"starlette", "uvicorn", "jinja2"}
"""`ui` needs these too, and nothing else of what serving needs."""
_NO_ROOM_OR_RIGHT = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code (0 done, 1 failed, 2 bad input, 75 resumable)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        return _dispatch(arguments)
    except CurbcutError as error:
        print(f"curbcut: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA_OF:
            raise
        page = _verb(arguments) == "ui" and package in _OF_THE_PAGE
        extra = "ui" if page else _EXTRA_OF[package]
        print(f"curbcut: {MissingExtra(package, extra)}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("curbcut: interrupted; run the same command again and it goes on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader went away (`| head`); what follows would only raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        if error.errno not in _NO_ROOM_OR_RIGHT:
            raise
        print(f"curbcut: {_no_room_or_right(error)}", file=sys.stderr)
        return EXIT_BAD_INPUT


def _no_room_or_right(error: OSError) -> InputError:
    return InputError(f"cannot be written ({error.strerror})",
                      where=str(error.filename or "a file"),
                      mend="free disk space, mend the permissions or choose another folder, then "
                           "run the same command again: it goes on from what was saved")


def _dispatch(arguments: list[str]) -> int:
    parser = _Parser(prog="curbcut", description="From a budget to a trained, served and "
                     "accounted-for model.", epilog="curbcut VERB --help says more.")
    parser.add_argument("--version", action="version", version=f"curbcut {__version__}")
    verb = _verb(arguments)
    subparsers = parser.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    if verb in VERBS:
        import_module(f"curbcut.cli.{verb}").add(subparsers)
    else:
        for name, line in VERBS.items():
            subparsers.add_parser(name, help=line, add_help=False)
        if verb:
            close = nearest(verb, VERBS)
            hint = f"did you mean {' or '.join(close)}?" if close else f"verbs: {', '.join(VERBS)}"
            parser.error(f"unknown verb {verb!r}; {hint}")
    args, unread = parser.parse_known_args(arguments)
    if unread:
        parser.prog = f"curbcut {verb}".strip()
        parser.error(_unread(unread, subparsers.choices.get(verb, parser)))
    if not hasattr(args, "run"):
        parser.error("name a verb")
    code: int = args.run(args)
    return code


def _verb(arguments: Sequence[str]) -> str:
    return next((a for a in arguments if not a.startswith("-")), "")


def _unread(given: list[str], parser: argparse.ArgumentParser) -> str:
    """What was not understood, with the nearest option of the verb."""
    known = [option for action in _actions(parser) for option in action.option_strings]
    first = given[0].partition("=")[0]
    if not first.startswith("-"):
        return f"{first!r} is one word too many"
    close = [option for option in nearest(first, known) if option.startswith("--")]
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"unknown option {first}{hint}"


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _actions(inner)


class _Once(argparse._StoreAction):
    """An option that is given once: of two values, one would silently not count."""

    given = False

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: object, option_string: str | None = None) -> None:
        """Keeps the value; an error where there is one already."""
        if option_string and self.given:
            parser.error(f"{option_string} is given twice")
        self.given = bool(option_string)
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    """Options in full only, and errors in the product's own form."""

    def __init__(self, **options: object) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(**options)  # type: ignore[arg-type]
        self.register("action", None, _Once)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            close = nearest(str(value), known)
            hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {hint}")

    def error(self, message: str) -> None:  # type: ignore[override]
        """Prints one clear error and leaves with exit code 2."""
        self.exit(EXIT_BAD_INPUT, f"curbcut: {message}\n  help: {self.prog} --help\n")


if __name__ == "__main__":
    sys.exit(main())

"""How a model is to be served: the options that serve, chat and bench share, and what they mean."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curbcut.errors import InputError, UnknownName

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger
    from curbcut.serve.engine.interface import Engine
    from curbcut.serve.opening import Way
    from curbcut.spec import Run

MAX_BATCH = 8
WEIGHTS = ("same", "int8", "int8-dynamic", "int4")
CACHES = ("same", "int8")


class _Together(argparse.Action):
    """Keeps all that an option is given, with spaces between."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace,
                 values: Any, option_string: str | None = None) -> None:
        """Adds one more."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest,
                values if before == self.default else f"{before} {values}")


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """The options of how a model is served, whoever starts the server. None: nobody said."""
    how = parser.add_argument_group("how it is served")
    how.add_argument("--engine", metavar="ENGINE", default="own", action=_Together,
                     help="own, transformers, vllm, or the URL of a server (own); several URLs, "
                     "each after an --engine, are one model, past whichever fails")
    how.add_argument("--dtype", choices=("auto", "fp32", "bf16"), default="auto",
                     help="precision that is computed in; auto: as the weights are stored")
    how.add_argument("--weights", choices=WEIGHTS, help="what weights are stored in; int8-dynamic "
                     "multiplies in 8 bits too (as the run says, else same)")
    how.add_argument("--cache", choices=CACHES, help="the same of keys and values")
    how.add_argument("--max-batch", type=int, metavar="N", help="requests decoded together "
                     f"(default: as the run says, else {MAX_BATCH})")
    how.add_argument("--cache-tokens", type=int, metavar="N",
                     help="tokens that the cache of keys and values holds")
    how.add_argument("--context", type=int, metavar="N", help="longest prompt plus answer")
    how.add_argument("--draft", metavar="N|FOLDER", help="tokens guessed ahead a step, from the "
                     "text itself or by a small model with the same tokenizer")
    how.add_argument("--adapter", action="append", default=[], metavar="NAME=FOLDER",
                     help="a LoRA adapter, asked for as MODEL:NAME; may be given several times")


def engine_words(args: argparse.Namespace, run: Run | None = None) -> list[str]:
    """What was said of these options as words of another command line, and what `run` says."""
    way = way_of(args, run)
    words: list[str] = []
    for name, value, usual in (
            ("--engine", way.engine, "own"), ("--dtype", way.dtype, "auto"),
            ("--weights", way.weights, "same"), ("--cache", way.cache, "same"),
            ("--max-batch", way.max_batch if run else args.max_batch, None),
            ("--cache-tokens", way.cache_tokens, None), ("--context", way.context_tokens, None),
            ("--draft", way.draft, "")):
        if value != usual:
            words += [name, str(value)]
    for name, folder in way.adapters.items():
        words += ["--adapter", f"{name}={folder}"]
    return words


def way_of(args: argparse.Namespace, run: Run | None = None) -> Way:
    """How the options say that a model is served; what they leave open as `run` says. Raises
    InputError.
    """
    from curbcut.serve.opening import Way

    for name, value in (("--max-batch", args.max_batch), ("--cache-tokens", args.cache_tokens),
                        ("--context", args.context)):
        if value is not None and value < 1:
            raise InputError(f"{value} is none", where=name, mend="give at least 1")
    said = {"max_batch": args.max_batch, "weights": args.weights, "cache": args.cache,
            "draft": args.draft}
    return replace(
        Way.of(run.serve) if run else Way(max_batch=MAX_BATCH), engine=args.engine,
        dtype=args.dtype, cache_tokens=args.cache_tokens, context_tokens=args.context,
        adapters=_adapters(args.adapter), name=getattr(args, "asked_name", None) or "",
        key=getattr(args, "engine_key", ""),
        **{name: value for name, value in said.items() if value is not None})


def _adapters(given: Sequence[str]) -> dict[str, Path]:
    """Folders by name; raises InputError."""
    found: dict[str, Path] = {}
    for text in given:
        name, mark, folder = text.partition("=")
        if not mark or not name or not (Path(folder) / "adapter_config.json").is_file():
            raise InputError(f"{text!r} is no adapter: a name and a folder with "
                             "adapter_config.json", where="--adapter", mend="--adapter NAME=FOLDER")
        if name in found:
            raise InputError(f"{name!r} is given twice", where="--adapter", mend="rename one")
        found[name] = Path(folder)
    return found


@contextlib.contextmanager
def opened(args: argparse.Namespace, folder: Path) -> Iterator[Engine]:
    """The engine of a folder in this process, served as the options say, while the block runs."""
    from curbcut.serve.opening import open_engine

    engine = open_engine(folder, way_of(args))
    try:
        yield engine
    finally:
        engine.close()


def find(given: str, runs: Path) -> tuple[Path, str]:
    """The folder of a model, and its name: a run of `runs` by name, or a folder by path.

    Raises UnknownName for what is neither, InputError for a folder without a model.
    """
    from curbcut.serve.server import name_of

    path = Path(given)
    places = [path, path / "model"]
    if path.name == given:  # a run's name, never a path from the folder of runs
        places.insert(0, runs / given / "model")
    for folder in places:
        if (folder / "config.json").is_file():
            return folder, name_of(folder)
    if (runs / given).is_dir() and path.name == given:
        raise InputError("has no model yet", where=str(runs / given),
                         mend=f"curbcut train {runs / given / 'run.toml'}")
    if path.is_dir():
        raise InputError("holds no model: no config.json here", where=given,
                         mend="give a folder with config.json, tokenizer.json and "
                         "model.safetensors")
    raise UnknownName("run or model folder", given, runs_with_models(runs), where=str(runs))


def runs_with_models(runs: Path) -> list[str]:
    """Names of the runs that can be served."""
    return sorted(path.parent.parent.name for path in runs.glob("*/model/config.json"))


def known_run(ledger: Ledger, args: argparse.Namespace, folder: Path) -> Run | None:
    """The run that the model in `folder` is of, by the ledger, as it is served; None for any other
    model.
    """
    from curbcut.ledger.inbox import import_folder

    home = folder.resolve().parent
    if folder.name != "model" or home.parent != args.runs.resolve():
        return None
    if (home / "metrics").is_dir():
        import_folder(ledger, home)
    found = ledger.resolved(home.name)
    return as_served(found.run, args) if found else None


def as_served(run: Run, args: argparse.Namespace) -> Run:
    """The run with what the command line changed: what is priced is what is served."""
    way = way_of(args, run)
    drafted, drafter = _drafts(way.draft)
    run = replace(run, serve=replace(
        run.serve, max_batch=way.max_batch, drafted_tokens=drafted, drafter_parameters=drafter,
        weight_precision=way.weights, cache_precision=way.cache))  # type: ignore[arg-type]
    if way.dtype == "auto":
        return run
    return replace(run, recipe=replace(run.recipe, precision=way.dtype))


def _drafts(draft: str) -> tuple[int, int]:
    """Tokens drafted a step, and parameters of the model that drafts them, of what --draft says."""
    if not draft or draft.isdigit():
        return int(draft or 0), 0
    from curbcut.model.config import shape_of
    from curbcut.model.parts import CONFIG
    from curbcut.model.weights import read_json
    from curbcut.serve.engine.speculation import MOST

    config = Path(draft) / CONFIG
    return MOST, shape_of(read_json(config), where=str(config)).parameters

"""`curbcut manifest`: a run's server for Kubernetes, Ray Serve or docker compose."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from curbcut.errors import EXIT_OK, InputError, UnknownName

if TYPE_CHECKING:
    from curbcut.spec import Run


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its options."""
    parser = subparsers.add_parser(
        "manifest", help="write a server of vLLM for Kubernetes, Ray Serve or docker compose",
        description="Writes what starts a run's server (its [serve] table: replicas, degrees, "
                    "precisions, lengths) elsewhere, with what the plan promises of it.")
    parser.add_argument("run_name", metavar="RUN_OR_FILE", help="name of a run, or a run in TOML")
    parser.add_argument("--to", choices=("kubernetes", "ray", "compose"), required=True,
                        help="what to write")
    parser.add_argument("--on", metavar="MACHINE", help='other accelerators, like "8xH100"')
    parser.add_argument("--objective", metavar="ttft=S,tpot=S,loss=SHARE|auto",
                        help="let the plan choose how vLLM serves it: the cheapest way within "
                        "these (auto: the run's own)")
    parser.add_argument("--image", default="", help="image with vLLM")
    parser.add_argument("--adapters", default="", metavar="NAMES",
                        help="LoRA adapters by the names of their folders, with commas")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER",
                        help="where to write (here)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="folder of all runs (default: runs)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Writes the files and names them; returns the exit code."""
    from curbcut.cli.plan import COMMAND_LINE, this_machine
    from curbcut.launch import manifests
    from curbcut.plan.serving_run import to_serve
    from curbcut.spec.draft import Draft, load

    draft = load(str(_file(args.run_name, args.runs)))
    if args.on:
        draft = Draft({key: value for key, value in draft.values.items()
                       if not key.startswith("machine.")}, draft.origins)
        draft = draft.with_raw({"machine": {"name": args.on}}, COMMAND_LINE, override=True)
    served = to_serve(draft, this_machine([draft.get("machine.name", "here")]))
    if args.objective:
        served = _chosen(args.objective, served)
    adapters = [name.strip() for name in args.adapters.split(",") if name.strip()]
    for path in manifests.write(served, args.to, args.out, image=args.image, adapters=adapters):
        print(path)
    return EXIT_OK


def _chosen(objective: str, run: Run) -> Run:
    """The run as vLLM serves it best by the plan, and why, said beside."""
    from curbcut.cli.objective import within
    from curbcut.plan.serving_choice import choose

    choice = choose(run, within(objective, run.serve), engine="vllm")
    for line in (*choice.reasons, *choice.warnings):
        print(f"curbcut: {line}", file=sys.stderr)
    if choice.chosen is None:
        raise InputError("vLLM meets this objective in no way", where="--objective",
                         mend="loosen it, or serve on another machine (--on)")
    return choice.run


def _file(given: str, runs: Path) -> Path:
    """The TOML of a run by name, or a file. Raises UnknownName for what is neither."""
    if Path(given).name == given and (runs / given / "run.toml").is_file():
        return runs / given / "run.toml"
    if Path(given).is_file():
        return Path(given)
    raise UnknownName("run or file", given, (path.parent.name for path in runs.glob("*/run.toml")),
                      where="manifest")

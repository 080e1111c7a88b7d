"""`curbcut export`: a trained model for other engines, or a run's page as one file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from curbcut.errors import EXIT_OK, InputError


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb and its options."""
    parser = subparsers.add_parser(
        "export", help="write a trained model for other engines (hf folder, gguf file) or a run's "
        "page (html)",
        description="Writes a run's model (or any folder in Hugging Face's format) for other "
                    "engines: a plain safetensors folder for transformers and vLLM, or one GGUF "
                    "file for llama.cpp, which runs on laptops, phones and edge boxes. Or writes "
                    "a run's page, with its charts, as one HTML file that needs nothing else.")
    parser.add_argument("model", metavar="RUN_OR_FOLDER",
                        help="name of a run, or a folder with config.json and model.safetensors")
    parser.add_argument("--to", choices=("hf", "gguf", "html"), required=True, help="what to write")
    parser.add_argument("--type", metavar="TYPE",
                        help="of weights: f32, f16, bf16; gguf also q8_0, q5_1, q5_0, q4_1, q4_0 "
                        "(default: hf as stored, gguf bf16)")
    parser.add_argument("--out", type=Path, metavar="PATH",
                        help="folder (hf) or file (gguf, html) to write; default: beside the "
                        "model, of html NAME.html here")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="folder of all runs (default: runs)")
    parser.add_argument("--ledger", metavar="PATH|URL",
                        help="html: another ledger than FOLDER/ledger.sqlite")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Exports; returns the exit code."""
    if args.to == "html":
        return _html(args)
    if args.ledger is not None:
        raise InputError("a model is read from its folder", where="--ledger", mend="leave it out")
    from curbcut.cli.served import find

    folder, name = find(args.model, args.runs)
    said = _gguf(args, folder, name) if args.to == "gguf" else _hf(args, folder)
    if args.json:
        print(json.dumps(said, indent=2))
    else:
        kinds = ", ".join(f"{count} tensors {kind}" for kind, count in said["types"].items())
        print(f"{said['path']}  {said['bytes'] / 1e6:,.1f} MB" + (f"  ({kinds})" if kinds else ""))
        if said["widened"]:
            print(f"  {len(said['widened'])} tensors stay f16: their rows are no multiple of 32 "
                  f"weights ({said['widened'][0]}, ...)")
    return EXIT_OK


def _html(args: argparse.Namespace) -> int:
    from curbcut.web import export

    if args.type is not None:
        raise InputError("a page has no weights", where="--type", mend="leave it out")
    path = args.out or Path(f"{Path(args.model).name}.html")
    if path.is_dir():
        raise InputError("is a folder; a page is one file", where=str(path),
                         mend=f"give --out {path / f'{args.model}.html'}")
    if not path.parent.is_dir():
        raise InputError("no such folder", where=str(path.parent), mend="make it first")
    size = export.write_page(args.runs, args.model, path, ledger_at=args.ledger or "")
    if args.json:
        print(json.dumps({"path": str(path), "bytes": size}, indent=2))
    else:
        print(f"{path}  {size / 1e6:,.2f} MB")
    return EXIT_OK


def _gguf(args: argparse.Namespace, folder: Path, name: str) -> dict[str, Any]:
    from curbcut.model import gguf

    kind = args.type or "bf16"
    path = args.out or folder.parent / f"{name}-{kind}.gguf"
    if path.is_dir():
        raise InputError("is a folder; a GGUF file is one file", where=str(path),
                         mend=f"give --out {path / f'{name}-{kind}.gguf'}")
    if not path.parent.is_dir():
        raise InputError("no such folder", where=str(path.parent), mend="make it first")
    written = gguf.write(folder, path, kind)
    return {"path": str(written.path), "bytes": written.bytes, "types": dict(written.types),
            "widened": list(written.widened)}


def _hf(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from curbcut.model import copied

    out = args.out or folder.parent / f"{folder.name}-hf"
    if out.exists() and not out.is_dir():
        raise InputError("is a file; a model is a folder", where=str(out),
                         mend="give a folder with --out")
    return {"path": str(out), "bytes": copied.write(folder, out, args.type), "types": {},
            "widened": []}

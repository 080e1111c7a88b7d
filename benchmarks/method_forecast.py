"""What was promised against what was measured, for recipes that differ in method.

Each recipe is a run of its own through the same command that a person uses; the promise is the one
written before it began (plan.json), the measurement the one written at its end (account.json). All
runs start from one empty ledger each, so none corrects another.

    python benchmarks/method_forecast.py [--steps 60] [--only NAME ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SHAPE = {"layers": 4, "width": 256, "heads": 4, "kv_heads": 4, "head_size": 64, "ffn": 704,
         "vocab": 4096, "context_tokens": 512}
RECIPE: dict[str, Any] = {"sequence_tokens": 256, "micro_batch": 4, "global_batch": 16,
                          "optimiser": "adamw", "learning_rate": 2e-3, "precision": "bf16"}
METHODS: dict[str, dict[str, Any]] = {
    "plain": {},
    "recompute": {"recompute": "full"},
    "muon": {"optimiser": "muon"},
    "ddp": {"dp_replicate": 2},
    "zero-1": {"dp_shard": 2, "shard": "optimiser"},
    "fsdp": {"dp_shard": 2, "shard": "parameters"},
    "tp+sp": {"tp": 2, "sequence_parallel": True},
    "pipeline": {"pp": 2, "pipeline": "1f1b"},
    "ring": {"cp": 2, "context": "ring"},
}
DEGREES = ("dp_replicate", "dp_shard", "tp", "pp", "cp")


def toml(name: str, steps: int) -> str:
    """The run's file: the shape, the recipe with one method, and a machine of as many ranks."""
    recipe = dict.fromkeys(DEGREES, 1) | RECIPE | METHODS[name]
    ranks = 1
    for degree in DEGREES:
        ranks *= recipe[degree]
    machine = "here" if ranks == 1 else f"{ranks}xhere"
    tokens = steps * recipe["global_batch"] * recipe["sequence_tokens"]
    tables = {"model": SHAPE, "recipe": recipe, "machine": {"name": machine},
              "train": {"tokens": tokens}}
    lines = [f'name = "{name}"', "seed = 1"]
    for table, values in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def measure(name: str, steps: int, root: Path) -> dict[str, float]:
    """Promised and measured tokens/s and peak bytes of one rank."""
    runs = root / name
    runs.mkdir()
    if (root / ".data").exists():
        (runs / ".data").symlink_to(root / ".data")
    file = runs / "run.toml"
    file.write_text(toml(name, steps))
    command = [sys.executable, "-m", "curbcut", "train", str(file), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        said = done.stdout[-2000:] + done.stderr[-3000:]
        raise SystemExit(f"{name}: exit {done.returncode}\n{said}")
    if not (root / ".data").exists():
        shutil.move(str(runs / ".data"), root / ".data")
    folder = runs / name
    promised = json.loads((folder / "plan.json").read_text())["forecast"]
    measured = json.loads((folder / "account.json").read_text())["measured"]
    return {
        "promised_tokens_per_second": promised["tokens_per_second"]["steps"]["value"],
        "low": promised["tokens_per_second"]["steps"]["low"],
        "high": promised["tokens_per_second"]["steps"]["high"],
        "tokens_per_second": measured["tokens_per_second"]["steps"]["value"],
        "promised_bytes": promised["memory_bytes"]["peak"]["value"],
        "bytes": measured["memory_bytes"]["peak"]["value"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--only", action="append", choices=METHODS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {}
    print(f"{'':12}{'promised tok/s':>16}{'measured':>10}{'ratio':>8}{'inside':>8}"
          f"{'promised MiB':>14}{'measured':>10}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as root:
        for name in args.only or METHODS:
            row = found[name] = measure(name, args.steps, Path(root))
            inside = row["low"] <= row["tokens_per_second"] <= row["high"]
            print(f"{name:12}{row['promised_tokens_per_second']:>16,.0f}"
                  f"{row['tokens_per_second']:>10,.0f}"
                  f"{row['tokens_per_second'] / row['promised_tokens_per_second']:>8.2f}"
                  f"{'yes' if inside else 'no':>8}{row['promised_bytes'] / 2**20:>14,.0f}"
                  f"{row['bytes'] / 2**20:>10,.0f}{row['bytes'] / row['promised_bytes']:>8.2f}",
                  flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Kill -9 at random steps, three times, through the command line; then compare the final weights.

Trains the same run twice: once unbroken, once killed three times at random steps and taken up again
by the same command. Prints the sha256 of the last checkpoint's tensors and of the exported model
for both, in fp32 and bf16.

    python benchmarks/kill_and_resume.py [--steps 60] [--seed 0] [--json FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOML = """
name = "{name}"
[model]
preset = "curb-1m"
[recipe]
sequence_tokens = 128
micro_batch = 4
global_batch = 8
precision = "{precision}"
checkpoint_every_steps = 7
evaluate_every_steps = 1000000
[train]
tokens = {tokens}
"""
KILLS = 3


def command(folder: Path, name: str) -> list[str]:
    return [sys.executable, "-m", "curbcut", "train", str(folder / f"{name}.toml"),
            "--runs", str(folder / "runs")]


def begun(run: Path) -> int:
    """Checkpointed steps so far."""
    return max((int(p.name[5:]) for p in (run / "checkpoints").glob("step-*")), default=0)


def train(folder: Path, name: str, kill_at: list[int]) -> list[int]:
    """Trains to the end, killing when a checkpoint at or after each of `kill_at` exists."""
    run = folder / "runs" / name
    killed = []
    for step in kill_at:
        process = subprocess.Popen(command(folder, name), stdout=subprocess.DEVNULL)
        while begun(run) < step and process.poll() is None:
            time.sleep(0.02)
        time.sleep(random.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "ended before it was killed"
        killed.append(begun(run))
    subprocess.run(command(folder, name), check=True, stdout=subprocess.DEVNULL)
    return killed


def digests(run: Path) -> dict[str, str]:
    newest = max((run / "checkpoints").glob("step-*"))
    files = {newest.name: newest / "rank-00000.safetensors",
             "model": run / "model/model.safetensors"}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    random.seed(args.seed)
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for precision in ("fp32", "bf16"):
            for name in ("unbroken", "killed"):
                (folder / f"{name}-{precision}.toml").write_text(TOML.format(
                    name=f"{name}-{precision}", precision=precision, tokens=args.steps * 8 * 128))
            marks = sorted(random.sample(range(3, args.steps - 12), KILLS))
            train(folder, f"unbroken-{precision}", [])
            killed = train(folder, f"killed-{precision}", marks)
            runs = folder / "runs"
            rows[precision] = {"killed_after_checkpoint": killed,
                               "unbroken": digests(runs / f"unbroken-{precision}"),
                               "killed": digests(runs / f"killed-{precision}")}
    for precision, row in rows.items():
        same = row["unbroken"] == row["killed"]
        steps = row["killed_after_checkpoint"]
        print(f"{precision}: killed with checkpoints of step {steps} on disk: "
              f"{'the same weights, bit for bit' if same else 'DIFFERENT WEIGHTS'}")
        for side in ("unbroken", "killed"):
            for name, digest in row[side].items():  # type: ignore[attr-defined]
                print(f"  {side:9} {name:14} sha256 {digest}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    sys.exit(any(row["unbroken"] != row["killed"] for row in rows.values()))


if __name__ == "__main__":
    main()

"""How long the economy takes: whole commands, and ten thousand draws of one account.

    python benchmarks/economy_speed.py [--on 64xH100] [--repeat 3] [--json FILE]

A command is timed from its start to its end in a process of its own, best of `--repeat`: seconds by
the clock, and of all cores. The draws are of every figure of one plan's account, in a process that
has NumPy already. Budgets run backwards have `backwards_speed.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from curbcut.accounts.sheet import SAMPLES
from curbcut.plan import resolve
from curbcut.plan.forecast import sheet_of
from curbcut.spec.draft import Draft

MODEL = ("--model", "llama-3-8b", "--tokens", "1T")


def commands(machine: str) -> dict[str, tuple[str, ...]]:
    """What is timed, by name."""
    plan = (*MODEL, "--on", machine)
    return {
        "plan": ("plan", *plan, "--json"),
        "levers, money": ("levers", *plan, "--json"),
        "levers, energy and serving": ("levers", *plan, "--unit", "kwh", "--serving", "--json"),
        "trend": ("trend", "--json"),
    }


def command_seconds(arguments: tuple[str, ...]) -> tuple[float, float]:
    """Seconds by the clock and of all cores of one command."""
    before, started = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "curbcut", *arguments], check=True,
                   stdout=subprocess.DEVNULL)
    clock, after = time.perf_counter() - started, os.times()
    return clock, (after.children_user - before.children_user
                   + after.children_system - before.children_system)


def draw_seconds(machine: str, repeat: int) -> tuple[float, int]:
    """Seconds of `SAMPLES` draws of one account, and how many figures it has."""
    draft = Draft().with_raw({"model": {"preset": MODEL[1]}, "train": {"tokens": MODEL[3]},
                              "machine": {"name": machine}}, "benchmark", override=True)
    sheet = sheet_of(resolve(draft).run)
    sheet.sampled_estimates(100)
    best = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        sheet.sampled_estimates(SAMPLES)
        best = min(best, time.perf_counter() - started)
    return best, len(sheet.figures)


def main() -> int:
    """Prints the table, and writes JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", default="64xH100")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    found = {}
    for name, arguments in commands(args.on).items():
        clock, cores = min(command_seconds(arguments) for _ in range(args.repeat))
        found[name] = {"seconds": clock, "core_seconds": cores}
        print(f"{name:30} {clock:6.2f} s by the clock, {cores:6.2f} s of all cores")
    seconds, figures = draw_seconds(args.on, args.repeat)
    found["draws"] = {"seconds": seconds, "samples": SAMPLES, "figures": figures}
    print(f"{SAMPLES:,} draws of {figures} figures   {seconds:6.3f} s")
    if args.json:
        args.json.write_text(json.dumps({"machine": args.on, "found": found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How long `curbcut levers` takes, the whole command: start, plan, all levers alone and in order.

    python benchmarks/levers_speed.py [--on 64xH100] [--units usd,kg] [--repeat 3] [--most SECONDS]

The best of `--repeat`, each in a process of its own; seconds by the clock, and of all cores. With
`--most`, exit code 1 where the slowest unit takes longer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

COMMAND = ("-m", "curbcut", "levers", "--model", "llama-3-8b", "--tokens", "1T", "--json",
           "--serving")


def once(machine: str, unit: str) -> tuple[float, float]:
    """Seconds by the clock and of all cores of one command."""
    before = os.times()
    started = time.perf_counter()
    subprocess.run([sys.executable, *COMMAND, "--on", machine, "--unit", unit], check=True,
                   stdout=subprocess.DEVNULL)
    clock = time.perf_counter() - started
    after = os.times()
    return clock, (after.children_user - before.children_user
                   + after.children_system - before.children_system)


def main() -> int:
    """Prints the table; returns 1 where `--most` is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", default="64xH100")
    parser.add_argument("--units", default="usd,kwh,kg,hours")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--most", type=float, default=float("inf"))
    args = parser.parse_args()
    slowest = 0.0
    for unit in args.units.split(","):
        clock, cores = min(once(args.on, unit) for _ in range(args.repeat))
        slowest = max(slowest, clock)
        print(f"{args.on} {unit:6} {clock:6.2f} s by the clock, {cores:6.2f} s of all cores")
    return int(slowest > args.most)


if __name__ == "__main__":
    sys.exit(main())

"""How fast the planner answers a move, and what its process and the server's weigh.

    python benchmarks/planner_speed.py [--moves 60] [--seed 0]

Moves are random budgets from 20 to 10^8 EUR, some with a limit of time or energy, in four zones, on
any machine: each answer has the best run, the front, what binds and the runners-up. Levers are
asked apart, as the page does once the sliders rest. In milliseconds; run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

from curbcut.errors import InputError
from curbcut.web.planner import Worker

ZONES = ("world", "FRA", "SWE", "USA")


def moves(count: int, seed: int) -> list[dict[str, str]]:
    """Questions as the page asks them."""
    draw, found = random.Random(seed), []
    for i in range(count):
        one = {"money": f"{10 ** draw.uniform(1.3, 8):.3g} EUR", "on": "any"}
        if i % 3 == 0:
            one["hours"] = f"{10 ** draw.uniform(1, 3.5):.3g}"
        if i % 5 == 0:
            one["energy"] = f"{10 ** draw.uniform(1.5, 6):.3g} kWh"
        if zone := ZONES[i // 4 % len(ZONES)]:
            one["zone"] = zone
        found.append(one)
    return found


def said(name: str, seconds: list[float]) -> None:
    """Prints the middle, the slowest of ten and the slowest."""
    ordered = sorted(seconds)
    at = (ordered[len(ordered) // 2], ordered[int(0.9 * len(ordered))], ordered[-1])
    print(f"{name:12}" + "".join(f"{1e3 * one:9.0f}" for one in at))


def worked(pid: int) -> float:
    """CPU seconds of a process (Linux): what a busy machine lengthens least."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int | str) -> tuple[float, float]:
    """MB that a process holds now, and held at most (Linux)."""
    text = Path(f"/proc/{pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in text.splitlines())
    now, most = (int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
    return now, most


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--moves", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Path(folder))
        began = time.perf_counter()
        worker.ask("choices", {})
        print(f"start: {time.perf_counter() - began:.2f} s, all machines priced")
        took: dict[str, list[float]] = {"answer": [], "answer CPU": [], "levers": [],
                                        "levers CPU": []}
        for asked in moves(args.moves, args.seed):
            for what, more in (("answer", {}), ("levers", {"unit": "EUR"})):
                began, before = time.perf_counter(), worked(worker.pid)
                try:
                    worker.ask(what, asked | more)
                except InputError:
                    continue
                took[what].append(time.perf_counter() - began)
                took[f"{what} CPU"].append(worked(worker.pid) - before)
        print("ms              median    tenth  slowest")
        for name, seconds in took.items():
            said(name, seconds)
        now, most = resident(worker.pid)
        print(f"planner's process: {now:.0f} MB, {most:.0f} at most; this one: "
              f"{resident('self')[0]:.0f} MB")
        worker.close()


if __name__ == "__main__":
    main()

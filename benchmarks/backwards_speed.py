"""How fast a budget is run backwards over all machines of the facts: the whole command, from the
shell and back, start of the interpreter included, and how many plans it compared.

    python benchmarks/backwards_speed.py [--repeat 3] [--json FILE]

Each figure is the best of `--repeat`. The target is 3 s on two cores.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TARGET_SECONDS = 3.0
QUESTIONS = {
    "a small budget": ["--budget", "50 EUR"],
    "a team's budget": ["--budget", "5000 EUR"],
    "every limit at once": ["--budget", "500 EUR", "--energy", "300kWh", "--hours", "72",
                            "--carbon", "50kg", "--data", "30GB", "--zone", "any"],
    "with its serving": ["--budget", "20000 EUR", "--serve", "2e9tok/month"],
    "a wanted loss": ["--loss", "0.8", "--serve", "2e9tok/month"],
    "a frontier budget, any contract": ["--budget", "10000000 USD", "--contract", "any"],
    "a budget that buys nothing": ["--budget", "0.0001 EUR"],
}


def timed(options: list[str], repeat: int) -> dict[str, Any]:
    """The best wall time of the command, and what it says that it did."""
    best, said = float("inf"), ""
    for _ in range(repeat):
        started = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "curbcut", "plan", *options],
                              capture_output=True, text=True, check=False)
        best = min(best, time.perf_counter() - started)
        said = done.stderr
    found = re.search(r"([\d,]+) plans on ([\d,]+) machines", said)
    plans, machines = (int(one.replace(",", "")) for one in found.groups()) if found else (0, 0)
    return {"options": " ".join(options), "seconds": best, "plans": plans, "machines": machines,
            "within_target": best <= TARGET_SECONDS}


def main() -> None:
    """Runs every question and prints a table; with --json, writes it too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = {name: timed(options, args.repeat) for name, options in QUESTIONS.items()}
    print(f"{'question':<34}{'seconds':>8}{'plans':>10}{'machines':>10}")
    for name, row in rows.items():
        late = "" if row["within_target"] else f"  over {TARGET_SECONDS:g} s"
        print(f"{name:<34}{row['seconds']:>8.2f}{row['plans']:>10,}{row['machines']:>10,}{late}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()

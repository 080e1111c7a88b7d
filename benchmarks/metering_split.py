"""How right the meter's split is, against a counter that knows nothing of it.

Where the machine counts energy, that counter is the truth; else the CPU seconds of this process
stand for it (at 10 W), which follow the work as joules would. Requests with long prompts ("read")
and with long answers ("write") are asked one after the other, each kind at once, and both kinds
together. Of one kind alone the counter knows what each took; of a mixture it knows what the whole
took, and what is saved without one kind: a fair share lies between that and its price alone.

    python benchmarks/metering_split.py [--shape m30] [--each 8] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from serving_speed import build

KINDS = {"read": (384, 8), "write": (8, 64)}
"""Tokens of prompt and answer."""
CPU_WATTS = 10.0
REST_SECONDS = 5.5
"""So that the stretches of one part are done with before the next one begins."""


class CpuSeconds:
    """A counter that follows this process's work."""

    name, boundary = "CPU seconds of this process", "device"

    def joules(self) -> float:
        return time.process_time() * CPU_WATTS


class Bench:
    """An engine, a meter on it, and the counter."""

    def __init__(self, folder: Path, batch: int) -> None:
        from curbcut.cli.serve import _as_run
        from curbcut.meter.sensors import open_sensors
        from curbcut.serve.metering import open_meter
        from curbcut.serve.opening import Way, open_engine

        self.sensors = open_sensors() or [CpuSeconds()]
        self.meter = open_meter({"m": _as_run(folder)}, sensors=self.sensors).__enter__()
        self.engine = open_engine(folder, Way(max_batch=batch), self.meter.listener("m"))
        self._seed = 0

    def counted(self) -> float:
        return sum(sensor.joules() for sensor in self.sensors)

    def ask(self, kinds: Sequence[str], *, waits: bool = True
            ) -> tuple[dict[str, list[float]], float]:
        """Asks all at once; the joules that the meter gives each, by kind, and what was counted.
        A server does not wait for the counter's next readings before it settles.
        """
        from curbcut.serve.engine.interface import Asked, Sampling

        done: queue.Queue[tuple[str, int]] = queue.Queue()
        tickets: dict[int, str] = {}
        before = self.counted()
        for kind in kinds:
            prompt, answer = KINDS[kind]
            self._seed += 1
            tokens = tuple(10 + (self._seed * 7919 + place * 31) % 900 for place in range(prompt))
            asked = Asked(prompt=tokens, sampling=Sampling(max_tokens=answer, temperature=0.0,
                                                           ignore_end=True))

            def hear(delta: Any) -> None:
                if delta.finish:
                    done.put(("", 0))
            tickets[self.engine.submit(asked, hear)] = kind
        for _ in kinds:
            done.get(timeout=600)
        counted = self.counted() - before
        if waits:
            time.sleep(REST_SECONDS)
            self.meter.read()
        found: dict[str, list[float]] = {}
        for ticket, kind in tickets.items():
            share = self.meter.take("m", [ticket]).millijoules
            assert share is not None
            found.setdefault(kind, []).append(share / 1000)
        if not waits:
            time.sleep(REST_SECONDS)
        return found, counted

    def close(self) -> Any:
        self.engine.close()
        self.meter.close()
        return self.meter.where()


def measure(bench: Bench, each: int, rounds: int) -> dict[str, Any]:
    parts: dict[str, list[dict[str, float]]] = {}

    def note(name: str, kinds: Sequence[str], *, waits: bool = True) -> None:
        found, counted = bench.ask(kinds, waits=waits)
        parts.setdefault(name, []).append(
            {kind: sum(shares) for kind, shares in found.items()} | {"counted": counted})

    for _ in range(2):
        bench.ask(["read", "write"])
    for _ in range(rounds):
        for kind in KINDS:
            note(f"one {kind}", [kind])
            note(f"{each // 2} {kind}", [kind] * (each // 2))
            note(f"{each} {kind}", [kind] * each)
        note("mixed", [*KINDS] * (each // 2))
        note("mixed, at once", [*KINDS] * (each // 2), waits=False)
    return {name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            for name, rows in parts.items()}


def told(found: dict[str, Any], each: int) -> list[str]:
    """The table, and whether a mixture's shares are fair."""
    lines = [f"{'asked at once':<14} {'meter, J each':>16} {'counter, J each':>16} {'error':>8}"]
    for name, one in found.items():
        number = 1 if name.startswith("one") else each if "mixed" in name else int(name.split()[0])
        shares = sum(one[kind] for kind in KINDS if kind in one)
        lines.append(f"{name:<14} {shares / number:>16.3f} {one['counted'] / number:>16.3f} "
                     f"{shares / one['counted'] - 1:>+8.1%}")
    mixed, half = found["mixed"], each // 2
    for kind, other in (("read", "write"), ("write", "read")):
        least = mixed["counted"] - found[f"{half} {other}"]["counted"]
        most = found[f"one {kind}"]["counted"] * half
        fair = ("between" if least <= mixed[kind] <= most else
                "(too noisy to tell)" if least > most else "OUTSIDE")
        lines.append(f"of the mixture {kind} pays {mixed[kind]:.2f} J: {fair} the {least:.2f} J "
                     f"saved without it and the {most:.2f} J of each alone")
    return lines


def costs(work: Callable[[], object], times: int = 20_000) -> float:
    """Microseconds of one call, of this thread's own time."""
    start = time.thread_time()
    for _ in range(times):
        work()
    return (time.thread_time() - start) / times * 1e6


def overhead(folder: Path) -> dict[str, float]:
    """What metering takes: of the engine's thread, and of the meter's for each step of 8."""
    from curbcut.cli.serve import _as_run
    from curbcut.serve.engine.interface import StepRecord
    from curbcut.serve.metering import open_meter

    meter = open_meter({"m": _as_run(folder)})
    record = StepRecord(0.001, {}, dict.fromkeys(range(8), 1))
    step = costs(lambda: meter.on_step("m", record))
    start = time.thread_time()
    meter.read()
    shared = (time.thread_time() - start) / 20_000 * 1e6
    return {"us_a_step_engine": step, "us_a_step_meter": shared,
            "us_take": costs(lambda: meter.take("m", [1]), 2000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="m30")
    parser.add_argument("--each", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "bench" / "model"
        build(args.shape, folder)
        bench = Bench(folder, args.each)
        found = measure(bench, args.each, args.rounds)
        where = bench.close()
        took = overhead(folder)
    print(f"counter: {bench.sensors[0].name}")
    print("\n".join(told(found, args.each)))
    off = where.counted.millijoules - sum(one.millijoules for one in where.sums.values())
    shares = {kind: one.millijoules / where.counted.millijoules
              for (_, kind), one in where.sums.items()}
    print(f"counter less all lines: {off} mJ; " + ", ".join(
        f"{kind} {share:.1%}" for kind, share in shares.items()))
    print(", ".join(f"{name} {value:.2f}" for name, value in took.items()))
    if args.json:
        args.json.write_text(json.dumps({"parts": found, "off_millijoules": off, "shares": shares,
                                         "overhead": took}, indent=2))


if __name__ == "__main__":
    main()

"""What HTTP, gateway and ledger cost over the bare engine; what a shared prefix saves; how long a
server takes to start.

The bare engine and the server are processes of their own that stay up and are asked in turn, the
same requests by the same seed, so that a slow minute of the machine hits both alike. Medians of the
repeats are shown; each repeat has requests of its own. The server checks a key and writes each
use to a ledger of its own.

    python benchmarks/serving_gateway.py [--shape m30] [--batch 16] [--requests 64] [--repeats 3]
        [--threads 2] [--parts cost,prefix,start] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving_speed import SHAPES, build

PROMPT, OUTPUT = "48..80", "32"
LONG, SHARED = "400", 0.9
"""Prompt of the test of prefixes, and the share that all have in common."""
BARS = {"throughput lost": 0.05, "TTFT added, one user": 0.002, "TTFT added, full batch": 0.002,
        "TTFT with 90% shared, over none": 0.25, "start, seconds": 3.0}


def asking(seed: int, folder: Path, prompt: str, shared: float = 0.0) -> Any:
    """Requests of tokens."""
    from curbcut.serve.bench.lengths import Asking, lengths
    from curbcut.serve.engine import text

    vocab = text.load(folder).size
    return Asking(seed, lengths(prompt, "prompt"), lengths(OUTPUT, "output"), shared,
                  pool=range(10, vocab))


def bare(folder: Path, batch: int, threads: int) -> None:
    """The bare engine: reads (users, requests, seed) a line, answers with what its users met."""
    import torch

    from curbcut.serve.opening import Way, open_engine

    torch.set_num_threads(threads)
    engine = open_engine(folder, Way(max_batch=batch))
    _looped(engine, asking(-1, folder, PROMPT), 2, 4)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        users, requests, seed = json.loads(line)
        print(json.dumps(_looped(engine, asking(seed, folder, PROMPT), users, requests)),
              flush=True)
    engine.close()


def _looped(engine: Any, questions: Any, users: int, requests: int) -> dict[str, float]:
    """A closed loop on the engine's own thread: who has an answer asks again at once."""
    import threading

    from curbcut.serve.engine.interface import Asked, Delta, Sampling

    asked = [Asked(prompt=question.prompt, sampling=Sampling(
        max_tokens=question.output_tokens, ignore_end=True, temperature=0.0))
        for question in map(questions.question, range(requests))]
    left, firsts, tokens, numbers = threading.Semaphore(0), [], [0], iter(range(requests))

    def ask() -> None:
        number = next(numbers, None)
        if number is None:
            return
        began, seen = time.perf_counter(), False

        def hear(delta: Delta) -> None:
            nonlocal seen
            if delta.text and not seen:
                seen = True
                firsts.append(time.perf_counter() - began)
            if delta.finish is not None:
                tokens[0] += delta.tokens
                ask()
                left.release()
        engine.submit(asked[number], hear)
    begin = time.perf_counter()
    for _ in range(min(users, requests)):
        ask()
    for _ in range(requests):
        left.acquire()
    return {"tokens_per_second": tokens[0] / (time.perf_counter() - begin),
            "ttft": statistics.median(firsts)}


def served(where: Any, folder: Path, users: int, requests: int, seed: int, prompt: str = PROMPT,
           shared: float = 0.0) -> dict[str, float]:
    """The same over HTTP."""
    from curbcut.serve.bench.drive import Bench, drive
    from curbcut.serve.bench.load import Closed

    found = drive(where, Bench(asking=asking(seed, folder, prompt, shared), loads=(Closed(users),),
                               requests=requests)).results[0]
    assert not found.errors and found.ttft is not None, found.errors
    return {"tokens_per_second": found.output_per_second, "ttft": found.ttft.percentiles[50]}


def cost(folder: Path, args: argparse.Namespace, where: Any) -> dict[str, float]:
    """The engine bare and behind the gateway, in turn."""
    command = [sys.executable, __file__, "--bare", str(folder), "--batch", str(args.batch),
               "--threads", str(args.threads)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    process.stdout.readline()

    def alone(users: int, requests: int, seed: int) -> dict[str, float]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps([users, requests, seed]) + "\n")
        process.stdin.flush()
        return dict(json.loads(process.stdout.readline()))

    def behind(users: int, requests: int, seed: int) -> dict[str, float]:
        return served(where, folder, users, requests, seed)

    ways: dict[str, Callable[[int, int, int], dict[str, float]]] = {"bare": alone, "http": behind}
    rows: dict[str, list[dict[str, float]]] = {}
    for repeat in range(args.repeats):
        for users, requests in ((args.batch, args.requests), (1, max(4, args.requests // 4))):
            for name in sorted(ways, reverse=bool(repeat % 2)):
                rows.setdefault(f"{name} {users}", []).append(
                    ways[name](users, requests, 10 * repeat + users))
    process.stdin.close()
    process.wait()
    middle = {name: {key: statistics.median(row[key] for row in found) for key in found[0]}
              for name, found in rows.items()}
    full, one = f" {args.batch}", " 1"
    return {
        "bare, tokens/s": middle["bare" + full]["tokens_per_second"],
        "over HTTP, tokens/s": middle["http" + full]["tokens_per_second"],
        "throughput lost": 1 - (middle["http" + full]["tokens_per_second"]
                                / middle["bare" + full]["tokens_per_second"]),
        "TTFT bare, one user": middle["bare" + one]["ttft"],
        "TTFT added, one user": middle["http" + one]["ttft"] - middle["bare" + one]["ttft"],
        "TTFT bare, full batch": middle["bare" + full]["ttft"],
        "TTFT added, full batch": middle["http" + full]["ttft"] - middle["bare" + full]["ttft"]}


def prefix(folder: Path, args: argparse.Namespace, where: Any) -> dict[str, float]:
    """TTFT of prompts that share most of their beginning, over those that share nothing."""
    found: dict[float, list[float]] = {0.0: [], SHARED: []}
    for repeat in range(args.repeats):
        for shared in sorted(found, reverse=bool(repeat % 2)):
            found[shared].append(served(where, folder, 1, max(4, args.requests // 8), repeat,
                                        LONG, shared)["ttft"])
    plain, most = (statistics.median(each) for each in found.values())
    return {"TTFT, nothing shared": plain, "TTFT, 90% shared": most,
            "TTFT with 90% shared, over none": most / plain}


def start(folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Seconds from the command to a server that listens."""
    from curbcut.serve.bench.process import started

    seconds = []
    for _ in range(args.repeats):
        with started(folder) as one:
            seconds.append(one.seconds)
    return {"start, seconds": statistics.median(seconds)}


def main() -> None:
    """Measures what was asked for and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="m30")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", default="cost,prefix,start")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        bare(args.bare, args.batch, args.threads)
        return
    from curbcut.serve.bench.process import started
    from curbcut.serve.engine.address import Address

    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / args.shape / "model"
        build(args.shape, folder)
        parts = args.parts.split(",")
        if set(parts) & {"cost", "prefix"}:
            with started(folder, ["--max-batch", str(args.batch)], keyed=True) as server:
                where = Address.of(server.url, server.key)
                found |= cost(folder, args, where) if "cost" in parts else {}
                found |= prefix(folder, args, where) if "prefix" in parts else {}
        found |= start(folder, args) if "start" in parts else {}
    for name, value in found.items():
        bar = BARS.get(name)
        said = "" if bar is None else f"   bar {bar:g}: {'met' if value <= bar else 'MISSED'}"
        print(f"{name:<34} {value:10.4g}{said}")
    if args.json:
        args.json.write_text(json.dumps({"shape": args.shape, "batch": args.batch, **found},
                                        indent=1))


if __name__ == "__main__":
    main()

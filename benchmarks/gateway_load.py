"""A keyed server under load: connections from 1 to 1,000, minutes at 80% of what it can,
three times too much, and two keys of weights 1 and 3.

Each part starts `curbcut serve` on a random model with a ledger of its own, keys, prices and
budgets, so that every request is held, covered and settled. Client and server share the machine's
cores, so what the server can do is what this client can make it do.

    python benchmarks/gateway_load.py [--shape tiny] [--batch 16] [--minutes 2]
        [--parts connections,soak,overload,fairness] [--json FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from serving_speed import build

PROMPT_TOKENS, ANSWER_TOKENS = 24, 24
SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Server:
    """One that answers."""

    where: Any
    """`Address` with the first key."""
    process: psutil.Process
    runs: Path
    secrets: tuple[str, ...]


@dataclass(frozen=True)
class Met:
    """What one request met."""

    status: int
    error: str
    seconds: float
    ttft: float | None
    key: int = 0
    tokens: int = 0
    ended: float = 0.0
    """Seconds of `time.perf_counter`."""


@contextlib.contextmanager
def served(folder: Path, batch: int, weights: Sequence[float] = (1.0,)) -> Iterator[Server]:
    """`curbcut serve` with a key for each weight, each in a project of its own, with budgets."""
    from curbcut.ledger import FILE_NAME, access, budgets, holds, open_ledger, prices
    from curbcut.ledger.access import Allowance
    from curbcut.ledger.prices import Price
    from curbcut.serve.engine.address import Address

    with tempfile.TemporaryDirectory(prefix="curbcut-load-") as aside:
        runs, secrets = Path(aside), []
        with open_ledger(runs / FILE_NAME) as ledger:
            for number, weight in enumerate(weights):
                project = f"p{number}"
                access.create_project(ledger, project, actor="bench")
                secrets.append(access.issue_key(ledger, f"k{number}", project=project,
                                                actor="bench"))
                access.set_allowance(ledger, f"project:{project}", Allowance(weight=weight),
                                     actor="bench")
                budgets.set_budget(ledger, f"project:{project}", "nanousd", 10**15, actor="bench")
            prices.set_price(ledger, Price(
                model="model", prompt_nanousd=10**8, cached_nanousd=10**7,
                output_nanousd=4 * 10**8), actor="bench")
        process = subprocess.Popen(
            [sys.executable, "-m", "curbcut.cli.main", "serve", str(folder), "--name", "model",
             "--port", "0", "--json", "--runs", aside, "--max-batch", str(batch)],
            stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            where = Address.of(said["url"], secrets[0])
            yield Server(where, psutil.Process(process.pid), runs,
                         tuple(secrets))
        finally:
            process.terminate()
            process.wait(60)
            with open_ledger(runs / FILE_NAME) as ledger:
                left = holds.live(ledger)
            if left:
                raise SystemExit(f"{left} holds were left behind")


def body(chance: random.Random) -> dict[str, Any]:
    """A request of its own tokens."""
    return {"model": "model", "prompt": [chance.randrange(10, 1000) for _ in range(PROMPT_TOKENS)],
            "max_tokens": ANSWER_TOKENS, "temperature": 0, "stream": True, "ignore_eos": True}


async def ask(client: Any, request: bytes, key: int = 0) -> Met:
    """One request, and what came of it."""
    answer = await client.ask(request, 120.0)
    events = answer.events() if answer.status == 200 and not answer.error else []
    whole = bool(events) and events[-1][1] == b"[DONE]"
    broken = "" if answer.status != 200 or whole else (answer.error or "the stream was cut")
    first = next((when for when, data in events if b'"text"' in data), None)
    return Met(answer.status, answer.error or broken, answer.ended - answer.began,
               first - answer.began if first else None, key, ANSWER_TOKENS if whole else 0,
               answer.ended)


@contextlib.asynccontextmanager
async def clients(server: Server) -> AsyncIterator[list[Any]]:
    """A client for each key."""
    from curbcut.serve.bench.client import Client

    made = [Client(replace(server.where, key=secret)) for secret in server.secrets]
    try:
        yield made
    finally:
        for client in made:
            client.close()


async def closed(server: Server, users: int, seconds: float) -> tuple[list[Met], float]:
    """`users` that ask again as soon as they have their answer, by turns of each key; who is told
    to come again waits a moment.
    """
    chance, met = random.Random(users), []
    begin = time.perf_counter()

    async def user(number: int) -> None:
        client, key = made[number % len(made)], number % len(made)
        while time.perf_counter() - begin < seconds:
            one = await ask(client, client.request("/v1/completions", body(chance)), key)
            met.append(one)
            if one.status == 429:
                await asyncio.sleep(0.5 + chance.random())
    async with clients(server) as made:
        await asyncio.gather(*map(user, range(users)))
    return met, time.perf_counter() - begin


async def opened(server: Server, rate: float, seconds: float,
                 watch: Callable[[float], None] = lambda _seconds: None) -> list[Met]:
    """`rate` requests a second by chance, whatever happens."""
    chance, due, times = random.Random(1), 0.0, []
    while (due := due + chance.expovariate(rate)) < seconds:
        times.append(due)
    async with clients(server) as (client, *_):
        begin = time.perf_counter()

        async def one(when: float) -> Met:
            await asyncio.sleep(begin + when - time.perf_counter())
            return await ask(client, client.request("/v1/completions", body(chance)))

        async def watching() -> None:
            while time.perf_counter() - begin < seconds:
                watch(time.perf_counter() - begin)
                await asyncio.sleep(1.0)
        both = await asyncio.gather(watching(), *map(one, times))
    return list(both[1:])


def percentile(values: Sequence[float], share: float) -> float | None:
    """By nearest rank; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def said(met: Sequence[Met], seconds: float) -> dict[str, Any]:
    """Counts and percentiles of what all met."""
    good = [one for one in met if one.tokens]
    refused = [one.seconds for one in met if one.status == 429]
    return {"requests": len(met), "answered": len(good),
            "answered a second": len(good) / seconds,
            "tokens a second": sum(one.tokens for one in good) / seconds,
            "TTFT p50": percentile([one.ttft for one in good if one.ttft], 0.5),
            "TTFT p95": percentile([one.ttft for one in good if one.ttft], 0.95),
            "answered 429": len(refused), "429 p50": percentile(refused, 0.5),
            "429 p95": percentile(refused, 0.95),
            "others": dict(Counter(one.error or f"status {one.status}" for one in met
                                   if not one.tokens and one.status != 429))}


def connections(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Users from 1 to 1,000 on one server."""
    rows = []
    with served(folder, args.batch) as server:
        for users in (1, 8, 64, 256, 1000):
            met, seconds = asyncio.run(closed(server, users, args.seconds))
            rows.append({"users": users, **said(met, seconds), "RSS": rss(server)})
            time.sleep(SETTLE_SECONDS)
    return rows


def can(server: Server, batch: int) -> float:
    """Answers a second of a full batch."""
    asyncio.run(closed(server, batch, 3.0))
    met, seconds = asyncio.run(closed(server, batch, 8.0))
    return float(said(met, seconds)["answered a second"])


def soak(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Minutes at 80% of what it can: memory and open files stay flat."""
    seen: list[tuple[float, int, int]] = []
    with served(folder, args.batch) as server:
        rate = 0.8 * can(server, args.batch)

        def watch(seconds: float) -> None:
            seen.append((seconds, rss(server), server.process.num_fds()))
        met = asyncio.run(opened(server, rate, args.minutes * 60, watch))
        found = said(met, args.minutes * 60)
        time.sleep(SETTLE_SECONDS)
        fds = server.process.num_fds()
    warm = [one for one in seen if one[0] >= min(60.0, args.minutes * 15)]
    third = max(1, len(warm) // 3)
    early, late = (statistics.median(one[1] for one in part)
                   for part in (warm[:third], warm[-third:]))
    return [{"rate": rate, "minutes": args.minutes, **found, "RSS early": early, "RSS late": late,
             "RSS growth": late / early - 1, "files after": fds}]


def overload(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """80% of what it can, then three times as much as it can."""
    rows = []
    with served(folder, args.batch) as server:
        able = can(server, args.batch)
        for share in (0.8, 3.0):
            met = asyncio.run(opened(server, share * able, args.seconds * 2))
            rows.append({"load": share, **said(met, args.seconds * 2)})
            time.sleep(SETTLE_SECONDS)
    return rows


def fairness(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Two keys of weights 1 and 3 that both always want more."""
    seconds = 2 * args.seconds
    with served(folder, args.batch, weights=(1.0, 3.0)) as server:
        begin = time.perf_counter()
        met, _ = asyncio.run(closed(server, 4 * args.batch, seconds))
    # At the end nobody asks any more, and who still waits is answered, whatever its weight.
    met = [one for one in met if one.ended - begin <= seconds]
    tokens = [sum(one.tokens for one in met if one.key == key) for key in (0, 1)]
    return [{"tokens of 1": tokens[0], "tokens of 3": tokens[1],
             "ratio": tokens[1] / tokens[0] if tokens[0] else None, **said(met, seconds)}]


def rss(server: Server) -> int:
    """Bytes of memory of the server."""
    return int(server.process.memory_info().rss)


def shown(value: Any) -> str:
    """One cell."""
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and value > 10**6:
        return f"{value / 2**20:,.0f} MiB"
    return "-" if value is None else str(value)


PARTS: dict[str, Callable[[Path, argparse.Namespace], list[dict[str, Any]]]] = {
    "connections": connections, "soak": soak, "overload": overload, "fairness": fairness}


def main() -> None:
    """Prints a table a part, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="curbcut-load-") as aside:
        folder = Path(aside) / "model"
        build(args.shape, folder)
        for part in args.parts.split(","):
            found[part] = rows = PARTS[part](folder, args)
            print(f"\n{part}: {args.shape}, batch {args.batch}, {PROMPT_TOKENS} + {ANSWER_TOKENS} "
                  f"tokens, {os.cpu_count()} cores")
            print(" | ".join(rows[0]))
            for row in rows:
                print(" | ".join(map(shown, row.values())), flush=True)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

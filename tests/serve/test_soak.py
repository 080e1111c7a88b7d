"""Long loads: many clients, some of whom leave, and minutes with keys, budgets and a ledger.
Nothing is left behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter

import psutil
import pytest

from curbcut.ledger import FILE_NAME, access, budgets, holds, open_ledger, schema
from curbcut.ledger.prices import Price, set_price
from curbcut.serve.bench.client import Client
from curbcut.serve.engine.address import Address
from curbcut.serve.server import serving

SECONDS = 60.0
CLIENTS = 12


def ask(url, chance):
    body = json.dumps({"model": "tiny", "prompt": "the " * chance.randint(1, 8),
                       "max_tokens": chance.randint(1, 48), "temperature": 0,
                       "stream": True}).encode()
    request = urllib.request.Request(f"{url}/v1/completions", body,
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        if chance.random() < 0.2:  # this client leaves in the middle
            response.readline()
            return "left"
        return "done" if response.read().rstrip().endswith(b"[DONE]") else "cut"


def client(url, seed, until, ends):
    chance = random.Random(seed)
    while time.monotonic() < until:
        try:
            ends.append(ask(url, chance))
        except urllib.error.HTTPError as error:
            ends.append(error.code)


@pytest.mark.soak
def test_a_minute_of_many_clients_leaves_nothing_behind(folder):
    process = psutil.Process()
    with serving(folder, max_batch=4) as session:
        ask(session.url, random.Random(0))
        before = process.memory_info().rss
        ends, until = [], time.monotonic() + SECONDS
        threads = [threading.Thread(target=client, args=(session.url, seed, until, ends))
                   for seed in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(ends) <= {"done", "left", 429}
        assert ends.count("done") > CLIENTS
        assert process.memory_info().rss - before < 200 * 2**20
        assert ask(session.url, random.Random(1)) in ("done", "left")
        assert_at_rest(session)


def assert_at_rest(session):
    """Every request has ended in one way, and every page is free again."""
    patience = time.monotonic() + 60
    while session.stats().running + session.stats().waiting and time.monotonic() < patience:
        time.sleep(0.01)
    stats = session.stats()
    assert (stats.running, stats.waiting, stats.used_pages) == (0, 0, 0)
    assert stats.requests == stats.finished + stats.cancelled and stats.failed == 0


@pytest.mark.soak
def test_a_thousand_streams_that_are_left_give_all_pages_back(folder):
    with serving(folder, max_batch=4) as session:
        def leave(seed):
            chance = random.Random(seed)
            for _ in range(125):
                body = json.dumps({"model": "tiny", "prompt": "the " * chance.randint(1, 8),
                                   "max_tokens": 90, "stream": True, "seed": 1}).encode()
                request = urllib.request.Request(f"{session.url}/v1/completions", body,
                                                 {"Content-Type": "application/json"})
                with urllib.request.urlopen(request, timeout=30) as response:
                    for _ in range(chance.randint(0, 3)):
                        response.readline()

        threads = [threading.Thread(target=leave, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert session.stats().requests == 1000
        assert_at_rest(session)
        assert session.stats().cancelled > 100


MINUTES = float(os.environ.get("CURBCUT_SOAK_MINUTES", "10"))
"""How long the load with keys holds on."""
MOST_A_SECOND = float(os.environ.get("CURBCUT_SOAK_RATE", "40"))
"""Requests a second at most, for machines that others use too."""


@pytest.fixture
def keyed(folder, tmp_path):
    """A server in a process of its own, with a key under a budget: (address, process, ledger)."""
    with open_ledger(tmp_path / FILE_NAME) as ledger:
        access.create_project(ledger, "lab", actor="test")
        secret = access.issue_key(ledger, "ann", project="lab", actor="test")
        set_price(ledger, Price(model="tiny", prompt_nanousd=10**12, cached_nanousd=10**11,
                                output_nanousd=2 * 10**12), actor="test")
        budgets.set_budget(ledger, "project:lab", "nanousd", 10**16, actor="test")
        budgets.set_budget(ledger, "organisation:default", "tokens", 10**12, period="month",
                           actor="test")
        process = subprocess.Popen(
            [sys.executable, "-m", "curbcut.cli.main", "serve", str(folder), "--port", "0",
             "--name", "tiny", "--max-batch", "8", "--runs", str(tmp_path), "--json"],
            stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        try:
            url = json.loads(process.stdout.readline())["url"]
            yield Address.of(url, secret), psutil.Process(process.pid), ledger
        finally:
            process.terminate()
            process.wait(60)


async def post(client, chance):
    """The status of one streamed answer; 0 where it was cut."""
    answer = await client.ask(client.request("/v1/completions", {
        "model": "tiny", "prompt": "the " * chance.randint(1, 8), "stream": True,
        "max_tokens": chance.randint(4, 32), "ignore_eos": True, "temperature": 0}), 60.0)
    whole = answer.status != 200 or answer.events()[-1][1] == b"[DONE]"
    return answer.status if whole and not answer.error else 0


async def able(client, chance, users=8, seconds=5.0):
    """Answers a second of `users` that always ask."""
    end, answered = time.monotonic() + seconds, 0

    async def user():
        nonlocal answered
        while time.monotonic() < end:
            status = await post(client, chance)
            answered += status == 200
    await asyncio.gather(*(user() for _ in range(users)))
    return answered / seconds


async def pressed(client, chance, rate, seconds, process):
    """`rate` requests a second by chance: statuses, and (bytes, open files) each second."""
    found, seen, begin, due = [], [], time.monotonic(), 0.0
    tasks = set()

    async def one():
        found.append(await post(client, chance))
    while (due := due + chance.expovariate(rate)) < seconds:
        await asyncio.sleep(begin + due - time.monotonic())
        tasks.add(task := asyncio.ensure_future(one()))
        task.add_done_callback(tasks.discard)
        if len(seen) < due:
            seen.append((process.memory_info().rss, process.num_fds()))
    await asyncio.gather(*tasks)
    return Counter(found), seen


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 300)
def test_minutes_with_keys_at_four_fifths_leave_all_as_it_was(keyed):
    where, process, ledger = keyed
    client, chance = Client(where), random.Random(0)

    async def all_of_it():
        rate = min(MOST_A_SECOND, 0.8 * await able(client, chance))
        try:
            return rate, await pressed(client, chance, rate, MINUTES * 60, process)
        finally:
            client.close()
    rate, (statuses, seen) = asyncio.run(all_of_it())
    patience = time.monotonic() + 30
    while holds.live(ledger) and time.monotonic() < patience:
        time.sleep(0.05)
    part = max(1, len(seen) // 5)
    # in the first minutes the pages of the cache are touched for the first time
    early, late = (statistics.median(rss for rss, _ in some)
                   for some in (seen[2 * part:3 * part], seen[-part:]))
    print(f"{rate:.1f} requests a second for {MINUTES:g} min: {dict(statuses)}; memory "
          f"{early / 2**20:.1f} MiB, then {late / 2**20:.1f} MiB; at most "
          f"{max(files for _, files in seen)} open files")
    assert set(statuses) <= {200, 429} and statuses[200] > 0.9 * sum(statuses.values())
    assert late - early < 8 * 2**20
    assert holds.live(ledger) == 0
    with ledger.reading() as connection:
        uses = connection.execute(schema.uses.select()).all()
    assert len(uses) == len({use.hold for use in uses}) >= statuses[200]
    spent = {budget.scope: budget for budget in budgets.budgets(ledger)}
    assert {budget.held for budget in spent.values()} == {0}
    assert spent["project:lab"].spent == sum(use.charged_nanousd for use in uses)
    assert spent["organisation:default"].spent == sum(
        use.prompt_tokens + use.output_tokens for use in uses)

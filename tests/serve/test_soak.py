"""A long load: many clients for a minute, some of whom leave, and nothing is left behind."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.error
import urllib.request

import psutil
import pytest

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

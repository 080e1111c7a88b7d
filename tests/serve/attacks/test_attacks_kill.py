"""The whole server is killed at any instant: what it had delivered is charged, once, and nothing
else is; and nothing that it wrote anywhere tells secrets. S13 and S15 of the matrix.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
import sqlalchemy as sa

from curbcut.ledger import access, budgets, holds, open_ledger, schema
from curbcut.ledger.prices import Price, set_price
from curbcut.serve.gateway.bill import SLICE_TOKENS
from curbcut.serve.gateway.till import Till

WORDS = "xylophones by moonlight"
PRICE = Price(model="tiny", prompt_nanousd=10**12, cached_nanousd=10**12, output_nanousd=10**12)
STREAMS, WHOLE = [f"stream-{i}" for i in range(8)], [f"whole-{i}" for i in range(3)]


class Client(threading.Thread):
    """One request of one key, and what came of it."""

    def __init__(self, http, secret, stream):
        super().__init__()
        self.http, self.secret, self.stream = http, secret, stream
        self.received, self.ended = 0, False
        self.start()

    def run(self):
        body = {"model": "tiny", "prompt": WORDS, "max_tokens": 90, "n": 2, "temperature": 2,
                "ignore_eos": True, "stream": self.stream}
        if self.stream:
            body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
        headers = {"Authorization": f"Bearer {self.secret}"}
        try:
            with self.http.stream("POST", "/v1/completions", json=body, headers=headers) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        usage = json.loads(line.removeprefix("data: "))["usage"]
                        self.received = usage["completion_tokens"]
                    elif line.startswith("{"):
                        self.received = json.loads(line)["usage"]["completion_tokens"]
                self.ended = True
        except httpx.HTTPError:
            pass


def killed_once(folder, place, seconds, check_texts=False):
    """Starts the command, asks, kills it after `seconds`; what the ledger says must fit."""
    place.mkdir(exist_ok=True)
    with open_ledger(place / "ledger.sqlite") as ledger:
        set_price(ledger, PRICE, actor="test")
        secrets = {name: access.issue_key(ledger, name, actor="test") for name in STREAMS + WHOLE}
        budgets.set_budget(ledger, "project:default", "nanousd", 10**15, actor="test")
    ledger_file = str(place / "ledger.sqlite")
    command = [sys.executable, "-m", "curbcut.cli.main", "serve", str(folder), "--name", "tiny",
               "--port", "0", "--json", "--max-batch", "4", "--ledger", ledger_file]
    with (place / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True,
                                  env=os.environ)
    try:
        url = json.loads(server.stdout.readline())["url"]
        http = httpx.Client(base_url=url, timeout=60)
        clients = {name: Client(http, secret, name in STREAMS) for name, secret in secrets.items()}
        until = time.monotonic() + 60
        while not any(client.ended for client in clients.values()):
            assert time.monotonic() < until, (place / "log").read_text()
            time.sleep(0.01)
        time.sleep(seconds)
        server.send_signal(signal.SIGKILL)
    finally:
        server.kill()
        server.wait()
    for client in clients.values():
        client.join()
    with open_ledger(place / "ledger.sqlite") as ledger:
        with ledger.writing() as connection:
            connection.execute(sa.update(schema.servers).values(beat=0.0))
        for _ in range(2):  # found by the next server, and by the one after that no more
            Till(ledger).close()
        check(ledger, clients)
    if check_texts:
        no_secrets(place, secrets)


def check(ledger, clients):
    with ledger.reading() as connection:
        uses = connection.execute(sa.select(schema.uses)).all()
    [budget] = budgets.budgets(ledger, ["project:default"])
    assert budget.held == 0 and holds.live(ledger) == 0
    assert budget.spent == sum(use.charged_nanousd for use in uses)
    for name, client in clients.items():
        mine = [use for use in uses if use.key == name]
        charged = [use.output_tokens for use in mine]
        assert len(charged) <= 1, name
        assert client.ended or all(use.finish in ("abandoned", "length") for use in mine), name
        took = sum(charged)
        if client.ended:
            assert took == client.received
        elif client.stream:
            assert client.received <= took < client.received + 2 * SLICE_TOKENS, name
        else:
            assert took == 0, name  # nobody has it


def no_secrets(place, secrets):
    for path in place.iterdir():
        held = path.read_bytes()
        for said in (*secrets.values(), WORDS, "Authorization"):
            assert said.encode() not in held, (path.name, said)
        for secret in secrets.values():
            assert secret.split("-", 2)[2].encode() not in held, path.name


def test_a_killed_server_charged_what_it_delivered_and_told_nothing(folder, tmp_path):
    killed_once(folder, tmp_path / "place", 0.2, check_texts=True)


@pytest.mark.soak
def test_killed_at_twenty_instants(folder, tmp_path):
    chance = random.Random(7)
    for number in range(20):
        killed_once(folder, tmp_path / str(number), chance.uniform(0, 1))

"""A killed server: streams are charged what went out and a slice at most, others naught."""

import json
import os
import subprocess
import sys
import threading

import httpx
import pytest
import sqlalchemy as sa

from curbcut.ledger import access, budgets, holds, open_ledger, schema
from curbcut.ledger.prices import Price, set_price
from curbcut.serve.gateway.bill import SLICE_TOKENS
from curbcut.serve.gateway.till import Till

PROGRAM = """
import sys, time
from functools import partial
from pathlib import Path
from curbcut.ledger import access, open_ledger
from curbcut.serve.engine.runner import TorchRunner
from curbcut.serve.gateway.till import Till
from curbcut.serve.server import serve
run = TorchRunner.run
TorchRunner.run = lambda self, pieces: time.sleep(0.01) or run(self, pieces)
ledger = open_ledger(Path(sys.argv[1]))
serve(Path(sys.argv[2]), port=0, verify=partial(access.verify, ledger), till=Till(ledger),
      on_ready=lambda session: print(session.url, flush=True))
"""
ASK = {"model": "tiny", "prompt": "abcdef", "max_tokens": 110, "temperature": 2,
       "ignore_eos": True}


@pytest.fixture
def ledger(tmp_path):
    with open_ledger(tmp_path / "ledger.sqlite") as ledger:
        set_price(ledger, Price(model="tiny", prompt_nanousd=10**6, cached_nanousd=10**6,
                                output_nanousd=10**6), actor="test")
        yield ledger


def test_a_killed_server_charges_streams_once_and_nothing_else(ledger, folder):
    secret = access.issue_key(ledger, "ann", actor="test")
    scope = access.scope_of_key(ledger, "ann")
    budgets.set_budget(ledger, scope, "tokens", 10**6, actor="test")
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(ledger.where), str(folder)],
                               stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        url = process.stdout.readline().strip() + "/v1/completions"
        headers = {"Authorization": f"Bearer {secret}"}
        ended = []

        def whole():
            try:
                ended.append(httpx.post(url, json=ASK, headers=headers, timeout=60))
            except httpx.TransportError as error:
                ended.append(error)

        asking = threading.Thread(target=whole)
        asking.start()
        received = 0
        try:
            with httpx.stream("POST", url, headers=headers, timeout=60, json=ASK | {
                    "stream": True, "return_token_ids": True, "n": 3}) as answer:
                for line in answer.iter_lines():
                    if line:
                        chunk = json.loads(line.removeprefix("data: "))
                        received += len(chunk["choices"][0]["token_ids"])
                    if received > 90:
                        process.kill()  # what is on its way still comes
        except httpx.TransportError:
            pass
        asking.join(60)
    finally:
        process.kill()
        process.wait(30)
    assert received < 330 and isinstance(ended[0], httpx.TransportError)
    assert holds.live(ledger) == 2
    with ledger.writing() as connection:
        connection.execute(sa.update(schema.servers).values(beat=0.0))
    for _ in range(2):  # found by the next server, and by the one after that no more
        Till(ledger).close()
    with ledger.reading() as connection:
        [use] = connection.execute(sa.select(schema.uses)).all()
    assert use.finish == "abandoned" and use.prompt_tokens == 5
    assert received <= use.output_tokens <= received + SLICE_TOKENS + 2 * 3
    [budget] = budgets.budgets(ledger, [scope])
    assert (budget.spent, budget.held) == (5 + use.output_tokens, 0)

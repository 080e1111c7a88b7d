"""What budgets cost: requests held, covered and settled a second, alone and together; and 64 at
once against the last dollar; and servers killed at random instants.

    python benchmarks/ledger_holds.py [--requests 400] [--kills 100] [--postgres]

SQLite lies in a folder of /tmp with every commit synced; `--postgres` starts a private PostgreSQL
from what is installed, also with every commit synced.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import postgres
from curbcut.ledger import access, holds, open_ledger, pepper, usage
from curbcut.ledger.access import Caller
from curbcut.ledger.holds import Exhausted, Taken
from curbcut.ledger.store import Ledger
from ledger.accounts import caller, set_budget, standing, uses, wanted

DOLLAR, NICKEL = 10**9, 5 * 10**7
TAKEN = Taken(prompt_tokens=100, output_tokens=50, nanousd=1000, millijoules=500, finish="stop")


def main() -> None:
    """Prints the figures of one kind of ledger."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--postgres", action="store_true")
    args = parser.parse_args()
    with places(args.postgres) as place:
        with opened(place()) as (ledger, ann):
            speeds(ledger, ann, args.requests)
        with opened(place()) as (ledger, ann):
            race(ledger, ann)
        kills(place(), args.kills)


@contextlib.contextmanager
def places(postgresql: bool) -> Iterator[Callable[[], str]]:
    """What gives the place of a new ledger."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[pepper.VARIABLE] = f"{folder}/pepper"
        if not postgresql:
            yield lambda: tempfile.mkdtemp(dir=folder) + "/ledger.sqlite"
            return
        with postgres.server(synced=True) as url:
            yield lambda: postgres.new_database(url)


@contextlib.contextmanager
def opened(place: str) -> Iterator[tuple[Ledger, Caller]]:
    """A ledger with six budgets that all requests of one caller are held in."""
    with open_ledger(place) as ledger:
        ann = caller(ledger)
        for scope in ann.scopes:
            set_budget(ledger, scope, 2**50)
            set_budget(ledger, scope, 2**50, "tokens", period="month")
        yield ledger, ann


def speeds(ledger: Ledger, ann: Caller, count: int) -> None:
    """Rates by how many requests share a transaction, and of what else a request asks."""
    server = holds.open_server(ledger)
    for together in (1, 8, 64, 256):
        took: dict[str, list[float]] = {"hold": [], "cover": [], "settle": []}
        for _ in range(max(3, count // together)):
            asked = [wanted(ann, 200, 2000) for _ in range(together)]
            took["hold"].append(timed(lambda asked=asked: holds.hold_all(ledger, server, asked)))
            ids = {one.id: TAKEN for one in asked}
            took["cover"].append(timed(lambda ids=ids: holds.cover_all(ledger, ids)))
            took["settle"].append(timed(lambda ids=ids: holds.settle_all(ledger, ids)))
        parts = ", ".join(f"{name} {1000 * median(each):6.2f} ms" for name, each in took.items())
        whole = sum(median(each) for each in took.values())
        print(f"{together:4d} a transaction: {parts}: {together / whole:8,.0f} requests/s")
    secret = access.issue_key(ledger, "bob", actor="bench")
    verify = median(timed(lambda: access.verify(ledger, secret)) for _ in range(50))
    read = timed(lambda: usage.used(ledger))
    print(f"a key is looked up in {1000 * verify:.2f} ms; usage of {uses(ledger)[1]:,} requests in "
          f"{1000 * read:.1f} ms")


def race(ledger: Ledger, ann: Caller) -> None:
    """64 threads, each for a twentieth of the last dollar, until nothing is left."""
    set_budget(ledger, ann.scopes[0], DOLLAR)
    server, over, begin = holds.open_server(ledger), [], time.perf_counter()
    gate = threading.Barrier(64)

    def ask(number: int) -> None:
        chance = random.Random(number)
        gate.wait()
        while True:
            try:
                id_ = holds.hold(ledger, server, wanted(ann, 1, NICKEL))
            except Exhausted:
                return
            spent, held, _ = standing(ledger, ann.scopes[0])
            over.append(max(0, spent + held - DOLLAR))
            nanousd = chance.randint(NICKEL // 4, NICKEL)
            holds.settle(ledger, id_, Taken(prompt_tokens=0, output_tokens=1, nanousd=nanousd))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent, held, left = standing(ledger, ann.scopes[0])
    print(f"64 threads on $1: {len(over)} requests, spent ${spent / DOLLAR:.9f}, held {held}, left "
          f"${left / DOLLAR:.9f}, overshoot {max(over)}, uses ${uses(ledger)[0] / DOLLAR:.9f}, "
          f"{time.perf_counter() - begin:.1f} s")


def kills(place: str, count: int) -> None:
    """Servers with 16 streams at once, killed at random instants."""
    with open_ledger(place) as ledger:
        secret = access.issue_key(ledger, "ann", actor="bench")
        set_budget(ledger, "project:default", 2**50)
    chance, delivered, answered = random.Random(1), dict[str, int](), set[str]()
    for _ in range(count):
        receiver, sender = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receiver)
            serve(place, secret, sender)
        os.close(sender)
        with os.fdopen(receiver) as told:
            first = told.readline()
            time.sleep(chance.uniform(0, 0.15))
            os.kill(child, signal.SIGKILL)
            for line in [first, *told]:
                word, _, id_ = line.strip().partition(" ")
                delivered[id_] = delivered.get(id_, 0) + (word == "token")
                if word == "ended":
                    answered.add(id_)
        os.waitpid(child, 0)
    with open_ledger(place) as ledger:
        reaped = holds.reap(ledger, lease_seconds=-1)
        report(ledger, delivered, answered, count, reaped)


def report(ledger: Ledger, delivered: dict[str, int], answered: set[str], count: int,
           reaped: int) -> None:
    """Compares what clients received with what was charged."""
    with ledger.reading() as connection:
        charged = {row[0]: row[1] for row in connection.exec_driver_sql(
            "SELECT hold, output_tokens FROM uses")}
    ahead = [charged.get(id_, 0) - tokens for id_, tokens in delivered.items()]
    wrong = sum(charged.get(id_) != delivered[id_] for id_ in answered)
    spent, held, _ = standing(ledger, "project:default")
    print(f"{count} kills: {len(delivered)} streams, {len(answered)} ended, {reaped} reaped; "
          f"tokens delivered and not charged {-min(0, *ahead)}, charged ahead at most "
          f"{max(ahead)} (slice 8); ended and charged wrongly {wrong}; balance {spent} = uses "
          f"{uses(ledger)[0]}, held {held}")


def serve(place: str, secret: str, tell: int) -> None:
    """Streams of 40 tokens, sixteen at a time, covered 8 tokens ahead, until it is killed."""
    ledger = open_ledger(place)
    ann, server = access.verify(ledger, secret), holds.open_server(ledger)
    assert ann is not None

    def taken(tokens: int) -> Taken:
        return Taken(prompt_tokens=0, output_tokens=tokens, nanousd=10 * tokens, finish="stop")

    while True:
        ids = holds.hold_all(ledger, server, [wanted(ann, 40, 400) for _ in range(16)])
        for token in range(0, 40, 8):
            holds.cover_all(ledger, {str(id_): taken(token + 8) for id_ in ids})
            for _ in range(8):
                os.write(tell, b"".join(f"token {id_}\n".encode() for id_ in ids))
        holds.settle_all(ledger, {str(id_): taken(40) for id_ in ids})
        os.write(tell, b"".join(f"ended {id_}\n".encode() for id_ in ids))


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()

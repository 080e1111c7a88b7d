"""How soon the pages answer over many long runs, how late news is, and what memory it takes.

    python benchmarks/page_speed.py --folder /tmp/pages [--runs 1000] [--lines 20000] [--browser]

Makes a ledger of RUNS runs with LINES lines of steps each (a recorder writes 20,000 at most; each
holds eight figures and more) unless the folder has one, then starts `curbcut ui` on it and asks it
as a browser would. 50 runs of 2,000 lines are among them. `--browser` loads pages in Chromium too.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import random
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from curbcut.ledger import FILE_NAME, open_ledger
from curbcut.ledger.inbox import Writer
from curbcut.plan.resolve import resolve
from curbcut.spec import Account, Estimate, Resolved, load

SHORT_RUNS, SHORT_LINES = 50, 2_000
LIVE = "live"
RUN = """name = "any"
[model]
preset = "gpt-125m"
[machine]
name = "1xH100"
[train]
tokens = "1B"
"""


@dataclass
class Pages:
    """A running `curbcut ui`."""

    process: subprocess.Popen[str]
    port: int
    secret: str

    def get(self, path: str) -> tuple[float, bytes]:
        """Seconds until the whole answer was there, and the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        start = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.secret}"})
        answer = connection.getresponse()
        body = answer.read()
        seconds = time.perf_counter() - start
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {body[:300]!r}")
        return seconds, body

    def bytes(self, which: str) -> int:
        """VmRSS or VmHWM of the server."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{which}:\s*(\d+) kB", status, re.M)
        return int(found[1]) * 1024 if found else 0


def make(folder: Path, runs: int, lines: int) -> None:
    """A ledger of `runs` runs, 50 of them with 2,000 lines, the others with `lines`."""
    where = folder / "runs" / FILE_NAME
    if where.exists():
        return
    where.parent.mkdir(parents=True, exist_ok=True)
    (folder / "run.toml").write_text(RUN)
    resolved = resolve(load(folder / "run.toml"))
    promise = promised()
    names = [f"{'short' if i < SHORT_RUNS else 'long'}-{i:04d}" for i in range(runs)]
    with open_ledger(where) as ledger:
        for name in names:
            ledger.record_run(Resolved(replace(resolved.run, name=name), resolved.origins))
            ledger.record_account(name, "train", "forecast", promise)
            if name.endswith(("3", "6", "9")):
                ledger.record_account(name, "train", "measured", promise)
    with contextlib.closing(sqlite3.connect(where, isolation_level=None)) as base:
        base.execute("PRAGMA synchronous = OFF")
        for i, name in enumerate(names):
            base.execute("BEGIN")
            base.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)",
                             events(name, SHORT_LINES if i < SHORT_RUNS else lines, i))
            base.execute("COMMIT")
            if i % 50 == 49:
                print(f"made {i + 1} of {runs} runs", file=sys.stderr)


def promised() -> Account:
    """Some figures of every section that pages show."""
    def about(value: float) -> Estimate:
        return Estimate(value, value * 0.8, value * 1.2, "modelled", "made up")
    return Account(
        seconds={"total": about(9e4)}, tokens={"trained": about(1e9)}, mfu={"run": about(0.4)},
        tokens_per_second={"steps": about(1e4)}, memory_bytes={"peak": about(4e10)},
        watts={"device": about(600.0)}, kwh={"facility": about(15.0)}, usd={"total": about(50.0)},
        kgco2e={"total": about(6.0)}, loss={"nats_per_token": about(3.1),
                                           "bits_per_byte": about(1.0)})


def events(name: str, lines: int, seed: int) -> Iterator[tuple[str, str, int, float, str, str]]:
    """What a recorder would have written."""
    draw, process, now = random.Random(seed), f"train-{seed:08x}", 1.7e9 + seed
    yield (name, process, 0, now, "start", json.dumps(
        {"step": 0, "steps": lines * 10, "run_digest": "0" * 64, "period_seconds": 15.0}))
    for i in range(1, lines + 1):
        step, loss = 10 * i, 3 + 7 * math.exp(-8 * i / lines) + draw.gauss(0, 0.05)
        body = {"step": step, "tokens": step * 8192, "loss": 30.0 if i == lines // 2 else loss,
                "gradient_norm": draw.random(), "learning_rate": 3e-4 * draw.random(),
                "step_seconds": 0.8 + 0.1 * draw.random(),
                "seconds": {"start": 12.34567890123, "data": 0.01 * i, "steps": 8.2345678901 * i,
                            "other": 0.1 * i}, "joules": 5678.123456 * i,
                "unmetered_seconds": 0.0, "usd": 0.0123456789 * i, "kwh": 0.00157725 * i,
                "mfu": 0.38 + 0.02 * draw.random(), "memory_bytes": 41234567890}
        yield name, process, i, now + 8.4 * i, "step", json.dumps(body, separators=(",", ":"))
    yield (name, process, lines + 1, now + 8.4 * lines + 1, "end", json.dumps(
        {"step": lines * 10, "reason": "all tokens trained", "resumable": False}))


@contextlib.contextmanager
def shown(folder: Path) -> Iterator[Pages]:
    """`curbcut ui` on the folder's runs, once it listens."""
    with subprocess.Popen([sys.executable, "-m", "curbcut", "ui", "--port", "0", "--json",
                           "--runs", str(folder / "runs")], stdout=subprocess.PIPE,
                          text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r":(\d+)/\?token=([\w-]+)", process.stdout.readline())
            if found is None:
                raise SystemExit("the pages did not start")
            yield Pages(process, int(found[1]), found[2])
        finally:
            process.send_signal(signal.SIGTERM)


def timed(pages: Pages, path: str, times: int = 15) -> str:
    """First, median and worst of so many requests, and the size of an answer."""
    first, body = pages.get(path)
    rest = sorted(pages.get(path)[0] for _ in range(times))
    return (f"first {first * 1e3:7.1f} ms   median {statistics.median(rest) * 1e3:7.1f} ms   "
            f"worst {rest[-1] * 1e3:7.1f} ms   {len(body) / 1e3:8.1f} kB")


def delays(pages: Pages, folder: Path, times: int = 8) -> list[float]:
    """Seconds from a line of a training process to the answer that has it, by the stream."""
    run = resolve(load(folder / "run.toml"))
    name = f"{LIVE}-{random.randrange(10**6)}"
    found = []
    with Writer(folder / "runs" / name / "metrics", name, "train") as writer:
        writer.write_run(Resolved(replace(run.run, name=name), run.origins))
        writer.write("start", {"step": 0, "steps": 100, "period_seconds": 15.0})
        writer.write("step", {"step": 1, "tokens": 10, "loss": 3.0, "seconds": {"steps": 1.0}})
        stream = http.client.HTTPConnection("127.0.0.1", pages.port, timeout=60)
        stream.request("GET", "/api/stream", headers={"Authorization": f"Bearer {pages.secret}"})
        news = stream.getresponse()
        cursor = ""
        for step in range(2, times + 2):
            time.sleep(random.random())
            start = time.perf_counter()
            writer.write("step", {"step": step, "tokens": 10 * step, "loss": 3.0,
                                  "seconds": {"steps": 1.0 * step}})
            cursor = _until(pages, news, name, step, cursor)
            found.append(time.perf_counter() - start)
        stream.close()
    return found


def _until(pages: Pages, news: http.client.HTTPResponse, name: str, step: int,
           cursor: str) -> str:
    """Reads the stream, and the series when it says so, until the step is in it."""
    while True:
        line = news.readline()
        if not line.startswith(b"data:") or name not in line.decode():
            continue
        _, body = pages.get(f"/api/series?run={name}&metric=loss&after={cursor}")
        answer: dict[str, Any] = json.loads(body)
        cursor = answer["cursor"]
        if answer["series"] and answer["series"][0]["x"][-1:] == [step]:
            return cursor


def painted(pages: Pages, paths: dict[str, str]) -> Iterator[str]:
    """Seconds until Chromium has painted each page, and what it drew."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"http://127.0.0.1:{pages.port}/?token={pages.secret}")
        page.wait_for_load_state("networkidle")
        for path, wanted in paths.items():
            start = time.perf_counter()
            page.goto(f"http://127.0.0.1:{pages.port}{path}", wait_until="commit")
            page.wait_for_selector(wanted, state="visible", timeout=60_000)
            seconds = time.perf_counter() - start
            first = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0]"
                                  "?.startTime")
            yield (f"{path[:44]:<46} first paint {first or math.nan:7.0f} ms   "
                   f"{wanted} {seconds * 1e3:7.0f} ms")
        browser.close()


def main() -> None:
    """Prints a line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--only-make", action="store_true")
    args = parser.parse_args()
    make(args.folder, args.runs, args.lines)
    if args.only_make:
        return
    began = time.perf_counter()
    with shown(args.folder) as pages:
        print(f"{'ready after':<28} {time.perf_counter() - began:.2f} s")

        def say(what: str, path: str) -> None:
            print(f"{what:<28} {timed(pages, path)}")

        short = "&".join(f"run=short-{i:04d}" for i in range(SHORT_RUNS))
        whole = "&".join(f"metric={one}" for one in (
            "loss", "bits_per_byte", "tokens_per_second", "mfu", "gradient_norm", "learning_rate",
            "step_seconds", "watts", "usd", "kwh"))
        say("table of all runs", "/api/runs")
        cursor = json.loads(pages.get("/api/runs")[1])["cursor"]
        say("table, nothing new", f"/api/runs?after={cursor}")
        say("the page itself", "/")
        say("50 runs x 2,000 points", f"/api/series?{short}&metric=loss")
        if args.runs > SHORT_RUNS:
            long = f"long-{SHORT_RUNS:04d}"
            say("one long run, ten charts", f"/api/series?run={long}&{whole}")
            say("one run in full", f"/api/runs/{long}")
            say("its events", f"/api/runs/{long}/events")
            last = f"long-{args.runs - 1:04d}"
            say("another, by money", f"/api/series?run={last}&metric=loss&x=usd")
        say("compare 50", f"/api/compare?{short}")
        late = delays(pages, args.folder)
        print(f"{'live delay':<28} median {statistics.median(late):.2f} s   "
              f"worst {max(late):.2f} s")
        print(f"{'memory of the server':<28} {pages.bytes('VmRSS') / 1e6:.0f} MB now, "
              f"{pages.bytes('VmHWM') / 1e6:.0f} MB at most")
        if args.browser:
            for line in painted(pages, {"/": "table tbody tr", f"/compare?{short}": "canvas",
                                        "/runs/short-0001": "canvas"}):
                print(line)


if __name__ == "__main__":
    main()

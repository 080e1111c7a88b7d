"""The pages on a ledger of PostgreSQL say what they say on one of SQLite."""

from __future__ import annotations

from starlette.testclient import TestClient

import postgres
from curbcut.web.app import build
from curbcut.web.site import Site
from recorded import Recording


def answers(site, live):
    """All JSON of two runs, one of which goes on meanwhile; without what is of the moment."""
    with TestClient(build(site, None), base_url="http://127.0.0.1") as client:
        def ask(path, **query):
            site.look()
            answer = client.get(path, params=query)
            assert answer.status_code == 200, answer.text
            return answer.json()

        def rows(answer):
            return [{k: v for k, v in row.items() if k != "age_seconds"} for row in answer["rows"]]
        table = ask("/api/runs")
        series = ask("/api/series", run=["live", "over"], metric=["loss", "bits_per_byte"], x="usd")
        events = ask("/api/runs/live/events")
        live.losses([2.0], 3).write("note", text="on it goes")
        return [rows(table), rows(ask("/api/runs", after=table["cursor"])), series,
                ask("/api/series", run=["live", "over"], metric=["loss", "bits_per_byte"], x="usd",
                    after=series["cursor"]), events,
                ask("/api/runs/live/events", after=events["cursor"]),
                ask("/api/runs/over")["figures"], ask("/api/compare", run=["live", "over"])]


def test_what_sqlite_says_postgresql_says(postgres_server, tmp_path):
    url, said = postgres.emptied(postgres_server), []
    for where in ("", url):
        runs = tmp_path / ("other" if where else "one") / "runs"
        runs.mkdir(parents=True)
        live = Recording(runs, "live", now=2e9).losses([3.0, 2.5])
        live.write("evaluation", step=2, bits_per_byte=1.0, nats_per_token=2.0)
        Recording(runs, "over", now=1.9e9).losses([4.0]).end(1)
        site = Site(runs, where)
        said.append(answers(site, live))
        site.close()
    for sqlite, postgresql in zip(*said, strict=True):
        assert without_process(sqlite) == without_process(postgresql)
    assert said[0][3]["series"][0]["y"] == [2.0]


def without_process(value):
    """A value without names that each process draws for itself."""
    if isinstance(value, dict):
        return {key: without_process(inner) for key, inner in value.items()
                if key not in ("process", "cursor")}
    return [without_process(inner) for inner in value] if isinstance(value, list) else value

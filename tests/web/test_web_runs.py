from __future__ import annotations

import json
import os
import time

import pytest

from curbcut.ledger import open_ledger
from curbcut.web.site import Site
from recorded import Recording, promise
from tiny import tiny_run


def names(answer):
    return {row["name"] for row in answer["rows"]}


def test_a_folder_without_runs_has_an_empty_table_and_stays_as_it_was(ask, runs):
    assert ask("/api/runs")["rows"] == []
    assert list(runs.iterdir()) == []


def test_a_folder_that_is_not_there_has_an_empty_table(tmp_path):
    site = Site(tmp_path / "none")
    site.look()
    assert site.table.since().rows == []
    assert not (tmp_path / "none").exists()


def test_the_table_says_of_each_run_where_it_stands(ask, runs):
    Recording(runs, "live", steps=10).losses([3.0, 2.5])
    Recording(runs, "over").losses([3.0]).end(1)
    Recording(runs, "dead", now=time.time() - 5000).losses([3.0])
    rows = {row["name"]: row for row in ask("/api/runs")["rows"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "live": "training", "over": "done", "dead": "crashed"}
    live = rows["live"]
    assert (live["step"], live["steps"], live["progress"], live["loss"]) == (2, 10, 0.2, 2.5)
    assert live["usd"] == {"now": 0.02, "promised": 3.0, "low": pytest.approx(2.4),
                           "high": pytest.approx(3.75), "basis": "modelled"}
    assert rows["over"]["usd"]["now"] == 2.5
    assert 4800 < rows["dead"]["age_seconds"] < 5100
    assert rows["dead"]["reason"]


def test_with_a_cursor_only_rows_that_are_new_come(ask, runs):
    live = Recording(runs, "live").losses([3.0])
    Recording(runs, "over").losses([3.0]).end(1)
    first = ask("/api/runs")
    assert names(first) == {"live", "over"}
    nothing = ask("/api/runs", after=first["cursor"])
    assert (nothing["rows"], nothing["cursor"]) == ([], first["cursor"])
    live.losses([2.0], 2)
    second = ask("/api/runs", after=first["cursor"])
    assert names(second) == {"live"}
    assert second["rows"][0]["loss"] == 2.0


@pytest.mark.parametrize("cursor", ["other-5", "x", "-1", "%00", "9" * 5000])
def test_a_cursor_of_elsewhere_gives_all_rows(ask, runs, cursor):
    Recording(runs, "live")
    assert names(ask("/api/runs", after=cursor)) == {"live"}


def test_a_run_that_falls_silent_becomes_crashed_without_a_new_line(site, runs, monkeypatch):
    Recording(runs, "live").losses([3.0])
    site.look()
    cursor = site.table.since().cursor
    later = time.time() + 1000
    monkeypatch.setattr("curbcut.web.table.time.time", lambda: later)
    site.look()
    assert [row["state"] for row in site.table.since(cursor).rows] == ["crashed"]


def test_what_somebody_else_imported_or_recorded_is_seen(site, runs):
    Recording(runs, "live").losses([3.0])
    site.look()
    cursor = site.table.since().cursor
    with open_ledger(runs / "ledger.sqlite") as other:
        other.record_account("live", "train", "forecast", promise())
    site.look()
    assert [row["name"] for row in site.table.since(cursor).rows] == ["live"]


def test_a_look_at_inboxes_that_did_not_grow_opens_none(site, runs, monkeypatch):
    Recording(runs, "live").losses([3.0])
    site.look()

    def never(*_):
        raise AssertionError("opened")
    monkeypatch.setattr("curbcut.web.inboxes.import_folder", never)
    site.look()


def test_a_record_that_cannot_be_read_is_said_and_hides_no_other(site, runs, ask, monkeypatch):
    from curbcut.errors import InputError
    from curbcut.web import inboxes

    Recording(runs, "broken")
    Recording(runs, "live").losses([3.0])
    right = inboxes.import_folder

    def sometimes(ledger, folder):
        if folder.name == "broken":
            raise InputError("cannot be read", where="broken")
        return right(ledger, folder)
    monkeypatch.setattr(inboxes, "import_folder", sometimes)
    answer = ask("/api/runs")
    assert names(answer) == {"live"}
    assert answer["notes"] == ["broken: broken: cannot be read"]


def test_one_run_has_promised_beside_measured_and_who_set_what(ask, runs):
    Recording(runs, "over").losses([3.0]).end(1)
    (runs / "over" / "papers").mkdir()
    (runs / "over" / "papers" / "card.md").write_text("a card")
    (runs / "over" / "samples.json").write_text(json.dumps([{"prompt": "a", "text": "b"}]))
    found = ask("/api/runs/over")
    usd = next(one for one in found["figures"]
               if (one["section"], one["figure"]) == ("usd", "total"))
    assert usd["promised"]["value"] == 3.0
    assert usd["measured"] == {"value": 2.5, "low": 2.5, "high": 2.5, "basis": "measured",
                               "source": "clock"}
    assert (usd["unit"], usd["inside"], usd["ratio"]) == ("usd", True, pytest.approx(2.5 / 3))
    kwh = next(one for one in found["figures"] if one["section"] == "kwh")
    assert (kwh["measured"], kwh["inside"]) == (None, None)
    assert found["config"]["model.layers"] == {"value": 2, "origin": "file"}
    assert found["documents"] == [{"path": "papers/card.md", "bytes": 6, "kind": "document"}]
    assert found["samples"] == [{"prompt": "a", "text": "b"}]
    assert any(one["kind"] == "record" for one in found["files"])


@pytest.mark.parametrize("name", ["%2e%2e%2e", "nothing", "..%2f..%2fetc", "ledger.sqlite",
                                  "over%00", "a" * 3000, "óver"])
def test_a_name_that_is_no_run_is_404_with_the_nearest(pages, site, runs, name):
    Recording(runs, "over")
    site.look()
    answer = pages.get(f"/api/runs/{name}")
    assert answer.status_code == 404
    assert len(answer.text) < 600
    assert set(answer.json()["error"]) == {"what", "where", "mend"}


def test_damaged_and_endless_samples_are_none(ask, runs):
    Recording(runs, "over")
    for text in ("{", "[1]", "7", "x" * (2 << 20)):
        (runs / "over" / "samples.json").write_text(text)
        assert ask("/api/runs/over")["samples"] == []


def test_links_in_a_folder_lead_nowhere(ask, runs, tmp_path):
    Recording(runs, "over")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("x")
    (runs / "over" / "away").symlink_to(tmp_path / "secret")
    (runs / "over" / "key").symlink_to(tmp_path / "secret" / "key")
    paths = [one["path"] for one in ask("/api/runs/over")["files"]]
    assert not [path for path in paths if "key" in path]


def test_the_timeline_has_what_happened_but_no_steps_and_goes_on_from_a_cursor(ask, runs):
    live = Recording(runs, "live").losses([3.0]).write("note", text="hot")
    live.write("checkpoint", step=1, path="step-00000001").write("beat", step=1)
    first = ask("/api/runs/live/events")
    assert [one["kind"] for one in first["events"]] == ["start", "note", "checkpoint"]
    assert first["events"][2]["step"] == 1
    assert ask("/api/runs/live/events", after=first["cursor"]) == {
        "cursor": first["cursor"], "events": []}
    live.losses([2.0], 2).write("trouble", step=2, what="spike")
    Recording(runs, "live", step=1).write("note", text="again")
    second = ask("/api/runs/live/events", after=first["cursor"])
    assert [one["kind"] for one in second["events"]] == ["trouble", "start", "note"] or \
        {one["kind"] for one in second["events"]} == {"trouble", "start", "note"}


@pytest.mark.parametrize("cursor", ["%%%", "AAAA", "W10=", "eyJhIjoiYiJ9", "é",
                                    "eyJhIjogSW5maW5pdHl9"])
def test_a_cursor_that_is_none_is_refused(ask, runs, cursor):
    Recording(runs, "live")
    assert ask("/api/runs/live/events", 400, after=cursor)["error"]["where"] == "after"


def test_compared_runs_differ_in_the_keys_that_differ(ask, runs):
    Recording(runs, "one", run=tiny_run("one")).losses([3.0]).end(1, usd=1.0)
    Recording(runs, "two", run=tiny_run("two", recipe={"learning_rate": 1e-4})).losses([2.0])
    found = ask("/api/compare", run=["one", "two"])
    assert found["keys"] == {"recipe.learning_rate": {"one": 3e-3, "two": 1e-4}}
    assert found["same"] > 20
    assert [row["usd"]["now"] for row in found["rows"]] == [1.0, 0.01]


def test_what_compare_may_not_be_asked(ask, runs):
    Recording(runs, "one")
    assert "no run" in ask("/api/compare", 400)["error"]["what"]
    assert ask("/api/compare", 404, run=["one", "onn"])["error"]["mend"] == "did you mean 'one'?"
    many = [f"r{i}" for i in range(101)]
    assert "100 at most" in ask("/api/compare", 400, run=many)["error"]["mend"]


def test_pages_are_whole_and_load_only_their_own_files(pages, site, runs):
    Recording(runs, "one")
    site.look()
    for path in ("/", "/runs/one", "/compare?run=one"):
        text = pages.get(path).text
        assert text.startswith("<!doctype html>")
        assert "://" not in text.replace("http://www.w3.org", "")
    address = text.partition('src="')[2].partition('"')[0]
    assert "immutable" in pages.get(address).headers["cache-control"]
    assert pages.get("/static/..%2f__init__.py").status_code == 404
    assert pages.get("/static/nothing.js").status_code == 404


def test_a_name_in_a_page_is_text(pages):
    for path in ("/runs/%3Cscript%3Ealert(1)", "/runs/<script>alert(1)"):
        answer = pages.get(path)
        assert answer.headers["content-type"].startswith("text/html")
        assert "<script>alert" not in answer.text


def test_an_address_that_nothing_has_is_plain_text_and_under_api_json(pages):
    answer = pages.get("/nothing/<b>")
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/plain")
    assert pages.get("/api/nothing").json()["error"]["where"] == "/api/nothing"
    assert pages.post("/api/runs").status_code == 405


def test_a_run_that_was_quiet_for_long_is_looked_at_now_and_then(site, runs):
    old = Recording(runs, "old").losses([3.0])
    site.look()
    long_ago = time.time() - 3600
    os.utime(old.writer.path, (long_ago, long_ago))
    site.look()  # sees how old it is
    old.losses([2.0], 2)
    os.utime(old.writer.path, (long_ago, long_ago))
    looks = 0
    while site.table.row("old")["loss"] == 3.0:
        site.look()
        looks += 1
    assert 1 < looks <= 10

from __future__ import annotations

import json

import pytest

from curbcut.cli.main import main
from curbcut.ledger import access, open_ledger
from curbcut.ledger.inbox import Writer
from curbcut.spec import Account, Draft, measured, modelled, unknown

RUN = {
    "name": "tiny",
    "model": {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "head_size": 16, "ffn": 128,
              "vocab": 512},
    "machine": {"name": "here", "accelerator": "EPYC", "kind": "cpu", "memory_bytes": 2**32,
                "memory_bytes_per_second": {}, "peak_flops": {}},
    "recipe": {"sequence_tokens": 128, "micro_batch": 4, "global_batch": 8, "precision": "bf16",
               "learning_rate": 1e-3},
    "train": {"tokens": 100_000},
}
FORECAST = Account(seconds={"total": modelled(240.0, 1.25, "roofline")},
                   kwh={"device": modelled(0.004, 2.0, "watts x time")})
MEASURED = Account(seconds={"total": measured(252.0, "clock")},
                   kwh={"device": unknown("no energy sensor")})


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def inbox(runs):
    with Writer(runs / "tiny" / "metrics", "tiny", "train") as writer:
        writer.write_run(Draft().with_raw(RUN, "run.toml").complete())
        writer.write_account("train", "forecast", FORECAST)
        yield writer


def call(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_report_imports_the_inbox_and_compares(capsys, runs, inbox):
    inbox.write_account("train", "measured", MEASURED)
    code, out, _ = call(capsys, "report", "tiny", "--runs", runs)
    assert code == 0
    assert "tiny: train" in out
    assert "1 of 1 promise held" in out
    assert "not measured (no energy sensor): energy device 4.00 Wh" in out
    again = call(capsys, "report", "tiny", "--runs", runs)
    assert again == (0, out, "")


def test_report_for_programs(capsys, runs, inbox):
    inbox.write_account("train", "measured", MEASURED)
    code, out, _ = call(capsys, "report", "tiny", "--runs", runs, "--json")
    told = json.loads(out)
    assert (code, told["name"], told["run"]["name"]) == (0, "tiny", "tiny")
    train = told["steps"]["train"]
    assert train["lines"][0] == {"section": "seconds", "figure": "total", "ratio": 1.05,
                                 "inside": True}
    assert train["measured"]["kwh"]["device"]["value"] is None


@pytest.mark.parametrize(("chosen", "words"), [
    ("markdown", ["### tiny: train", "| time | total | 4.00 min | 3.20 .. 5.00 | 4.20 min |",
                  "### 1 of 1 promise held"]),
    ("csv", ["group,figure,key,promised,promised_low,promised_high,measured,unit,ratio,verdict",
             "time,total,seconds.total,240.0,192.0,300.0,252.0,seconds,1.05,inside"])])
def test_a_report_has_every_format(capsys, runs, inbox, chosen, words):
    inbox.write_account("train", "measured", MEASURED)
    code, out, _ = call(capsys, "report", "tiny", "--runs", runs, "--format", chosen)
    assert code == 0
    for one in words:
        assert one in out
    code, out, err = call(capsys, "report", "tiny", "--runs", runs, "--format", "cvs")
    assert (code, out) == (2, "") and "'csv'" in err


def test_a_run_that_is_only_planned_shows_its_plan(capsys, runs, inbox):
    code, out, _ = call(capsys, "report", "tiny", "--runs", runs)
    assert code == 0
    assert "not measured yet" in out and "4.00 min" in out
    assert "promise" not in out


def test_damaged_and_torn_lines_are_said(capsys, runs, inbox):
    with inbox.path.open("ab") as file:
        file.write(b"garbage\n{torn")
    code, out, _ = call(capsys, "report", "tiny", "--runs", runs)
    text = " ".join(out.split())
    assert code == 0
    assert "damaged lines in the run's record: 1;" in text and "is not JSON" in text
    assert "unfinished last line" in text


def test_an_unknown_run_names_the_nearest(capsys, runs, inbox):
    call(capsys, "report", "tiny", "--runs", runs)
    code, out, err = call(capsys, "report", "tinny", "--runs", runs)
    assert (code, out) == (2, "")
    assert "unknown run 'tinny'" in err and "did you mean 'tiny'?" in err


def test_no_ledger_is_one_clear_error_and_makes_none(capsys, runs):
    code, _, err = call(capsys, "report", "tiny", "--runs", runs)
    assert code == 2
    assert "no ledger here yet" in err and "help:" in err
    assert not runs.exists()


@pytest.mark.parametrize("name", ["..", "../tiny", "/etc", ".", "tiny/metrics", ""])
def test_a_name_is_never_a_path(capsys, runs, inbox, name):
    call(capsys, "report", "tiny", "--runs", runs)
    code, _, err = call(capsys, "report", name, "--runs", runs)
    assert code == 2
    assert "unknown run" in err


def test_a_folder_that_recorded_nothing_is_an_unknown_run(capsys, runs):
    (runs / "empty" / "metrics").mkdir(parents=True)
    code, _, err = call(capsys, "report", "empty", "--runs", runs)
    assert code == 2
    assert "unknown run 'empty'" in err


def test_another_ledger_can_be_named(capsys, runs, inbox, tmp_path):
    other = tmp_path / "other.sqlite"
    code, _, _ = call(capsys, "report", "tiny", "--runs", runs, "--ledger", other)
    assert code == 0
    assert other.exists() and not (runs / "ledger.sqlite").exists()


def test_a_key_is_shown_once_and_then_only_by_name(capsys, runs):
    code, out, _ = call(capsys, "keys", "add", "ann", "--runs", runs)
    secret = out.splitlines()[0]
    assert code == 0
    with open_ledger(runs / "ledger.sqlite") as ledger:
        assert access.verify(ledger, secret).key == "ann"
        ledger.record_use("ann", "tiny", prompt_tokens=10, output_tokens=5, seconds=0.1)
    code, out, _ = call(capsys, "keys", "list", "--runs", runs)
    assert code == 0
    assert "ann" in out and "live" in out and " 15" in out
    assert secret not in out and secret[:11] in out


def test_no_keys_say_how_to_make_one(capsys, runs, inbox):
    call(capsys, "report", "tiny", "--runs", runs)
    assert "keys add NAME" in call(capsys, "keys", "list", "--runs", runs)[1]
    assert call(capsys, "keys", "list", "--json", "--runs", runs)[1].strip() == "[]"


def test_a_revoked_key_is_listed_as_such(capsys, runs):
    secret = json.loads(call(capsys, "keys", "add", "ann", "--json", "--runs", runs)[1])["secret"]
    assert call(capsys, "keys", "revoke", "ann", "--runs", runs)[0] == 0
    with open_ledger(runs / "ledger.sqlite") as ledger:
        assert access.verify(ledger, secret) is None
    (row,) = json.loads(call(capsys, "keys", "list", "--json", "--runs", runs)[1])
    assert row["name"] == "ann" and row["revoked"] >= row["created"]


@pytest.mark.parametrize(("arguments", "said"), [
    (("add", "Not A Name"), "cannot name a key"), (("revoke", "anne"), "did you mean 'ann'"),
    (("add", "ann"), "already"),
])
def test_keys_that_cannot_be_made_or_ended(capsys, runs, arguments, said):
    call(capsys, "keys", "add", "ann", "--runs", runs)
    code, out, err = call(capsys, "keys", *arguments, "--runs", runs)
    assert (code, out) == (2, "")
    assert said in err


def test_methods_for_people_and_for_programs(capsys):
    code, out, _ = call(capsys, "methods")
    assert code == 0
    assert "bf16-master-weights" in out and "methods are planned and run" in out
    code, out, _ = call(capsys, "methods", "--json")
    rows = {row["method"]: row for row in json.loads(out)}
    assert rows["spot"]["bottleneck"] == "money"
    assert rows["cosine-schedule"]["gain"] is None

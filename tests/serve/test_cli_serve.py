import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from curbcut.cli.main import main
from curbcut.cli.objective import read
from curbcut.cli.serve import _killable
from curbcut.cli.served import add_engine_options, as_served, engine_words, find, way_of
from curbcut.errors import InputError, UnknownName
from curbcut.ledger import FILE_NAME, access, audit, holds, open_ledger, usage
from curbcut.model.weights import shape_of
from curbcut.spec import Account, Resolved, measured
from tiny import tiny_run


def command(*words):
    return [sys.executable, "-m", "curbcut.cli.main", "serve", *map(str, words)]


@contextmanager
def served(*words, signal_number=signal.SIGINT):
    process = subprocess.Popen(command(*words, "--port", 0, "--json"), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        yield json.loads(process.stdout.readline())
        process.send_signal(signal_number)
        assert process.wait(60) == 0, process.stderr.read()
    finally:
        process.kill()


@pytest.fixture
def runs(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "runs" / "tiny" / "model")
    return tmp_path / "runs"


def test_a_run_is_served_by_name_and_its_use_recorded(runs):
    ask = {"model": "tiny", "prompt": "abc", "max_tokens": 5, "temperature": 0}
    with served("tiny", "--runs", runs) as said:
        assert said["model"] == "tiny" and said["keys"] is False
        answer = httpx.post(f"{said['url']}/v1/completions", json=ask, timeout=30).json()
    with open_ledger(runs / FILE_NAME, create=False) as ledger:
        [use] = usage.used(ledger)
        assert (use.key, use.model, use.requests) == (None, "tiny", 1)
        assert use.output_tokens == answer["usage"]["completion_tokens"]
        secret = access.issue_key(ledger, "ann", actor="test")
        boss = access.issue_key(ledger, "boss", role="admin", actor="test")
    log = runs / "prompts.jsonl"
    with served("tiny", "--runs", runs, "--log-prompts", log, "--queue", 9) as said:
        assert said["keys"] is True
        url = said["url"]
        assert httpx.get(f"{url}/v1/models", timeout=30).status_code == 401
        good, admin = ({"Authorization": f"Bearer {one}"} for one in (secret, boss))
        assert httpx.get(f"{url}/v1/models", headers=good, timeout=30).status_code == 200
        assert httpx.post(f"{url}/v1/completions", json=ask, headers=good,
                          timeout=30).status_code == 200
        assert httpx.get(f"{url}/admin/keys", headers=good, timeout=30).status_code == 403
        assert secret not in httpx.get(f"{url}/admin/keys", headers=admin, timeout=30).text
        told = httpx.get(f"{url}/metrics", headers=admin, timeout=30).text
        assert 'curbcut_tokens_total{model="tiny"' in told and 'key="ann"' in told
    [line] = map(json.loads, log.read_text().splitlines())
    assert (line["key"], line["body"]) == ("ann", ask) and secret not in log.read_text()
    with open_ledger(runs / FILE_NAME, create=False) as ledger:
        assert [(use.key, use.requests) for use in usage.used(ledger)] == [(None, 1), ("ann", 1)]
        assert "prompts.logged" in [entry.action for entry in audit.entries(ledger)]
        assert holds.live(ledger) == 0


def test_a_session_of_a_run_leaves_promise_and_measurement(runs, monkeypatch, capsys):
    monkeypatch.setenv("CURBCUT_SENSORS", "off")
    config = json.loads((runs / "tiny/model/config.json").read_text())
    run = tiny_run("tiny", model=vars(shape_of(config)))
    with open_ledger(runs / FILE_NAME) as ledger:
        ledger.record_run(Resolved(run, {}))
        ledger.record_account("tiny", "train", "measured", Account(
            seconds={"total": measured(3.0, "a clock")}))
    ask = {"model": "tiny", "prompt": "abc", "max_tokens": 9, "temperature": 0}
    with served("tiny", "--runs", runs, "--max-batch", 2, signal_number=signal.SIGTERM) as said:
        with open_ledger(runs / FILE_NAME) as ledger:
            promised = ledger.account("tiny", "serve", "forecast")
            assert ledger.account("tiny", "serve", "measured") is None
        answer = httpx.post(f"{said['url']}/v1/completions", json=ask, timeout=30).json()
    with open_ledger(runs / FILE_NAME) as ledger:
        found = ledger.account("tiny", "serve", "measured")
    assert {line[:2] for line in found.lines()} == {line[:2] for line in promised.lines()}
    assert found.memory_bytes["cache"].value == promised.memory_bytes["cache"].value
    # A head that is tied may be packed once more, in the order that its matmul wants.
    weights = promised.memory_bytes["parameters"].value
    assert 0 <= found.memory_bytes["parameters"].value - weights <= 1.05 * 264 * 32 * 4
    assert found.tokens["answer"].value == answer["usage"]["completion_tokens"]
    assert 0 < found.seconds["ttft"].value < found.seconds["total"].value
    assert found.kwh["device"].value is None and found.kwh_modelled["device"].value > 0
    assert main(["report", "tiny", "--runs", str(runs), "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)["steps"]
    assert list(steps) == ["train", "serve"] and steps["serve"]["checked"] > 0
    assert main(["report", "tiny", "--runs", str(runs)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.index("tiny: train") < said.index("tiny: serve") < said.index("how much will be")


def test_a_model_elsewhere_of_a_runs_name_is_not_that_run(runs, tmp_path):
    with open_ledger(runs / FILE_NAME) as ledger:
        ledger.record_run(Resolved(tiny_run("tiny"), {}))
    shutil.copytree(runs / "tiny", tmp_path / "other" / "tiny")
    with served(tmp_path / "other" / "tiny" / "model", "--runs", runs) as said:
        assert said["model"] == "tiny"
    with open_ledger(runs / FILE_NAME) as ledger:
        assert ledger.steps("tiny") == []


@pytest.mark.parametrize(("words", "said"), [
    (["tiny", "--host", "0.0.0.0"], "curbcut keys add NAME"), (["tinny"], "did you mean 'tiny'")])
def test_bad_input_is_exit_code_2(runs, words, said):
    done = subprocess.run(command(*words, "--runs", runs), capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_port_in_use_is_exit_code_2(runs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(command("tiny", "--runs", runs, "--port", port),
                              capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and f"port {port} is in use" in done.stderr


def test_several_models_are_served_and_the_second_is_loaded_when_it_is_asked_for(runs):
    shutil.copytree(runs / "tiny", runs / "other")
    with served("tiny", "other", "--runs", runs, "--memory", "1 GB", "--draft", 3) as said:
        assert said["models"] == ["tiny", "other"] and said["seconds"] > 0
        names = [one["id"] for one in httpx.get(f"{said['url']}/v1/models", timeout=30).json()[
            "data"]]
        assert names == ["tiny", "other"]
        for name in names:
            ask = {"model": name, "prompt": "abc", "max_tokens": 5, "temperature": 0}
            answer = httpx.post(f"{said['url']}/v1/completions", json=ask, timeout=30).json()
            assert answer["model"] == name and answer["choices"][0]["finish_reason"]
        metrics = httpx.get(f"{said['url']}/metrics", timeout=30).text
        assert 'curbcut_requests_total{model="other"} 1' in metrics
        assert 'curbcut_ttft_seconds_count{model="tiny"} 1' in metrics


def arguments(*words):
    parser = argparse.ArgumentParser()
    add_engine_options(parser)
    return parser.parse_args(list(map(str, words)))


def test_options_become_a_way_and_words_again(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    words = ["--dtype", "bf16", "--weights", "int8", "--cache", "int8", "--max-batch", "4",
             "--cache-tokens", "640", "--context", "64", "--draft", "3",
             "--adapter", f"law={tmp_path}"]
    way = way_of(arguments(*words))
    assert (way.weights, way.cache, way.max_batch, way.draft) == ("int8", "int8", 4, "3")
    assert way.adapters == {"law": tmp_path} and way.context_tokens == 64
    assert sorted(engine_words(arguments(*words))) == sorted(words)
    assert engine_words(arguments()) == [] and way_of(arguments()).max_batch == 8


def test_a_run_says_what_the_command_line_leaves_open():
    run = tiny_run()
    run = replace(run, serve=replace(run.serve, max_batch=3, weight_precision="int8",
                                     drafted_tokens=2))
    way = way_of(arguments("--max-batch", 5), run)
    assert (way.max_batch, way.weights, way.draft) == (5, "int8", "2")
    asked = as_served(run, arguments("--weights", "same", "--draft", 0, "--dtype", "bf16"))
    assert (asked.serve.weight_precision, asked.serve.drafted_tokens) == ("same", 0)
    assert asked.recipe.precision == "bf16" and asked.serve.max_batch == 3


@pytest.mark.parametrize("words", [
    ["--max-batch", 0], ["--context", -1], ["--cache-tokens", 0], ["--adapter", "law"],
    ["--adapter", "=x"], ["--adapter", "law=absent"]])
def test_options_that_cannot_be(words):
    with pytest.raises(InputError) as caught:
        way_of(arguments(*words))
    assert caught.value.mend


@pytest.mark.parametrize(("words", "said"), [
    ([], "names no model"), (["tiny", "tiny"], "two models would be called 'tiny'"),
    (["tiny", "other", "--name", "x"], "one name for several"),
    (["tiny", "--memory", "5 apples"], "unknown unit"),
    (["tiny", "--engine", "http://127.0.0.1:9"], "at that address"),
    (["tiny", "--engine", "vlm"], "did you mean 'vllm'"),
    (["tiny", "--draft", "nowhere"], "neither a number of tokens nor"),
    (["tiny", "--objective", "tttf=1"], "did you mean 'ttft'")])
def test_bad_words_are_exit_code_2_in_this_process(runs, capsys, words, said):
    assert main(["serve", *words, "--runs", str(runs), "--port", "0"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("text", "found"), [
    ("ttft=0.2,tpot=50ms", {"ttft": 0.2, "tpot": 0.05}), ("tpot=1 s", {"tpot": 1.0})])
def test_objectives(text, found):
    assert read(text) == found


def test_what_is_found(runs):
    model = runs / "tiny" / "model"
    assert find("tiny", runs) == (model, "tiny")
    assert find(str(model), Path("elsewhere")) == (model, "tiny")
    assert find(str(runs / "tiny"), Path("elsewhere")) == (model, "tiny")
    plain = runs.parent / "downloaded"
    shutil.copytree(model, plain)
    assert find(str(plain), runs) == (plain, "downloaded")
    with pytest.raises(UnknownName, match="did you mean 'tiny'"):
        find("tinny", runs)


def test_a_folder_or_run_without_a_model_is_said_to_be_one(runs):
    (runs / "planned").mkdir()
    for given, said in (("planned", "no model yet"), (str(runs), "no config.json here")):
        with pytest.raises(InputError, match=said):
            find(given, runs)


def test_until_it_listens_ctrl_c_ends_it_at_once_and_afterwards_as_before():
    before = signal.getsignal(signal.SIGINT)
    with _killable():
        during = signal.getsignal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    assert during is (signal.SIG_DFL if before is signal.default_int_handler else before)

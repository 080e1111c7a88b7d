import json
import shutil

import pytest

from curbcut.cli.main import main
from curbcut.ledger import FILE_NAME, open_ledger, usage
from curbcut.spec import Resolved
from tiny import tiny_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run "small" whose model is random, in a ledger."""
    from curbcut.model import weights
    from curbcut.model.decoder import Decoder
    tokenizers = pytest.importorskip("tokenizers")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(
        vocab={letter: n for n, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    base = tmp_path_factory.mktemp("bench") / "runs"
    (base / "small").mkdir(parents=True)
    run = tiny_run("small")
    tokenizer.save(str(base / "small" / "tokenizer.json"))
    weights.save(Decoder(run.model), run.model, base / "small" / "model",
                 base / "small" / "tokenizer.json")
    with open_ledger(base / FILE_NAME) as ledger:
        ledger.record_run(Resolved(run, {}))
    return base


def test_a_run_is_served_asked_compared_and_recorded(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CURBCUT_SENSORS", "off")
    picture = tmp_path / "load.svg"
    words = ["bench", "small", "--runs", str(runs), "--users", "1,2", "--rate", "40",
             "--prompt", "8..16", "--output", "6", "--requests", "4", "--objective", "ttft=60",
             "--max-batch", "2", "--json"]
    plot = []
    if pytest.importorskip("matplotlib"):
        plot = ["--plot", str(picture)]
    assert main([*words, *plot]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["load"] for one in found["loads"]] == ["1 user", "2 users", "40 requests/s"]
    for one in found["loads"]:
        assert one["requests"] == 4 and one["good"] == 4 and not one["errors"]
        assert one["answer_tokens"] == 24 and one["ttft_seconds"]["p50"] > 0
        assert one["joules_per_token"]["basis"] == "modelled"
        assert one["promised"]["seconds"]["ttft"]["value"] > 0
    assert found["model"] == "small" and picture.read_text().startswith("<?xml")
    with open_ledger(runs / FILE_NAME) as ledger:
        pairs = ledger.pairs(step="bench")
        assert ledger.resolved("small").run == tiny_run("small")
        assert not usage.used(ledger)
    assert len(pairs) == 3 and {pair[0]["serve"]["max_batch"] for pair in pairs} == {2}


def test_a_server_that_does_not_start_says_its_own_error(runs, tmp_path, capsys):
    folder = shutil.copytree(runs / "small" / "model", tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"x")
    assert main(["bench", str(folder), "--runs", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "model.safetensors" in said and "Traceback" not in said


@pytest.mark.parametrize(("words", "said"), [
    (["absent"], "unknown run or model folder"), (["small", "--users", "0"], "--users"),
    (["small", "--rate", "1..4"], "--seconds 30"), (["small", "--shared", "1"], "nearest: 0.99"),
    (["small", "--requests", "0"], "--requests"), (["small", "--plot", "a.jpg"], ".svg or .png"),
    (["small", "--trace", "absent", "--prompt", "3"], "says the lengths itself"),
    (["small", "--objective", "ttft=x"], "--objective"),
    (["http://127.0.0.1:9", "--users", "1"], "does not answer"),
    (["http://127.0.0.1:9", "--max-batch", "2"], "--max-batch is for a server"),
    (["ftp://x"], "no address of a server"),
    (["small", "--format", "cvs"], "did you mean 'csv'")])
def test_bad_words_are_exit_code_2_before_anything_starts(runs, capsys, monkeypatch, words, said):
    monkeypatch.setattr("curbcut.serve.bench.process.started", lambda *_: pytest.fail("started"))
    assert main([words[0], *words[1:]] if words[0] == "bench" else
                ["bench", *words, "--runs", str(runs)]) == 2
    assert said in capsys.readouterr().err

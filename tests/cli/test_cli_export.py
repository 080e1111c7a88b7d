import json

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers

from curbcut.cli.main import main
from curbcut.model import weights
from curbcut.model.decoder import Decoder
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=1, width=32, heads=2, kv_heads=1, head_size=16, ffn=48, vocab=260,
                   context_tokens=64)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vocab = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save("tokenizer.json")
    weights.save(Decoder(SHAPE), SHAPE, "runs/one/model", tmp_path / "tokenizer.json")
    return tmp_path / "runs"


def test_gguf_of_a_run_stands_beside_its_model(runs, capsys):
    pytest.importorskip("gguf")
    assert main(["export", "one", "--to", "gguf", "--type", "q8_0", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == "runs/one/one-q8_0.gguf"
    assert said["bytes"] == (runs / "one" / "one-q8_0.gguf").stat().st_size
    assert said["types"]["q8_0"] > 0 and len(said["widened"]) == 1  # 48 is no multiple of 32


def test_for_people(runs, capsys, tmp_path):
    pytest.importorskip("gguf")
    assert main(["export", "runs/one/model", "--to", "gguf", "--type", "q4_0",
                 "--out", str(tmp_path / "x.gguf")]) == 0
    assert "x.gguf" in (out := capsys.readouterr().out)
    assert "q4_0" in out and "no multiple of 32" in out
    assert main(["export", "one", "--to", "hf", "--type", "bf16"]) == 0
    back, _ = weights.load("runs/one/model-hf")
    assert back.head_weight.dtype == torch.bfloat16


@pytest.mark.parametrize(("arguments", "word"), [
    (["nobody", "--to", "hf"], "unknown run or model folder"),
    (["one", "--to", "hf", "--type", "q8_0"], "unknown type"),
    (["one", "--to", "gguf", "--type", "q4_K_M"], "did you mean"),
    (["one", "--to", "gguf", "--out", "runs"], "is a folder"),
    (["one", "--to", "gguf", "--out", "nowhere/x.gguf"], "no such folder"),
    (["one", "--to", "hf", "--out", "tokenizer.json"], "is a file"),
    (["one", "--to", "hf", "--out", "runs/one/model"], "own folder")])
def test_bad_input(runs, capsys, arguments, word):
    pytest.importorskip("gguf")
    assert main(["export", *arguments]) == 2
    assert word in capsys.readouterr().err

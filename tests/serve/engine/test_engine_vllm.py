"""vLLM as a program beside this one: by a stand-in, and by itself where CURBCUT_VLLM names it."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fake_openai
from curbcut.errors import CurbcutError, InputError
from curbcut.serve.engine import vllm
from curbcut.serve.engine.interface import Asked, Sampling
from curbcut.serve.engine.vllm import Options, VllmEngine

REAL = os.environ.get("CURBCUT_VLLM", "")


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A `vllm` that is `fake_openai`; the folder of its model."""
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.path.insert(0, "
                       f"{str(Path(fake_openai.__file__).parent)!r})\n"
                       "import fake_openai\nfake_openai.main(sys.argv[1:])\n")
    program.chmod(0o755)
    monkeypatch.setenv("CURBCUT_VLLM", str(program))
    monkeypatch.setattr(vllm, "GRACE_SECONDS", 0.3)
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def lives(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def gone(process, seconds=60.0):
    until = time.monotonic() + seconds
    while lives(process) and time.monotonic() < until:
        time.sleep(0.02)
    return not lives(process)


def greedy(engine, prompt, tokens):
    heard = queue.Queue()
    engine.submit(Asked(prompt=prompt, sampling=Sampling(max_tokens=tokens, temperature=0,
                                                         ignore_end=True)), heard.put)
    ids = []
    while True:
        delta = heard.get(timeout=120)
        ids += delta.ids
        if delta.finish is not None:
            return ids, delta


def test_it_is_started_answers_and_is_ended_with_all_that_it_started(stand_in):
    engine = VllmEngine(stand_in, options=Options(max_batch=3, tensor_parallel=2, dtype="bfloat16"))
    try:
        ids, last = greedy(engine, (1, 2, 3), 4)
        assert ids == fake_openai.answer({"prompt": [1, 2, 3], "max_tokens": 4})
        assert last.finish == "length" and engine.context_tokens == 128
        assert engine.stats().finished == 1 and engine._remote.dialect.ranks
        told = json.loads((stand_in / "told.json").read_text())
        given = " ".join(told["arguments"])
        for said in (f"serve {stand_in}", "--host 127.0.0.1", "--tensor-parallel-size 2",
                     "--max-num-seqs 3", "--dtype bfloat16", "--enable-prefix-caching"):
            assert said in given
        assert told["key"] not in given and len(told["key"]) > 30
        assert lives(told["child"]) and lives(engine.process)
    finally:
        engine.close()
    assert gone(told["child"]) and gone(engine.process)


def test_options_become_arguments(tmp_path):
    options = Options(quantisation="fp8", context_tokens=99, prefix_cache=False, eager=True,
                      data_parallel=2, adapters={"a": Path("/lora")}, kv_transfer="{}",
                      more=("--seed", "1"))
    given = " ".join(vllm.arguments(tmp_path, 1, "n", options))
    for said in ("--quantization fp8", "--max-model-len 99", "--no-enable-prefix-caching",
                 "--enforce-eager", "--data-parallel-size 2",
                 "--enable-lora --lora-modules a=/lora", "--kv-transfer-config {}", "--seed 1"):
        assert said in given
    plain = vllm.arguments(tmp_path, 1, "n", Options())
    assert not {"--quantization", "--max-model-len", "--enforce-eager", "--enable-lora"} & {*plain}


def test_a_start_that_fails_says_the_last_words(stand_in):
    broken = stand_in.with_name("broken")
    broken.mkdir()
    with pytest.raises(CurbcutError, match=r"(?s)code 3.*this model is broken"):
        VllmEngine(broken)


def test_a_start_that_takes_too_long_is_ended(stand_in, monkeypatch):
    monkeypatch.setattr(vllm.Address, "reaches", lambda self, path: False)
    with pytest.raises(CurbcutError, match="did not answer within"):
        VllmEngine(stand_in, start_seconds=0.5)
    told = stand_in / "told.json"
    assert not told.exists() or gone(json.loads(told.read_text())["child"])


def test_it_ends_when_we_are_killed(stand_in):
    code = ("import sys, time\nfrom pathlib import Path\nfrom curbcut.serve.engine import vllm\n"
            "vllm.GRACE_SECONDS = 0.3\nengine = vllm.VllmEngine(Path(sys.argv[1]))\n"
            "print(engine.process, flush=True)\ntime.sleep(60)\n")
    parent = subprocess.Popen([sys.executable, "-c", code, str(stand_in)], stdout=subprocess.PIPE)
    leader = int(parent.stdout.readline())
    child = json.loads((stand_in / "told.json").read_text())["child"]
    assert lives(leader) and lives(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(leader) and gone(child)


def test_an_executable_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("CURBCUT_VLLM", "/nowhere/vllm")
    with pytest.raises(InputError, match="/nowhere/vllm is not installed"):
        vllm.command()
    monkeypatch.setenv("CURBCUT_VLLM", sys.executable)
    assert vllm.command()[1:] == ["-m", "vllm.entrypoints.openai.api_server", "--model"]


@pytest.mark.skipif(not REAL, reason="CURBCUT_VLLM names no vLLM")
def test_the_real_one_gives_our_greedy_tokens(tmp_path):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers

    import families
    from curbcut.model import weights

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[])
    Tokenizer(words).save(str(tmp_path / "tokenizer.json"))
    theirs = families.build("Qwen3", head_dim=32, vocab_size=256, hidden_size=128)
    theirs.save_pretrained(tmp_path / "theirs")
    model, shape = weights.load(tmp_path / "theirs")
    weights.save(model, shape, tmp_path / "model", tmp_path / "tokenizer.json")
    engine = VllmEngine(tmp_path / "model", options=Options(max_batch=4, dtype="float32",
                                                            eager=True))
    try:
        for prompt in ((5, 6, 7), tuple(range(40))):
            tokens = list(prompt)
            for _ in range(8):
                with torch.no_grad():
                    tokens.append(int(model.logits(model(torch.tensor([tokens])))[0, -1].argmax()))
            assert greedy(engine, prompt, 8)[0] == tokens[len(prompt):]
    finally:
        engine.close()
    assert gone(engine.process)

"""Families that only transformers has, behind the same interface."""

from __future__ import annotations

import json
import queue
import random

import pytest
import torch

import families
from curbcut.errors import DamagedFile, InputError
from curbcut.serve.engine import text, transformers_runner
from curbcut.serve.engine.interface import Asked, Sampling
from curbcut.serve.engine.loading import load_runner
from curbcut.serve.engine.local import LocalEngine
from curbcut.serve.engine.transformers_runner import TransformersRunner


@pytest.fixture(scope="module", params=families.OTHERS)
def other(request, tmp_path_factory):
    kind, changes = families.OTHERS[request.param]
    model = families.build(kind, **changes)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return model, folder


def test_logits_are_those_of_whole_sequences(other):
    model, folder = other
    runner = load_runner(folder, sequences=2)
    assert isinstance(runner, TransformersRunner)
    assert families.largest_difference(runner, model, random.Random(1), rows=3) < 1e-4


def test_greedy_answers_are_generate_s_alone_and_together_and_preempted(other, folder):
    model, own = other
    # Room for two of four: they take it from one another, and start over.
    engine = LocalEngine(load_runner(own, cache_tokens=96), text.load(folder), max_batch=4)
    prompts = [(5, 6, 7), (30,) * 9, tuple(range(20)), (1,)]
    heard = [queue.Queue() for _ in prompts]
    greedy = Sampling(max_tokens=24, temperature=0, ignore_end=True)
    try:
        for prompt, one in zip(prompts, heard, strict=True):
            engine.submit(Asked(prompt=prompt, sampling=greedy), one.put)
        found = [_tokens(one) for one in heard]
        assert not engine._runner._kept
    finally:
        engine.close()
    for prompt, tokens in zip(prompts, found, strict=True):
        said = list(prompt)
        for _ in range(24):
            said.append(int(families.whole(model, said)[-1].argmax()))
        assert tokens == said[len(prompt):]


def _tokens(heard):
    found = []
    while True:
        delta = heard.get(timeout=30)
        found += delta.ids
        if delta.finish is not None:
            return found


def test_sizes_come_from_the_config(other):
    model, folder = other
    runner = load_runner(folder, cache_tokens=100, context_tokens=64)
    assert (runner.vocab, runner.context_tokens, runner.pages) == (families.VOCAB, 64, 7)
    assert runner.weights_bytes == sum(one.nbytes for one in model.parameters())
    assert runner.shares_pages is False


@pytest.fixture(scope="module")
def gpt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    families.build("GPT2", **families.OTHERS["GPT-2"][1]).save_pretrained(folder)
    return folder


def test_what_is_kept_of_a_request_goes_with_it(gpt):
    runner = transformers_runner.load(gpt, 64)
    row = families.Row(0, [1, 2, 3])
    runner.run([families.Piece(row, 0, 3, 1)])
    assert len(runner._kept) == 1
    runner.forget(row)
    runner.forget(row)
    assert not runner._kept


def test_an_embedding_has_length_one_and_depends_on_the_prompt(gpt):
    runner = transformers_runner.load(gpt, 64)
    one, two = runner.embed([1, 2, 3]), runner.embed([3, 2, 1])
    assert one.norm() == pytest.approx(1) and one.shape == (32,) and one.dtype == torch.float32
    assert (one - two).abs().max() > 1e-3


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def copy_of(gpt, tmp_path):
    for file in gpt.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize(("changes", "said"), [
    ({"quantization_config": {"quant_method": "awq"}}, "quantised"),
    ({"model_type": "of-its-own", "auto_map": {"AutoModelForCausalLM": "evil.Model"}},
     "transformers cannot load|of-its-own"),
    ({"model_type": "t5"}, "neither"),
])
def test_what_would_need_more_than_weights_is_refused(gpt, tmp_path, changes, said):
    folder = copy_of(gpt, tmp_path)
    edit(folder, **changes)
    (folder / "evil.py").write_text("raise SystemExit('code of a folder ran')")
    with pytest.raises(InputError, match=said):
        load_runner(folder)


@pytest.mark.parametrize("named", [
    {"attn_implementation": "someone/kernel"}, {"_attn_implementation": "flash_attention_2"},
    {"inner": [{"experts_implementation": "someone/kernel"}]}])
def test_a_kernel_that_a_config_names_is_not_fetched(gpt, tmp_path, named):
    folder = copy_of(gpt, tmp_path)
    edit(folder, **named)
    with pytest.raises(InputError, match="code from elsewhere"):
        load_runner(folder)


def test_pickles_and_lacking_weights_are_refused(gpt, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copy_of(gpt, tmp_path)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("transformer.h.1.attn.c_attn.weight")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(DamagedFile, match=r"h\.1\.attn\.c_attn"):
        load_runner(folder)
    path.rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights are never read"):
        load_runner(folder)


def test_other_kinds_of_weights_need_our_own_shapes(gpt):
    with pytest.raises(InputError, match="weights as int8"):
        load_runner(gpt, kind="int8")


def test_without_transformers_the_extra_is_named(gpt, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"(?s)not installed.*curbcut\[transformers\]"):
        load_runner(gpt)

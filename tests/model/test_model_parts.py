"""Large models leave in several files, and never as a mixture of two."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from curbcut.errors import InputError
from curbcut.model import parts, weights
from curbcut.model.decoder import Decoder
from tiny import tiny_run


def tensors(count=5):
    return {f"t{i}": torch.full((10,), float(i)) for i in range(count)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_small_model_is_one_file(tmp_path):
    parts.write(tmp_path, tensors().items())
    assert names(tmp_path) == ["model.safetensors"]
    assert sorted(load_file(tmp_path / "model.safetensors")) == sorted(tensors())


def test_a_large_one_is_several_of_bounded_size_with_an_index(tmp_path):
    parts.write(tmp_path, tensors().items(), most_bytes=80)
    index = json.loads((tmp_path / parts.INDEX).read_text())
    assert index["metadata"]["total_size"] == 200
    assert sorted(set(index["weight_map"].values())) == [
        f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    for name, tensor in tensors().items():
        assert torch.equal(load_file(tmp_path / index["weight_map"][name])[name], tensor)
    for path in tmp_path.glob("*.safetensors"):
        assert sum(t.numel() * 4 for t in load_file(path).values()) <= 80


def test_a_tensor_larger_than_a_file_has_one_of_its_own(tmp_path):
    parts.write(tmp_path, {"a": torch.ones(1), "b": torch.ones(99), "c": torch.ones(1)}.items(),
                most_bytes=80)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


@pytest.mark.parametrize(("before", "after"), [(80, 1000), (1000, 80), (40, 80)])
def test_files_of_an_earlier_model_go(tmp_path, before, after):
    parts.write(tmp_path, tensors().items(), most_bytes=before)
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    parts.write(fresh, tensors().items(), most_bytes=after)
    wanted = names(fresh)
    parts.write(tmp_path, tensors().items(), most_bytes=after)
    assert names(tmp_path) == sorted([*wanted, "fresh"])


def test_a_crash_between_files_leaves_no_model_that_loads(tmp_path, monkeypatch):
    shape = tiny_run().model
    torch.manual_seed(0)
    write = parts.write
    monkeypatch.setattr(parts, "write", lambda folder, named: write(folder, named, 10_000))
    weights.save(Decoder(shape), shape, tmp_path)
    loaded, _ = weights.load(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 2

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts, "write_whole", full)
    with pytest.raises(InputError, match="No space left"):
        weights.save(loaded, shape, tmp_path)
    with pytest.raises(InputError, match=r"no config\.json"):
        weights.load(tmp_path)
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_several_files_load_as_they_were_and_in_transformers(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    write = parts.write
    monkeypatch.setattr(parts, "write", lambda folder, named: write(folder, named, 20_000))
    shape = tiny_run().model
    model = Decoder(shape)
    weights.save(model, shape, tmp_path)
    ours, _ = weights.load(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.arange(12).reshape(1, 12)
    with torch.no_grad():
        wanted = model.logits(model(tokens))
        assert torch.equal(ours.logits(ours(tokens)), wanted)
        assert torch.allclose(theirs(tokens).logits, wanted, atol=1e-5)

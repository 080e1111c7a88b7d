import json

import pytest
import torch

from curbcut.errors import InputError, UnknownName
from curbcut.model import copied, weights
from curbcut.model.decoder import Decoder
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=1, width=32, heads=2, kv_heads=1, head_size=16, ffn=48, vocab=97,
                   context_tokens=64)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    weights.save(Decoder(SHAPE), SHAPE, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "m" / "modeling_own.py").write_text("print('never copied')")
    return tmp_path / "m"


def test_as_it_is(folder, tmp_path):
    size = copied.write(folder, tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "model.safetensors", "config.json", "chat_template.jinja"}
    assert size == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    old, new = (weights.load(one)[0].state_dict() for one in (folder, tmp_path / "out"))
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


@pytest.mark.parametrize("kind", copied.DTYPES)
def test_in_another_dtype(folder, tmp_path, kind):
    copied.write(folder, tmp_path / "out", kind)
    dtype = copied.DTYPES[kind]
    old, new = (weights.load(one)[0].state_dict() for one in (folder, tmp_path / "out"))
    assert all(torch.equal(old[name].to(dtype), new[name]) for name in old)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert said["dtype"] == str(dtype).removeprefix("torch.")


def test_what_cannot_be_written(folder, tmp_path):
    with pytest.raises(UnknownName, match="bf16"):
        copied.write(folder, tmp_path / "out", "q8_0")
    with pytest.raises(InputError, match="own folder"):
        copied.write(folder, folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        copied.write(folder, tmp_path / "file" / "out")


def test_overflow_of_f16_leaves_no_config(folder, tmp_path):
    model, shape = weights.load(folder)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = 1e6
    weights.save(model, shape, folder)
    with pytest.raises(InputError, match="f16 cannot hold"):
        copied.write(folder, tmp_path / "out", "f16")
    assert not (tmp_path / "out" / "config.json").exists()
    assert not list((tmp_path / "out").glob("*.safetensors"))

"""Weights from a stranger: refused by what their headers say, before anything is made of them."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from curbcut.errors import CurbcutError, DamagedFile, InputError
from curbcut.model import headers, weights
from curbcut.model.decoder import Decoder
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=2, width=16, heads=2, kv_heads=1, head_size=8, ffn=24, vocab=31,
                   context_tokens=64)


@pytest.fixture
def saved(tmp_path):
    weights.save(Decoder(SHAPE), SHAPE, tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def nothing_is_made(monkeypatch):
    """Fails a test in which a network is built or a tensor read."""
    def made(*_, **__):
        raise AssertionError("something was made of what should have been refused")

    monkeypatch.setattr(weights, "Decoder", made)
    monkeypatch.setattr(weights, "safe_open", made)


def put(path, table, data=b"", length=None):
    header = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little")
                     + header + data)


def tensor(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HOSTILE = {
    "overlapping": ({"a": tensor(0, 4), "b": tensor(2, 6)}, 6, "b overlaps"),
    "one in another": ({"a": tensor(0, 8, (2,)), "b": tensor(0, 4)}, 8, "overlaps"),
    "with a gap": ({"a": tensor(0, 4), "b": tensor(8, 12)}, 12, "gap"),
    "outside the file": ({"a": tensor(0, 4), "b": tensor(4, 8)}, 4, "end at byte 8 of 4"),
    "data that nobody names": ({"a": tensor(0, 4)}, 8, "end at byte 4 of 8"),
    "a negative place": ({"a": tensor(-4, 0)}, 4, "no shape or place"),
    "a place beyond all": ({"a": tensor(0, 2**70)}, 4, "no shape or place"),
    "another size than its shape": ({"a": tensor(0, 4, (2,))}, 4, r"said to be \[2\] of F32"),
    "an absurd shape": ({"a": tensor(0, 4, (2**40, 2**40))}, 4, "said to be"),
    "a shape of many": ({"a": tensor(0, 4, (1,) * 99)}, 4, "no shape"),
    "a shape that is none": ({"a": tensor(0, 4) | {"shape": "x"}}, 4, "no shape"),
    "half a dimension": ({"a": tensor(0, 4) | {"shape": [1.5]}}, 4, "no shape"),
    "a type nobody knows": ({"a": tensor(0, 4, dtype="PICKLE")}, 4, "PICKLE, which is not known"),
    "a type that is a list": ({"a": tensor(0, 4) | {"dtype": []}}, 4, "not known"),
    "no table": ({"a": 5}, 0, "not known"),
    "a list": (b"[1]", 0, "no table"),
    "a name twice": (b'{"a": 1, "a": 2}', 0, "twice"),
    "nested too deeply": (b'{"a":' * 100_000, 0, "no JSON"),
    "a number of 5,000 digits": (b'{"a": ' + b"9" * 5_000 + b"}", 0, "no JSON"),
    "no text": (b"\xff\xfe", 0, "no JSON"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_lies_is_refused(saved, nothing_is_made, name):
    table, size, said = HOSTILE[name]
    put(saved / "model.safetensors", table, bytes(size))
    with pytest.raises(DamagedFile, match=said):
        weights.load(saved)


@pytest.mark.parametrize(("length", "said"), [
    (2**63, "cut short"), (100, "cut short"), (headers.MOST_HEADER_BYTES + 1, "a header of")])
def test_a_header_longer_than_the_file_or_than_any_is_refused(saved, nothing_is_made, length, said):
    path = saved / "model.safetensors"
    put(path, b"{}", length=length)
    if "header" in said:
        os.truncate(path, length + 8)       # a hole: a hundred megabytes that are nowhere
    with pytest.raises(DamagedFile, match=said):
        weights.load(saved)


def test_a_hundred_thousand_tensors_are_refused_by_name(saved):
    put(saved / "model.safetensors",
        {f"t{place}": tensor(place, place + 1, dtype="U8") for place in range(100_000)},
        bytes(100_000))
    with pytest.raises(DamagedFile, match="unexpected tensor t0"):
        weights.load(saved)
    put(saved / "model.safetensors", {f"t{place}": 0 for place in range(headers.MOST_TENSORS + 1)})
    with pytest.raises(DamagedFile, match="200001 tensors"):
        weights.load(saved)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_no_floats_are_refused(saved, monkeypatch, dtype):
    path = saved / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path)
    monkeypatch.setattr(weights, "safe_open", None)
    with pytest.raises(DamagedFile, match="is of type"):
        weights.load(saved)


def test_a_tensor_in_two_files_is_refused(saved, nothing_is_made):
    (saved / "model.safetensors").rename(saved / "a.safetensors")
    (saved / "b.safetensors").write_bytes((saved / "a.safetensors").read_bytes())
    (saved / "model.safetensors.index.json").write_text(json.dumps(
        {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    with pytest.raises(DamagedFile, match=r"stands in a\.safetensors too"):
        weights.load(saved)


@pytest.mark.parametrize("index", [
    {"weight_map": {"x": "/etc/passwd"}}, {"weight_map": {"x": "../m/model.safetensors"}},
    {"weight_map": {"x": "pytorch_model.bin"}}, {"weight_map": {"x": 5}}, {"weight_map": [1]},
    {"weight_map": {"x": "a\0.safetensors"}}, {}])
def test_names_that_are_no_plain_names_of_safetensors_are_refused(saved, nothing_is_made, index):
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DamagedFile, match="no plain file name"):
        weights.load(saved)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.pkl"])
def test_pickles_are_never_read(saved, nothing_is_made, name):
    (saved / "model.safetensors").rename(saved / name)
    with pytest.raises(InputError, match="pickled weights are never read"):
        weights.load(saved)
    (saved / name).rename(saved / "model.safetensors")
    (saved / "model.safetensors").write_bytes(b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01K\x01s.")
    with pytest.raises(DamagedFile, match="safetensors file"):
        weights.load(saved)


@pytest.mark.parametrize("changes", [
    {"num_hidden_layers": 10**9}, {"num_hidden_layers": 200}, {"vocab_size": 10**15},
    {"hidden_size": 2 * 10**13}, {"max_position_embeddings": 10**12},
    {"intermediate_size": 10**30}])
def test_a_config_beyond_its_weights_is_refused(saved, nothing_is_made, changes):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DamagedFile, match="but the weights are 20 tensors"):
        weights.load(saved)


@pytest.mark.parametrize("changes", [
    {"hidden_size": "x"}, {"num_attention_heads": 0}, {"num_attention_heads": None},
    {"model_type": ["llama"]}, {"model_type": "../../etc"}, {"rope_parameters": [1]},
    {"rope_parameters": {"rope_type": ["llama3"]}}, {"rope_scaling": "x"}, {"layer_types": 5},
    {"layer_types": ["sliding_attention"]}, {"vocab_size": True}, {"rms_norm_eps": "nan"},
    {"rms_norm_eps": 1e999}, {"num_hidden_layers": 10**400}, {"hidden_size": 16.5},
    {"quantization_config": {}}, {"partial_rotary_factor": 0.5}])
def test_a_config_of_nonsense_is_refused(saved, nothing_is_made, changes):
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError):
        weights.load(saved)


@pytest.mark.parametrize("text", ['{"a":' * 100_000, '{"a": ' + "9" * 5_000 + "}", "[]", "\0"])
def test_a_config_that_is_no_table_is_refused(saved, nothing_is_made, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(DamagedFile):
        weights.load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(saved, nothing_is_made, name):
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(CurbcutError, match="plain file"):
        weights.load(saved)


def test_links_to_files_are_followed(saved):
    (saved / "model.safetensors").rename(saved / "blob")
    (saved / "model.safetensors").symlink_to(saved / "blob")
    weights.load(saved)


def test_a_sound_header_says_what_is_there(saved):
    found = headers.read(saved / "model.safetensors")
    whole = load_file(saved / "model.safetensors")
    assert {name: one.shape for name, one in found.items()} == {
        name: tuple(value.shape) for name, value in whole.items()}
    assert {one.dtype for one in found.values()} == {"F32"}


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_changes_nothing_that_is_said(tmp_path_factory, place, byte):
    """Whatever the header says after a bit of damage, it is sound or refused."""
    file = tmp_path_factory.mktemp("h") / "model.safetensors"
    save_file({"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.int8)}, file)
    content = bytearray(file.read_bytes())
    content[place % len(content)] = byte
    file.write_bytes(content)
    try:
        found = headers.read(file)
    except DamagedFile:
        return
    assert sum(headers.BYTES[one.dtype] * torch.Size(one.shape).numel()
               for one in found.values()) == 28


@pytest.mark.parametrize("changes", [
    {"qkv_bias": True}, {"rope_factor": 8.0, "rope_original_tokens": 32}, {"rope_factor": 2.0},
    {"qkv_bias": True, "rope_factor": 4.0, "rope_low": 1.5, "rope_high": 3.0,
     "rope_original_tokens": 16, "tied_embeddings": False}])
def test_new_shapes_go_to_a_config_and_back(changes):
    shape = replace(SHAPE, **changes)
    assert weights.shape_of(weights.config(shape)) == shape
    assert sum(one.numel() for one in Decoder(shape).parameters()) == shape.parameters


@pytest.mark.parametrize(("changes", "said"), [
    ({"qkv_bias": True, "qk_norm": True}, "qkv_bias together"),
    ({"rope_factor": 2.0, "rope_original_tokens": 9, "rope_low": 4.0}, "rope_high")])
def test_shapes_that_nobody_has_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        Decoder(replace(SHAPE, **changes))


def test_biases_begin_at_zero_and_learn():
    model = Decoder(replace(SHAPE, qkv_bias=True))
    bias = model.model.layers[0].self_attn.q_proj.bias
    assert not bias.any()
    model.logits(model(torch.arange(9)[None])).square().mean().backward()
    assert bias.grad.abs().max() > 0

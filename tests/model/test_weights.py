import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from curbcut.errors import CurbcutError, DamagedFile, InputError, UnknownName
from curbcut.model import parts, weights
from curbcut.model.decoder import Decoder
from curbcut.spec import ModelShape

SHAPE = ModelShape(layers=2, width=32, heads=4, kv_heads=2, head_size=16, ffn=48, vocab=97,
                   context_tokens=64)
VARIANTS = [{}, {"qk_norm": True}, {"tied_embeddings": False},
            {"qk_norm": True, "tied_embeddings": False, "rope_theta": 1e6, "norm_eps": 1e-5},
            {"kv_heads": 4, "rope_theta": 500.0}, {"kv_heads": 1, "qk_norm": True}]
TOKENS = torch.randint(0, 97, (2, 24), generator=torch.Generator().manual_seed(0))


def random_model(**changes):
    shape = replace(SHAPE, **changes)
    model = Decoder(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (parameter.ndim == 1))
    return model, shape


@pytest.fixture
def saved(tmp_path):
    model, shape = random_model()
    weights.save(model, shape, tmp_path / "m")
    return tmp_path / "m"


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("changes", VARIANTS)
def test_transformers_reads_ours_and_we_read_theirs(tmp_path, changes):
    from transformers import AutoModelForCausalLM
    model, shape = random_model(**changes)
    ours = model.logits(model(TOKENS))
    weights.save(model, shape, tmp_path / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert type(theirs).__name__ == ("Qwen3ForCausalLM" if shape.qk_norm else "LlamaForCausalLM")
    assert (theirs(TOKENS).logits - ours).abs().max() < 1e-5
    theirs.save_pretrained(tmp_path / "theirs")
    back, found = weights.load(tmp_path / "theirs", "math")
    assert found == shape
    assert (back.logits(back(TOKENS)) - ours).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_model_born_in_transformers(tmp_path, kind):
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM
    config, causal = {"llama": (LlamaConfig, LlamaForCausalLM),
                      "qwen3": (Qwen3Config, Qwen3ForCausalLM)}[kind]
    theirs = causal(config(vocab_size=97, hidden_size=32, intermediate_size=48, head_dim=8,
                           num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                           rope_parameters={"rope_type": "default", "rope_theta": 3e4})).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    model, shape = weights.load(tmp_path)
    assert shape.rope_theta == 3e4 and not shape.tied_embeddings
    assert (model.logits(model(TOKENS)) - theirs(TOKENS).logits).abs().max() < 1e-5


@pytest.mark.parametrize("changes", VARIANTS)
def test_config_and_shape_are_each_other_s_reverse(changes):
    shape = replace(SHAPE, **changes)
    assert weights.shape_of(weights.config(shape)) == shape
    older = {k: v for k, v in weights.config(shape).items() if k != "rope_parameters"}
    assert weights.shape_of(older) == shape
    newer = {k: v for k, v in weights.config(shape).items() if k != "rope_theta"}
    assert weights.shape_of(newer) == shape


@pytest.mark.parametrize(("changes", "named"), [
    ({"attention_bias": True}, "attention_bias"), ({"hidden_act": "gelu"}, "hidden_act"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling"),
    ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "rope_parameters"),
    ({"use_sliding_window": True}, "use_sliding_window"), ({"vocab_size": -1}, "vocab"),
    ({"rope_theta": "x", "rope_parameters": None}, "rope_theta"), ({"vocab_size": None}, "vocab"),
])
def test_a_config_that_changes_the_arithmetic_is_refused(changes, named):
    with pytest.raises(InputError, match=named):
        weights.shape_of(weights.config(SHAPE) | changes)


def test_another_architecture_is_refused():
    with pytest.raises(UnknownName, match="mamba"):
        weights.shape_of({"model_type": "mamba"})


def test_dtypes(tmp_path):
    model, shape = random_model()
    weights.save(model.to(torch.bfloat16), shape, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert weights.load(tmp_path)[0].head_weight.dtype == torch.bfloat16
    assert weights.load(tmp_path, dtype=torch.float32)[0].head_weight.dtype == torch.float32


def test_a_loaded_model_trains(saved):
    model, _ = weights.load(saved)
    model(TOKENS).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_nothing_but_final_names_is_left(saved):
    assert {p.name for p in saved.iterdir()} == {"model.safetensors", "config.json"}


def test_a_failed_save_leaves_the_old_model(saved, monkeypatch):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts, "save_file", full)
    model, shape = random_model()
    with pytest.raises(CurbcutError, match="No space left"):
        weights.save(model, shape, saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before


@pytest.mark.parametrize("damage", [
    lambda b: b[:-1], lambda b: b[:100], lambda b: b"", lambda b: b"\xff" * len(b),
    lambda b: b + b"x"])
def test_a_broken_file_is_named(saved, damage):
    path = saved / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedFile, match=r"model\.safetensors"):
        weights.load(saved)


def test_missing_unexpected_and_misshapen_tensors_are_named(saved):
    path = saved / "model.safetensors"
    good = load_file(path)
    name = "model.layers.1.self_attn.k_proj.weight"
    for tensors, said in (({k: v for k, v in good.items() if k != name}, f"{name} is missing"),
                          (good | {"model.extra.weight": torch.ones(2)}, "model.extra.weight"),
                          (good | {name: torch.ones(3, 4)}, r"k_proj.weight has shape \[3, 4\]")):
        save_file(tensors, path)
        with pytest.raises(DamagedFile, match=said):
            weights.load(saved)


def test_needless_tensors_are_passed_over(saved):
    path = saved / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] = torch.zeros(97, 32)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(tensors, path)
    weights.load(saved)


def test_an_index_cannot_lead_elsewhere(saved):
    (saved / "model.safetensors").rename(saved.parent / "model.safetensors")
    (saved / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "../model.safetensors"}}))
    with pytest.raises(DamagedFile, match="no plain file name"):
        weights.load(saved)
    (saved / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "absent.safetensors"}}))
    with pytest.raises(DamagedFile, match=r"absent\.safetensors: is missing"):
        weights.load(saved)


def test_folders_without_a_model(tmp_path, saved):
    with pytest.raises(InputError, match=r"config\.json"):
        weights.load(tmp_path)
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match="pickled weights are never read"):
        weights.load(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(DamagedFile, match="not valid JSON"):
        weights.load(saved)


def test_tokenizer_travels_with_the_weights(tmp_path):
    from tokenizers import Tokenizer, models
    from transformers import AutoTokenizer
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "b": 1}, merges=[]))
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model, shape = random_model()
    weights.save(model, shape, tmp_path / "m", tmp_path / "tokenizer.json")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["eos_token_id"] == 2
    loaded = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert loaded.eos_token == "<|endoftext|>" and loaded.encode("ab") == [0, 1]
    settings = tmp_path / "m" / "tokenizer_config.json"
    settings.write_text(json.dumps({"chat_template": "mine"}))
    weights.save(model, shape, tmp_path / "n", tmp_path / "m")
    assert json.loads((tmp_path / "n" / "tokenizer_config.json").read_text()) == {
        "chat_template": "mine"}


@pytest.mark.parametrize(("specials", "end"), [
    ([], None), ([("<pad>", 5)], ("<pad>", 5)), ([("<pad>", 5), ("<bos>", 6)], None),
    ([("<pad>", 5), ("</s>", 6)], ("</s>", 6)),
])
def test_end_of_text(specials, end):
    added = [{"content": c, "id": i, "special": True} for c, i in specials]
    assert weights.end_of_text({"added_tokens": [*added, {"content": "x", "id": 9}]}) == end


def test_damage_in_a_config_is_named(saved):
    change_config(saved, num_hidden_layers=3)
    with pytest.raises(DamagedFile, match=r"model\.layers\.2\..* and \d+ more is missing"):
        weights.load(saved)

import json
import queue
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from curbcut.errors import DamagedFile, InputError
from curbcut.model import weights
from curbcut.serve.engine import adapters, text
from curbcut.serve.engine.interface import Asked, Sampling, Unfit
from curbcut.serve.engine.local import LocalEngine
from curbcut.serve.engine.request import Piece, Request
from curbcut.serve.engine.runner import TorchRunner
from serve.conftest import SHAPE

SIZES = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (32, 16), "self_attn.v_proj": (32, 16),
         "self_attn.o_proj": (32, 32), "mlp.gate_proj": (32, 48), "mlp.up_proj": (32, 48),
         "mlp.down_proj": (48, 32)}
ALL = tuple(SIZES)


def tensors(modules=ALL, rank=4, seed=0, layers=2, size=0.2):
    source = torch.Generator().manual_seed(seed)
    made = {}
    for layer in range(layers):
        for module in modules:
            inputs, outputs = SIZES[module]
            name = f"base_model.model.model.layers.{layer}.{module}"
            made[f"{name}.lora_A.weight"] = torch.randn(rank, inputs, generator=source) * size
            made[f"{name}.lora_B.weight"] = torch.randn(outputs, rank, generator=source) * size
    return made


def peft_folder(path, made, **said):
    """What PEFT's `save_pretrained` writes."""
    path.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "use_dora": False,
              "target_modules": ["q_proj"], "fan_in_fan_out": False, "modules_to_save": None,
              "rank_pattern": {}, "alpha_pattern": {}, "inference_mode": True,
              "task_type": "CAUSAL_LM", "use_rslora": False} | said
    (path / "adapter_config.json").write_text(json.dumps(config))
    save_file(made, path / "adapter_model.safetensors", metadata={"format": "pt"})
    return path


def merged(folder, made, scale):
    """The model with the adapter in its weights, by PEFT's definition W + scale * B A."""
    model, _ = weights.load(folder)
    with torch.no_grad():
        for name, a in made.items():
            if ".lora_A." in name:
                own = name.removeprefix("base_model.model.").replace(".lora_A", "")
                model.get_parameter(own).add_(scale * made[name.replace("_A.", "_B.")] @ a)
    return model


def piece(runner, tokens, adapter, page):
    sampling = Sampling(max_tokens=1)
    pages = -(-len(tokens) // runner.page_tokens)
    made = Request(ticket=page, asked=Asked(prompt=tuple(tokens), sampling=sampling,
                                            adapter=adapter),
                   deliver=lambda delta: None, tokens=tokens, prompt_tokens=len(tokens), text=None,
                   sampling=sampling, pages=list(range(page, page + pages)))
    return Piece(made, 0, len(tokens), len(tokens))


WAYS = {"all": (ALL, 4, {}, 2.0), "query and value": (ALL[:3:2], 4, {}, 2.0),
        "feed-forward": (ALL[4:], 2, {"r": 2, "lora_alpha": 3}, 1.5),
        "one of two": (("mlp.up_proj",), 4, {"use_rslora": True}, 4.0)}


def test_a_batch_of_mixed_adapters_equals_their_merged_models(folder, tmp_path):
    runner = TorchRunner(weights.load(folder)[0], 1024)
    models = {"": weights.load(folder)[0]}
    loaded = {}
    for seed, (name, (modules, rank, said, scale)) in enumerate(WAYS.items()):
        made = tensors(modules, rank, seed)
        place = peft_folder(tmp_path / name.replace(" ", "-"), made, **said)
        loaded[name] = adapters.load(place, SHAPE)
        models[name] = merged(folder, made, scale)
    runner.adapters = adapters.Adapters(loaded)
    asked = ["all", "", "feed-forward", "one of two", "all", "query and value", "", "all"]
    texts = [list(range(at * 3, at * 3 + 1 + at * 7 % 20)) for at in range(len(asked))]
    pieces = [piece(runner, tokens, name, 4 * at)
              for at, (tokens, name) in enumerate(zip(texts, asked, strict=True))]
    row, logits = 0, runner.run(pieces)
    plain = models[""]
    for tokens, name in zip(texts, asked, strict=True):
        expected = models[name].logits(models[name](torch.tensor([tokens])))[0]
        found = logits[row: row + len(tokens)]
        row += len(tokens)
        assert (found - expected).abs().max() < 1e-4
        if name:
            other = plain.logits(plain(torch.tensor([tokens])))[0]
            assert (found - other).abs().max() > 0.05
    alone = runner.run([pieces[0]])              # all rows of one adapter
    assert (alone - logits[: len(texts[0])]).abs().max() < 1e-4


def test_patterns_give_a_module_its_own_rank_and_scale(folder, tmp_path):
    made = tensors(("self_attn.q_proj",)) | tensors(("mlp.down_proj",), rank=2, seed=1)
    place = peft_folder(tmp_path / "own", made, rank_pattern={"down_proj": 2},
                        alpha_pattern={"layers.1.mlp.down_proj": 6})
    found = adapters.load(place, SHAPE)
    name = "base_model.model.model.layers.{}.mlp.down_proj.lora_B.weight"
    assert torch.equal(found.lows[0, "down"].b, made[name.format(0)] * 4)
    assert torch.equal(found.lows[1, "down"].b, made[name.format(1)] * 3)
    assert found.rank == 4 and found.bytes_ > 0


def test_an_adapter_of_a_model_with_experts_keeps_to_attention(tmp_path):
    shape = replace(SHAPE, experts=4, experts_per_token=2, expert_ffn=16)
    adapters.load(peft_folder(tmp_path / "attention", tensors(ALL[:4])), shape)
    with pytest.raises(DamagedFile, match="no matrix"):
        adapters.load(peft_folder(tmp_path / "all", tensors()), shape)


@pytest.mark.parametrize(("said", "why"), [
    ({"peft_type": "IA3"}, "peft_type"), ({"use_dora": True}, "use_dora"),
    ({"bias": "all"}, "bias"), ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ({"r": 0}, "above 0"), ({"lora_alpha": "8"}, "above 0"), ({"lora_alpha": True}, "above 0"),
    ({"alpha_pattern": {"(a+)+$": 2}}, "does not name modules"), ({"rank_pattern": [1]}, "modules"),
    ({"alpha_pattern": {"q_proj": float("nan")}}, "above 0")])
def test_more_than_plain_lora_is_refused(tmp_path, said, why):
    with pytest.raises(InputError, match=why):
        adapters.load(peft_folder(tmp_path / "odd", tensors(), **said), SHAPE)


@pytest.mark.parametrize("change", [
    lambda made: made.pop(next(iter(made))),
    lambda made: made.update({"base_model.model.lm_head.lora_A.weight": torch.ones(4, 32)}),
    lambda made: made.update({f"base_model.model.model.layers.7.mlp.up_proj.lora_{one}.weight":
                              torch.ones(4, 4) for one in "AB"}),
    lambda made: made.update({next(iter(made)): torch.ones(3, 32)}),
    lambda made: made.update({next(iter(made)): torch.ones(32)}),
    lambda made: made.update({next(iter(made)): torch.ones(4, 33)}),
    lambda made: made.update({next(iter(made)): torch.ones(4, 32, dtype=torch.int8)}),
    lambda made: made.clear(),
], ids=["half", "head", "layer", "ranks differ", "flat", "width", "whole numbers", "nothing"])
def test_tensors_that_do_not_belong_are_refused(tmp_path, change):
    made = tensors()
    change(made)
    with pytest.raises(DamagedFile):
        adapters.load(peft_folder(tmp_path / "odd", made), SHAPE)


def test_a_pickled_adapter_is_never_read(tmp_path):
    place = peft_folder(tmp_path / "old", tensors())
    (place / "adapter_model.safetensors").rename(place / "adapter_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        adapters.load(place, SHAPE)


def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no adapter_config\.json") as caught:
        adapters.load(tmp_path, SHAPE)
    assert "PEFT" in caught.value.mend


def test_a_damaged_file_is_refused(tmp_path):
    place = peft_folder(tmp_path / "cut", tensors())
    file = place / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DamagedFile):
        adapters.load(place, SHAPE)


def answer(engine, adapter, prompt=tuple(range(40))):
    box: queue.Queue = queue.Queue()
    sampling = Sampling(max_tokens=12, temperature=0, ignore_end=True)
    engine.submit(Asked(prompt=prompt, sampling=sampling, adapter=adapter), box.put)
    ids, cached = [], 0
    while True:
        delta = box.get(timeout=30)
        ids, cached = ids + list(delta.ids), max(cached, delta.cached_tokens)
        if delta.finish:
            return ids, cached


def test_adapters_do_not_share_remembered_prompts(folder, tmp_path):
    made = tensors(size=0.4)
    place = peft_folder(tmp_path / "one", made)
    runner = TorchRunner(weights.load(folder)[0], 1024)
    before = runner.weights_bytes
    engine = LocalEngine(runner, text.load(folder), adapters=adapters.put(runner, {"one": place}))
    assert engine.adapters == {"one": str(place)} and runner.weights_bytes > before
    plain, mine = answer(engine, ""), answer(engine, "one")
    assert plain[0] != mine[0] and plain[1] == mine[1] == 0
    again = answer(engine, "one")
    assert again[0] == mine[0] and again[1] > 0
    with pytest.raises(Unfit, match="adapter"):
        answer(engine, "two")
    engine.close()
    whole = merged(folder, made, 2.0)
    expected = list(range(40))
    for _ in range(12):
        hidden = whole(torch.tensor([expected]))
        expected.append(int(whole.logits(hidden)[0, -1].argmax()))
    assert expected[40:] == mine[0]


def test_steps_without_adapters_are_not_touched_and_few_stacks_are_kept():
    low = adapters.Low(torch.ones(2, 3), torch.ones(4, 2))
    shelf = adapters.Adapters({name: adapters.Adapter({(0, "out"): low}, 2) for name in "abcdefg"})
    cpu = torch.device("cpu")
    assert shelf.touch([("", 3), ("", 1)], cpu) is None
    for name in "bcdefg":
        made = torch.zeros(3, 4)
        shelf.touch([("a", 1), ("", 1), (name, 1)], cpu)(0, "out", torch.ones(3, 3), made)
        assert made[:, 0].tolist() == [6, 0, 6]
        shelf.touch([("a", 1), (name, 1)], cpu)(1, "out", torch.ones(2, 3), made)
    assert len(shelf._stacks) == 4

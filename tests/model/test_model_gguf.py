import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import llama_program
from curbcut.errors import DamagedFile, InputError, MissingExtra, UnknownName
from curbcut.model import gguf, gguf_keys, weights
from curbcut.model.decoder import Decoder
from curbcut.model.gguf_tokenizer import rule_of
from curbcut.spec import ModelShape

kit = pytest.importorskip("gguf")
SHAPE = ModelShape(layers=2, width=64, heads=4, kv_heads=2, head_size=16, ffn=96, vocab=272,
                   context_tokens=96)
EXPERTS = {"experts": 3, "experts_per_token": 2, "expert_ffn": 32}
SHAPES = {
    "llama": replace(SHAPE, tied_embeddings=False),
    "llama3": replace(SHAPE, rope_factor=4.0, rope_original_tokens=64),
    "qwen2": replace(SHAPE, qkv_bias=True),
    "qwen3": replace(SHAPE, qk_norm=True),
    "mixtral": replace(SHAPE, **EXPERTS),
    "qwen3moe": replace(SHAPE, qk_norm=True, tied_embeddings=False, **EXPERTS),
}
SENTENCE = "the cat sat on the mat, and the dog ran to the cab. "
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def tokenizer():
    """A token a byte, a few merges, an end of text and a mark that is not special."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate(alphabet)}
    merges = [("a", "t"), ("t", "h"), ("th", "e")]
    vocab |= {"".join(pair): 256 + i for i, pair in enumerate(merges)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>"])
    made.add_tokens(["[mark]"])
    return made


def save(model, shape, folder, made=None):
    folder.mkdir(parents=True, exist_ok=True)
    (made or tokenizer()).save(str(folder / "made.json"))
    weights.save(model, shape, folder / "model", folder / "made.json")
    return folder / "model"


def random_model(shape):
    torch.manual_seed(0)
    model = Decoder(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module", params=SHAPES)
def saved(request, tmp_path_factory):
    shape = SHAPES[request.param]
    model = random_model(shape)
    return request.param, shape, model, save(model, shape, tmp_path_factory.mktemp("gguf"))


def field(reader, key):
    found = reader.get_field(key)
    return None if found is None else found.contents()


def read(path):
    reader = kit.GGUFReader(path)
    values = {tensor.name: kit.quants.dequantize(tensor.data, tensor.tensor_type)
              for tensor in reader.tensors}
    return reader, values


def restored(values, shape):
    """A decoder of the file's own values, its rotary halves put apart again."""
    table = kit.get_tensor_name_map(
        next(n for n, name in kit.MODEL_ARCH_NAMES.items() if name == {
            "qwen2": "qwen2", "qwen3": "qwen3", "qwen3_moe": "qwen3moe"}.get(
                weights.config(shape)["model_type"], "llama")), shape.layers)
    model = Decoder(shape)
    for name, parameter in model.state_dict().items():
        if ".experts." in name:
            layer, matrix = name.split(".")[2], name.rpartition(".")[2].removesuffix("_proj")
            value = values[f"blk.{layer}.ffn_{matrix}_exps.weight"]
        else:
            theirs = gguf._final_name(next(iter(gguf.places([name], shape))), table)
            value = values[theirs]
        value = torch.from_numpy(np.array(value))
        for part, heads in (("q_proj", shape.heads), ("k_proj", shape.kv_heads)):
            if part in name and not shape.qk_norm and not shape.qkv_bias:
                rows = value.shape[0]
                value = (value.reshape(heads, rows // heads // 2, 2, *value.shape[1:])
                         .swapaxes(1, 2).reshape(value.shape))
        parameter.copy_(value.reshape(parameter.shape))
    return model


def test_f32_file_holds_the_very_model(saved, tmp_path):
    name, shape, model, folder = saved
    written = gguf.write(folder, tmp_path / "m.gguf", "f32")
    reader, values = read(written.path)
    assert written.bytes == written.path.stat().st_size
    assert field(reader, "general.architecture") == {"llama3": "llama", "mixtral": "llama"}.get(
        name, name)
    tokens = torch.randint(0, 259, (2, 20), generator=torch.Generator().manual_seed(1))
    back = restored(values, shape)
    with torch.no_grad():
        assert torch.equal(back.logits(back(tokens)), model.logits(model(tokens)))


def test_keys_say_the_shape(saved, tmp_path):
    name, shape, _, folder = saved
    reader, values = read(gguf.write(folder, tmp_path / "m.gguf", "q8_0").path)
    arch = field(reader, "general.architecture")
    said = {"block_count": shape.layers, "embedding_length": 64, "attention.head_count": 4,
            "attention.head_count_kv": 2, "attention.key_length": 16, "context_length": 96,
            "rope.dimension_count": 16}
    assert {key: field(reader, f"{arch}.{key}") for key in said} == said
    assert field(reader, f"{arch}.rope.freq_base") == pytest.approx(shape.rope_theta)
    assert field(reader, f"{arch}.attention.layer_norm_rms_epsilon") == pytest.approx(1e-6)
    assert field(reader, f"{arch}.expert_count") == (3 if shape.experts else None)
    assert field(reader, f"{arch}.feed_forward_length") == (32 if name == "mixtral" else 96)
    assert ("output.weight" in values) == (not shape.tied_embeddings)
    assert ("rope_freqs.weight" in values) == (name == "llama3")


@pytest.mark.parametrize("kind", gguf.TYPES)
def test_each_type_keeps_its_promise(tmp_path, kind):
    shape = SHAPES["qwen3moe"]
    model = random_model(shape)
    folder = save(model, shape, tmp_path)
    exact, close = (read(gguf.write(folder, tmp_path / "m.gguf", one).path)
                    for one in ("f32", kind))
    assert [t.name for t in exact[0].tensors] == [t.name for t in close[0].tensors]
    levels = {"q8_0": 254, "q5_1": 31, "q5_0": 31, "q4_1": 15, "q4_0": 15}
    for tensor in close[0].tensors:
        want, got = exact[1][tensor.name], close[1][tensor.name]
        assert want.shape == got.shape
        if want.ndim == 1 or "gate_inp" in tensor.name:
            assert tensor.tensor_type.name == "F32" and np.array_equal(want, got)
        elif kind in levels:
            # a block of 32 spans twice its largest weight; half a level is off at most, but the
            # end that the scale has no level for (one level), and the scale itself is an f16
            asked = tensor.tensor_type.name.lower()
            assert asked == ("q8_0" if tensor.name in ("token_embd.weight", "output.weight")
                             else kind)
            largest = np.abs(want).reshape(-1, 32).max(1)
            off = np.abs(want - got).reshape(-1, 32).max(1)
            assert (off <= largest * (2.1 / levels[asked] + 2e-3)).all()
        else:
            assert np.allclose(want, got, rtol={"f32": 0, "f16": 1e-3, "bf16": 4e-3}[kind],
                               atol=1e-7)


def test_tokenizer_and_template(tmp_path):
    made = tokenizer()
    folder = save(random_model(SHAPE), SHAPE, tmp_path, made)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | {"chat_template": "{{ messages[0].content }}"}))
    reader, _ = read(gguf.write(folder, tmp_path / "m.gguf", "bf16").path)
    tokens = field(reader, "tokenizer.ggml.tokens")
    assert len(tokens) == 272 and tokens[:259] == [made.id_to_token(i) for i in range(259)]
    types = field(reader, "tokenizer.ggml.token_type")
    assert types[259:262] == [kit.TokenType.CONTROL, kit.TokenType.USER_DEFINED,
                              kit.TokenType.UNUSED]
    assert field(reader, "tokenizer.ggml.merges") == ["a t", "t h", "th e"]
    assert field(reader, "tokenizer.ggml.pre") == "gpt-2"
    assert field(reader, "tokenizer.ggml.eos_token_id") == 259
    assert field(reader, "tokenizer.ggml.add_bos_token") is False
    assert field(reader, "tokenizer.chat_template") == "{{ messages[0].content }}"


def test_a_beginning_that_is_always_added_is_said(tmp_path):
    made = tokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 259)])
    folder = save(random_model(SHAPE), SHAPE, tmp_path, made)
    reader, _ = read(gguf.write(folder, tmp_path / "m.gguf", "bf16").path)
    assert field(reader, "tokenizer.ggml.add_bos_token") is True


def split_by(expression):
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated",
         "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}]}}


@pytest.mark.parametrize(("content", "rule"), [
    (split_by(QWEN2), "qwen2"), (split_by(QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")), "llama-bpe"),
    ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}, "gpt-2"),
    ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": True},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]}}, "smollm")])
def test_rules_by_the_expression(content, rule):
    assert rule_of(content) == rule


@pytest.mark.parametrize("content", [
    split_by(QWEN2 + "|x"), split_by(QWEN2.replace(r"\p{N}|", r"\p{N}{1,2}|")), {},
    {"pre_tokenizer": {"type": "Metaspace"}},
    {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True}},
    {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}}])
def test_a_rule_that_nobody_knows_is_refused_with_what_to_do(content):
    with pytest.raises(InputError, match="convert_hf_to_gguf"):
        rule_of(content)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40))
def test_near_misses_of_an_expression_are_never_guessed(more):
    if more:
        with pytest.raises(InputError):
            rule_of(split_by(QWEN2 + more))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
def test_interleaving_moves_halves_beside_each_other(heads, pairs, width):
    rows = heads * pairs * 2
    weight = torch.arange(rows * width).reshape(rows, width)
    moved = gguf.interleaved(weight, heads)
    for head in range(heads):
        block, old = moved[head * 2 * pairs:], weight[head * 2 * pairs:]
        for pair in range(pairs):
            assert torch.equal(block[2 * pair], old[pair])
            assert torch.equal(block[2 * pair + 1], old[pair + pairs])


def changed(folder, file, change):
    path = folder / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(("change", "error", "word"), [
    (lambda t: t["model"].update(type="Unigram"), InputError, "Unigram"),
    (lambda t: t["model"].update(byte_fallback=True), InputError, "byte_fallback"),
    (lambda t: t.update(normalizer={"type": "Lowercase"}), InputError, "changed before"),
    (lambda t: t["model"]["vocab"].update(far=5000), DamagedFile, "5000"),
    (lambda t: t["model"].update(vocab=[]), DamagedFile, "no table"),
    (lambda t: t.update(added_tokens=[{"id": 1}]), DamagedFile, "no content"),
    (lambda t: t["model"].update(merges=[[1, 2, 3]]), DamagedFile, "cannot be read")])
def test_tokenizers_that_cannot_be_said(tmp_path, change, error, word):
    folder = save(random_model(SHAPE), SHAPE, tmp_path)
    changed(folder, "tokenizer.json", change)
    with pytest.raises(error, match=word):
        gguf.write(folder, tmp_path / "m.gguf")
    assert not list(tmp_path.glob("*.gguf")) and not list(tmp_path.glob(".*.tmp"))


def test_what_cannot_be_written(tmp_path, monkeypatch):
    folder = save(random_model(SHAPE), SHAPE, tmp_path)
    with pytest.raises(UnknownName, match="q8_0"):
        gguf.write(folder, tmp_path / "m.gguf", "q8_1")
    with pytest.raises(InputError, match="cannot be written"):
        gguf.write(folder, tmp_path / "nowhere" / "m.gguf")
    changed(folder, "config.json", lambda c: c.update(intermediate_size=100))
    with pytest.raises(DamagedFile, match="has shape"):
        gguf.write(folder, tmp_path / "m.gguf")
    own = replace(SHAPE, **EXPERTS, shared_experts=1)
    with pytest.raises(InputError, match="no architecture"):
        gguf.write(save(random_model(own), own, tmp_path / "own"), tmp_path / "m.gguf")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(MissingExtra, match=r"curbcut\[gguf\]"):
        gguf.write(folder, tmp_path / "m.gguf")


def test_overflow_of_f16_is_named_and_the_old_file_stays(tmp_path):
    model = random_model(SHAPE)
    with torch.no_grad():
        model.model.embed_tokens.weight[0, 0] = 1e6
    folder = save(model, SHAPE, tmp_path)
    (tmp_path / "m.gguf").write_text("old")
    with pytest.raises(InputError, match="f16 cannot hold"):
        gguf.write(folder, tmp_path / "m.gguf", "f16")
    assert (tmp_path / "m.gguf").read_text() == "old"


def test_rows_that_are_no_blocks_stay_f16(tmp_path):
    shape = replace(SHAPE, ffn=80)
    written = gguf.write(save(random_model(shape), shape, tmp_path), tmp_path / "m.gguf", "q4_0")
    assert written.widened == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")


def test_same_model_same_bytes(tmp_path):
    folder = save(random_model(SHAPE), SHAPE, tmp_path)
    one, two = (gguf.write(folder, tmp_path / f"{i}.gguf", "q5_0").path.read_bytes() for i in "ab")
    assert one == two


def test_stretched_rates_are_those_of_the_decoder():
    factors = gguf_keys.rope_factors(SHAPES["llama3"])
    assert factors[0] == 1 and factors[-1] == 4 and (np.diff(factors) >= 0).all()
    assert gguf_keys.rope_factors(SHAPE) is None


def taught(shape):
    """A decoder that knows one sentence by heart: sure enough of itself for four bits."""
    torch.manual_seed(0)
    model = Decoder(shape)
    ids = torch.tensor([tokenizer().encode(SENTENCE * 3).ids])
    optimiser = torch.optim.AdamW(model.parameters(), 4e-3)
    for _ in range(500):
        scores = model.logits(model(ids[:, :-1]))
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), ids[0, 1:])
        if loss < 0.02:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


def greedy(model, prompt, tokens):
    ids = tokenizer().encode(prompt).ids
    with torch.no_grad():
        for _ in range(tokens):
            ids.append(int(model.logits(model(torch.tensor([ids])))[0, -1].argmax()))
    return tokenizer().decode(ids)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_llama_cpp_says_the_same(name, tmp_path):
    llama_program.program()
    shape = SHAPES[name]
    model = taught(shape)
    folder = save(model, shape, tmp_path)
    assert SENTENCE[11:25] in greedy(model, "the cat sat", 30)
    for kind in ("f32", "bf16", "q8_0", "q4_0"):
        file = gguf.write(folder, tmp_path / f"{kind}.gguf", kind).path
        with torch.no_grad():
            want = greedy(restored(read(file)[1], shape), "the cat sat", 30)
        assert llama_program.complete(file, "the cat sat", 30).strip() == want.strip(), kind

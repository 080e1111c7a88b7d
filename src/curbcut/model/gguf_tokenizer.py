"""A `tokenizer.json` as GGUF holds it: tokens, types, merges, and which rule splits text.

llama.cpp does not read the expression that splits text into pieces; it knows some by name
(`tokenizer.ggml.pre`). The name is therefore chosen by the expression itself, never by guess: an
expression that is not in `_RULES` is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curbcut.errors import DamagedFile, InputError
from curbcut.model.weights import read_json

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Types of tokens, as `gguf.TokenType` numbers them."""
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CASED = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s|%s| ?"
          r"[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_RULES = {
    _GPT2: "gpt-2",
    _CONTRACTIONS + _WORD + r"|\p{N}" + _TAIL: "qwen2",
    _CONTRACTIONS + _WORD + r"|\p{N}{1,3}" + _TAIL: "llama-bpe",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+": "qwen35",
    _CASED % ("", "", r"\p{N}"): "tekken",
    _CASED % (_CONTRACTIONS + "?", _CONTRACTIONS + "?", r"\p{N}{1,3}"): "gpt-4o",
}
"""What a tokenizer splits text by, and llama.cpp's name of it (`llama-vocab.cpp` has both)."""
_ELSEWHERE = "convert the folder with llama.cpp's own convert_hf_to_gguf.py"


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a byte-level BPE tokenizer."""

    tokens: list[str]
    """[vocab] names of tokens, in the alphabet of byte-level BPE."""
    types: list[int]
    """[vocab] type of each."""
    rule: str
    """Name of the rule that splits text (`tokenizer.ggml.pre`)."""


def vocabulary(folder: Path, size: int) -> Vocabulary:
    """The vocabulary of a folder's `tokenizer.json`, filled up to `size` rows of the embedding.

    Raises InputError for a tokenizer that llama.cpp would read in another way, DamagedFile for one
    that contradicts itself or has more tokens than the model has rows.
    """
    file = folder / "tokenizer.json"
    content = read_json(file)
    where = str(file)
    _check_model(content, where)
    rule = rule_of(content, where)
    names: dict[int, tuple[str, int]] = {}
    for name, number in _table(content["model"], "vocab", where).items():
        names[_id(number, size, where)] = (name, NORMAL)
    for token in content.get("added_tokens") or []:
        if not isinstance(token, Mapping) or not isinstance(token.get("content"), str):
            raise DamagedFile(f"added token {token!r} has no content", where=where,
                              mend="copy the tokenizer again")
        kind = CONTROL if token.get("special") else USER_DEFINED
        names[_id(token.get("id"), size, where)] = (token["content"], kind)
    filled = [names.get(number, (f"[PAD{number}]", UNUSED)) for number in range(size)]
    return Vocabulary([name for name, _ in filled], [kind for _, kind in filled], rule)


def rule_of(content: Mapping[str, Any], where: str = "tokenizer.json") -> str:
    """llama.cpp's name of the way in which a parsed `tokenizer.json` splits text.

    Raises InputError where it is none that is known to be the same.
    """
    steps = _steps(content.get("pre_tokenizer"))
    kinds = [step.get("type") for step in steps]
    if steps and kinds[-1] == "ByteLevel" and not any(step.get("add_prefix_space")
                                                      for step in steps):
        if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
            return "gpt-2"
        if (kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits")
                and steps[1].get("use_regex", True)):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
            said = (steps[0].get("pattern") or {}).get("Regex")
            whole = steps[0].get("behavior") == "Isolated" and not steps[0].get("invert")
            if whole and said in _RULES:
                return _RULES[said]
    raise InputError(f"text is split by {_short(content.get('pre_tokenizer'))}, for which llama.cpp"
                     " has no rule that is known here", where=where, mend=f"{_ELSEWHERE}, or train "
                     "with a tokenizer that splits as GPT-2, Llama 3 or Qwen2 does (`curbcut data` "
                     "makes GPT-2's)")


def _steps(said: Any) -> list[Mapping[str, Any]]:
    """The steps of a pre-tokenizer, a sequence taken apart."""
    if not isinstance(said, Mapping):
        return []
    inner = said.get("pretokenizers") if said.get("type") == "Sequence" else [said]
    return [step for step in inner or [] if isinstance(step, Mapping)]


def _check_model(content: Mapping[str, Any], where: str) -> None:
    """Raises InputError for whatever is not byte-level BPE over text as it is."""
    model = content.get("model")
    if not isinstance(model, Mapping) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, Mapping) else model
        raise InputError(f"this is a {kind!r} tokenizer, and only byte-level BPE is exported",
                         where=where, mend=_ELSEWHERE)
    for key in ("byte_fallback", "continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise InputError(f"model.{key} = {model[key]!r} is not byte-level BPE", where=where,
                             mend=_ELSEWHERE)
    normaliser = content.get("normalizer")
    # NFC is what Qwen's tokenizers say; llama.cpp leaves text as it is, which differs only for
    # text that is not composed already.
    if normaliser is not None and (normaliser or {}).get("type") != "NFC":
        raise InputError(f"text is changed before it is split ({_short(normaliser)})",
                         where=where, mend=_ELSEWHERE)


def _table(content: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    found = content.get(key)
    if not isinstance(found, Mapping) or not found:
        raise DamagedFile(f"model.{key} is no table", where=where, mend="copy the tokenizer again")
    return found


def _id(number: Any, size: int, where: str) -> int:
    if type(number) is not int or not 0 <= number < size:
        raise DamagedFile(f"token number {number!r} is outside the model's {size} rows",
                          where=where, mend="use the tokenizer that belongs to these weights")
    return number


def _short(said: Any) -> str:
    text = str(said)
    return text if len(text) <= 160 else text[:157] + "..."

"""Log-probabilities in OpenAI's two shapes."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curbcut.serve.engine.interface import TokenOdds
from curbcut.serve.engine.text import Vocabulary

_LEAST = -9999.0
"""What OpenAI writes for a token that cannot come: JSON has no infinity."""


@dataclass
class Spelling:
    """Tokens as texts, for one answer after the other."""

    vocabulary: Vocabulary | None
    as_ids: bool = False
    """Whether a token is named by its number."""

    def bytes_of(self, token: int) -> bytes:
        """UTF-8 of a token, maybe a part of a character."""
        if self.vocabulary is None:
            return b""
        found = self.vocabulary.bytes_of(token)
        return self.vocabulary.decode([token], special=True).encode() if found is None else found

    def text_of(self, token: int) -> str:
        """A token's text; where it is no whole character, its bytes written out."""
        if self.as_ids:
            return f"token_id:{token}"
        raw = self.bytes_of(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def chat(self, odds: Iterable[TokenOdds],
             spelt: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The shape of chats; `spelt` are tokens that an engine elsewhere has spelt itself."""
        return {"content": [self._one(o.token, o.logprob) | {"top_logprobs": [
            self._one(token, logprob) for token, logprob in o.top]} for o in odds] + [
            {key: value for key, value in one.items() if key != "offset"} for one in spelt],
            "refusal": None}

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self.text_of(token), "logprob": max(logprob, _LEAST),
                "bytes": list(self.bytes_of(token))}

    def prompt(self, odds: Sequence[TokenOdds | None]) -> list[dict[str, Any] | None]:
        """The shape of vLLM's `prompt_logprobs`: for each token of the prompt its own and the
        likeliest ones', by token; the first token has none.
        """
        return [None if o is None else {
            str(token): {"logprob": max(logprob, _LEAST), "decoded_token":
                         self.text_of(token) if self.vocabulary else None}
            for token, logprob in dict([*o.top, (o.token, o.logprob)]).items()} for o in odds]


@dataclass
class Legacy:
    """The shape of completions, which counts where in the answer each token begins."""

    spelling: Spelling
    _offset: int = 0
    _characters: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def add(self, odds: Iterable[TokenOdds | None], tokens: Sequence[int] = (),
            spelt: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Some more tokens; one without odds (the first of a prompt) is told by `tokens`, and
        `spelt` are those that an engine elsewhere has spelt itself.
        """
        shown: dict[str, list[Any]] = {"text_offset": [], "token_logprobs": [], "tokens": [],
                                       "top_logprobs": []}
        for place, o in enumerate(odds):
            token = tokens[place] if o is None else o.token
            shown["tokens"].append(self.spelling.text_of(token))
            shown["text_offset"].append(self._offset)
            shown["token_logprobs"].append(None if o is None else max(o.logprob, _LEAST))
            shown["top_logprobs"].append(None if o is None else {
                self.spelling.text_of(token): max(logprob, _LEAST)
                for token, logprob in (o.top or ((o.token, o.logprob),))})
            self._offset += len(self._characters.decode(self.spelling.bytes_of(token)))
        for one in spelt:
            shown["tokens"].append(one["token"])
            shown["text_offset"].append(one.get("offset", self._offset))
            shown["token_logprobs"].append(one["logprob"])
            shown["top_logprobs"].append({top["token"]: top["logprob"] for top in
                                          one["top_logprobs"]} or None)
            self._offset += len(self._characters.decode(bytes(one["bytes"])))
        return shown

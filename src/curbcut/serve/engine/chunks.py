"""From what an OpenAI-compatible server streams to deltas: text, tokens, odds, usage, the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from curbcut.serve.engine.interface import Delta, Finish, TokenOdds
from curbcut.serve.engine.text import Vocabulary

_FINISH: Mapping[str, Finish] = {"stop": "stop", "length": "length", "tool_calls": "stop",
                                 "function_call": "stop", "content_filter": "stop",
                                 "abort": "cancelled", "error": "failed"}


@dataclass
class Reading:
    """One answer as it comes in. Counts are the server's where it tells them, else estimates."""

    vocabulary: Vocabulary | None
    prompt_tokens: int = 0
    tokens: int = 0
    cached_tokens: int = 0
    finish: Finish | None = None
    stopped_by: str | int | None = None
    counted: bool = False
    """Whether the server told the counts."""
    _reason: str = ""
    _text: list[str] = field(default_factory=list)
    _ids: int = 0

    def take(self, chunk: Mapping[str, Any]) -> Delta | None:
        """What is new in one chunk, or in a whole response; None where nothing is."""
        self._take_usage(chunk.get("usage"))
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
            return None
        choice = choices[0]
        said = choice.get("delta") or choice.get("message") or {}
        text = _sound(choice.get("text") or said.get("content") or "")
        ids = tuple(one for one in choice.get("token_ids") or () if isinstance(one, int))
        if reason := choice.get("finish_reason"):
            self._reason, self.finish = str(reason), _FINISH.get(str(reason), "stop")
            self.stopped_by = choice.get("stop_reason")
        more = {key: value for key, value in said.items()
                if key not in ("role", "content") and value}
        odds = self._odds(choice.get("logprobs"), more)
        prompt_odds = _of_prompt(choice.get("prompt_logprobs"), choice.get("prompt_token_ids"))
        if text:
            self._text.append(text)
        self._ids += len(ids)
        if not self.counted:
            self.tokens += len(ids) or int(bool(text))
        if not (text or ids or odds or more or prompt_odds):
            return None
        return Delta(text, self.tokens, ids=ids, odds=odds, prompt_odds=prompt_odds, extra=more,
                     cached_tokens=self.cached_tokens, prompt_tokens=self.prompt_tokens)

    def end(self, finish: Finish | None = None, why: str = "", status: int = 0,
            code: str = "") -> Delta:
        """The last delta; `finish` where it was not the server that ended the answer, `why`, with
        which status of HTTP and by which name of the error.
        """
        if not self.counted and not self._ids and self.vocabulary is not None and self._text:
            self.tokens = max(len(self.vocabulary.encode("".join(self._text))), 1)
        extra: dict[str, Any] = {} if self.counted or self._ids else {"estimated": True}
        if self._reason in ("tool_calls", "function_call", "content_filter"):
            extra["finish_reason"] = self._reason
        if why:
            extra |= {"reason": why, "status": status} | ({"code": code} if code else {})
        found = finish or self.finish or "failed"
        return Delta("", self.tokens, found, cached_tokens=self.cached_tokens,
                     prompt_tokens=self.prompt_tokens, extra=extra,
                     stopped_by=self.stopped_by if found == "stop" else None)

    def _take_usage(self, usage: Any) -> None:
        if not isinstance(usage, Mapping):
            return
        told = usage.get("completion_tokens")
        if isinstance(told, int) and isinstance(usage.get("prompt_tokens"), int):
            self.counted, self.tokens, self.prompt_tokens = True, told, usage["prompt_tokens"]
        details = usage.get("prompt_tokens_details")
        if isinstance(details, Mapping) and isinstance(details.get("cached_tokens"), int):
            self.cached_tokens = details["cached_tokens"]

    def _odds(self, told: Any, more: dict[str, Any]) -> tuple[TokenOdds, ...]:
        """Log-probabilities in either of OpenAI's two shapes; where tokens have no numbers here,
        `more` gets them as they are spelt there.
        """
        if not isinstance(told, Mapping):
            return ()
        rows = _rows(told)
        found = [] if self.vocabulary is None else [
            TokenOdds(self._token(one), float(one.get("logprob") or 0.0),
                      tuple((self._token(other), float(other.get("logprob") or 0.0))
                            for other in top)) for one, top in rows]
        if self.vocabulary is None or any(
                one.token < 0 or any(token < 0 for token, _ in one.top) for one in found):
            more["logprobs"] = [_spelt(one) | {"top_logprobs": [_spelt(other) for other in top]}
                                for one, top in rows]
            return ()
        return tuple(found)

    def _token(self, told: Mapping[str, Any]) -> int:
        """The number of a token, or -1."""
        if isinstance(told.get("id"), int):
            return int(told["id"])
        text = str(told.get("token", ""))
        if text.startswith("token_id:") and text[9:].isdigit():
            return int(text[9:])
        known = self.vocabulary.encode(text) if self.vocabulary is not None and text else []
        return known[0] if len(known) == 1 else -1


def _rows(told: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], Sequence[Any]]]:
    """Each token and the likeliest ones in its place, from either shape."""
    content = told.get("content")
    if isinstance(content, list):
        return [(one, one.get("top_logprobs") or ()) for one in content]
    alone = zip(told.get("tokens") or (), told.get("token_logprobs") or (), strict=False)
    tops, offsets = told.get("top_logprobs") or (), told.get("text_offset") or ()
    return [({"token": token, "logprob": odd} | (
        {"offset": offsets[place]} if place < len(offsets) else {}),
             [{"token": name, "logprob": value} for name, value in
              (tops[place] or {}).items()] if place < len(tops) else ())
            for place, (token, odd) in enumerate(alone)]


def _spelt(one: Mapping[str, Any]) -> dict[str, Any]:
    """A token as it is spelt there, in the shape of chats; `offset` where it was told."""
    text, raw, odd = _sound(one.get("token", "")), one.get("bytes"), one.get("logprob")
    spelt = {"token": text, "logprob": None if odd is None else float(odd),
             "bytes": [int(byte) for byte in raw] if isinstance(raw, list)
             else list(text.encode())}
    return spelt | ({"offset": int(one["offset"])} if "offset" in one else {})


def _sound(text: Any) -> str:
    """Text without halves of surrogate pairs, which JSON may hold and nobody can write."""
    return str(text).encode(errors="replace").decode()


def _of_prompt(told: Any, prompt: Any) -> tuple[TokenOdds | None, ...]:
    """vLLM's log-probabilities of a prompt: for each token what was likely there, by number."""
    if not isinstance(told, list) or not isinstance(prompt, Sequence):
        return ()
    found: list[TokenOdds | None] = []
    for token, row in zip(prompt, told, strict=False):
        if not isinstance(row, Mapping):
            found.append(None)
            continue
        odds = {int(name): float(one["logprob"]) for name, one in row.items()}
        best = sorted(odds.items(), key=lambda one: -one[1])
        found.append(TokenOdds(int(token), odds.get(token, 0.0), tuple(best)))
    return tuple(found)

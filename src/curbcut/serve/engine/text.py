"""Text and tokens: the tokenizer of a model's folder, and answers decoded piece by piece."""

from __future__ import annotations

import codecs
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

from curbcut.errors import DamagedFile, InputError

BROKEN = "\ufffd"
"""What a decoder writes for bytes that are no character (yet)."""


Characters = Callable[["int | None"], str]
"""Whole characters that one more token gives; None for the end of the answer."""


class Decodes(Protocol):
    """The part of a tokenizer that `TextStream` needs."""

    def decode(self, ids: list[int], special: bool = False) -> str:
        """Text of tokens; special ones have one only where `special`."""
        ...

    def characters(self, special: bool) -> Characters | None:
        """A faster way to whole characters of one answer, where the tokenizer has one."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """A model's tokenizer with its special tokens and chat template."""

    tokenizer: Any
    """A `tokenizers.Tokenizer`."""
    end_tokens: frozenset[int]
    """Tokens that end an answer."""
    settings: Mapping[str, Any]
    """tokenizer_config.json."""
    chat_template: str | None
    """Jinja source, where the model has one."""
    _bytes: dict[int, bytes] = field(default_factory=dict, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Tokens known, added ones included."""
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str, *, special: bool = False, around: bool = True) -> list[int]:
        """Tokens of `text`, with what the tokenizer itself puts `around` it.

        Text that spells a special token ("<|im_end|>") is that token only where `special`: text
        that a person wrote never is. Raises ValueError for text with half a surrogate pair.
        """
        text.encode()
        with self._lock:  # how special tokens are read is a setting of the whole tokenizer
            if self.tokenizer.encode_special_tokens == special:
                self.tokenizer.encode_special_tokens = not special
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=around).ids
        return ids

    def decode(self, ids: list[int], special: bool = False) -> str:
        """Text of tokens; special tokens have one only where `special`."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=not special)
        return text

    def bytes_of(self, token: int, special: bool = True) -> bytes | None:
        """What one token stands for in UTF-8, maybe a part of a character; None where that
        depends on its neighbours (a tokenizer that does not work on bytes).
        """
        if not self._on_bytes:
            return None
        if not special and token in self._specials:
            return b""
        found = self._bytes.get(token)
        if found is None:
            name = self.tokenizer.id_to_token(token) or ""
            table = _byte_letters()
            known = all(letter in table for letter in name)
            found = bytes(table[letter] for letter in name) if known else name.encode()
            self._bytes[token] = found
        return found

    def characters(self, special: bool) -> Characters | None:
        """See `Decodes.characters`: bytes are joined to characters, nothing is decoded twice."""
        if not self._on_bytes:
            return None
        decoder = codecs.getincrementaldecoder("utf-8")("replace")

        def characters(token: int | None) -> str:
            if token is None:
                return decoder.decode(b"", final=True)
            return decoder.decode(self.bytes_of(token, special) or b"")
        return characters

    @cached_property
    def _on_bytes(self) -> bool:
        decoder = self.tokenizer.decoder
        return decoder is not None and json.loads(decoder.__getstate__())["type"] == "ByteLevel"

    @cached_property
    def _specials(self) -> frozenset[int]:
        return frozenset(token for token, how in self.tokenizer.get_added_tokens_decoder().items()
                         if how.special)


@cache
def _byte_letters() -> Mapping[str, int]:
    """The letter that stands for each byte in the names of byte-level tokens (GPT-2): printable
    ones for themselves, the others for those from 256 on.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1),
             *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{chr(byte): byte for byte in plain},
            **{chr(256 + place): byte for place, byte in enumerate(others)}}


def load(folder: Path) -> Vocabulary:
    """Reads tokenizer.json and what lies beside it.

    Raises InputError where there is no tokenizer, DamagedFile where one cannot be read.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.exists():
        raise InputError("no tokenizer.json here", where=str(folder),
                         mend="give the folder of a model, as `curbcut train` writes it")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise DamagedFile(f"is not a readable tokenizer ({error})", where=str(path),
                          mend="copy the model again") from None
    settings = _optional_json(folder / "tokenizer_config.json")
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        given = _optional_json(folder / name).get("eos_token_id")
        ends |= {i for i in (given if isinstance(given, list) else [given]) if isinstance(i, int)}
    return Vocabulary(tokenizer, frozenset(ends), settings, _template(folder, settings))


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    given = settings.get("chat_template")
    if isinstance(given, list):
        named = {str(t.get("name")): t.get("template") for t in given if isinstance(t, dict)}
        given = named.get("default")
    return given if isinstance(given, str) else None


def _optional_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DamagedFile(f"is not valid JSON ({error})", where=str(path),
                          mend="copy the model again") from None
    return content if isinstance(content, dict) else {}


class TextStream:
    """Decodes one answer token by token; pieces joined are the whole answer decoded at once.

    A character may span tokens, so text that ends in broken bytes is held back. So is text that
    may turn out to be the beginning of a stop text; that text itself is handed out only with
    `include_stop`. `special` gives special tokens their text.
    """

    def __init__(self, vocabulary: Decodes, stop: tuple[str, ...] = (), *,
                 include_stop: bool = False, special: bool = False) -> None:
        self._stop, self._include = stop, include_stop
        self._characters = (vocabulary.characters(special) or
                            _Window(vocabulary, special).characters)
        self._held = ""     # decoded, not handed out
        self.stopped: str | None = None
        """The stop text that was met."""

    def add(self, token: int, *, may_stop: bool = True) -> str:
        """The text that can be handed out after one more token; sets `stopped` at a stop text.

        Without `may_stop`, what this token says begins no stop text.
        """
        if self.stopped is not None:
            return ""
        if not self._stop:
            return self._characters(token)
        self._held += self._characters(token)
        if not may_stop:
            text, self._held = self._held, ""
            return text
        return self._hand_out(final=False)

    def finish(self) -> str:
        """What was held back, when no more tokens come."""
        if self.stopped is not None:
            return ""
        self._held += self._characters(None)
        return self._hand_out(final=True)

    def _hand_out(self, final: bool) -> str:
        found = [(start + len(stop), start, stop) for stop in self._stop
                 if (start := self._held.find(stop)) >= 0]
        if found:  # the first to be complete, so that borders of tokens change nothing
            end, start, self.stopped = min(found)
            text, self._held = self._held[: end if self._include else start], ""
            return text
        cut = len(self._held) - (0 if final else self._possible_stop())
        text, self._held = self._held[:cut], self._held[cut:]
        return text

    def _possible_stop(self) -> int:
        """Length of the longest end of the held text that some stop text begins with."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest


class _Window:
    """Characters from any tokenizer: the last few tokens are decoded with and without the new
    one, since what a token says may depend on the one before it.
    """

    def __init__(self, vocabulary: Decodes, special: bool) -> None:
        self._vocabulary, self._special = vocabulary, special
        self._tokens: list[int] = []    # the last whole group, then tokens not decoded yet
        self._whole = 0                 # how many tokens the group has
        self._before = ""               # its text

    def characters(self, token: int | None) -> str:
        """Whole characters that one more token gives; None for the end, where broken bytes are
        given as they are.
        """
        if token is not None:
            self._tokens.append(token)
        elif len(self._tokens) == self._whole:
            return ""
        after = self._vocabulary.decode(self._tokens, self._special)
        if after.endswith(BROKEN) and token is not None:
            return ""
        text = after[len(self._before):]
        self._tokens = self._tokens[self._whole:]
        self._whole = len(self._tokens)
        self._before = self._vocabulary.decode(self._tokens, self._special)
        return text

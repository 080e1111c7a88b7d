"""What is asked: how long prompts and answers are, and prompts of just these lengths.

Everything is a function of the seed and of a request's number, so that two servers are asked the
same, in whatever order their answers come back.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from curbcut.errors import InputError
from curbcut.units import show

MOST_TOKENS = 10_000_000
_FORM = re.compile(r"(?P<first>\d+)(?:\.\.(?P<most>\d+)|~(?P<sigma>\d+(?:\.\d+)?))?")
_FIELDS = {"prompt_tokens": ("prompt_tokens", "input_length", "ContextTokens"),
           "output_tokens": ("output_tokens", "output_length", "GeneratedTokens")}
"""Names in traces of requests: ours, those of Mooncake's and of Azure's published ones."""
_TEXT = """the of and to in is that for it as was with be by on not he his but at are this have
from or had an they which one you were all her she there would their we him been has when who will
no more if out so up said what its about than into them can only other time new some could these
two may first then do any like my now over such our man me even most made after also well did many
before must years back through much where your way down should because long each just state people
those too make how"""
WORDS = tuple(_TEXT.split())
"""Common words, each a token or two with most tokenizers."""


@dataclass(frozen=True)
class Lengths:
    """So many tokens: `least` of them always, or evenly from `least` to `most`, or with `sigma`
    spread as a lognormal distribution whose median is `least`.
    """

    least: int
    most: int = 0
    sigma: float = 0.0

    def draw(self, source: Random) -> int:
        """One length, at least 1."""
        if self.most:
            return source.randint(self.least, self.most)
        if self.sigma:
            return max(1, min(MOST_TOKENS, round(source.lognormvariate(math.log(self.least),
                                                                       self.sigma))))
        return self.least

    @property
    def mean(self) -> float:
        """Mean of the distribution."""
        if self.most:
            return (self.least + self.most) / 2
        return self.least * math.exp(self.sigma**2 / 2)

    def __str__(self) -> str:
        if self.most:
            return f"{self.least}..{self.most}"
        return f"{self.least}~{self.sigma:g}" if self.sigma else str(self.least)


@dataclass(frozen=True)
class Question:
    """One request: tokens or text of its prompt, the length of its answer, and where a trace says
    it, when it is asked, in seconds after the first.
    """

    prompt: tuple[int, ...] | str
    output_tokens: int
    seconds: float | None = None


@dataclass(frozen=True)
class Asking:
    """All requests that could be asked, by number."""

    seed: int
    prompt: Lengths
    output: Lengths
    shared: float = 0.0
    """Share of each prompt, from its beginning, that all prompts have."""
    pool: Sequence[int] = ()
    """Tokens that prompts are drawn from; none for text."""
    words_a_token: float = 1.0
    """Where prompts are text: words for a token."""
    trace: tuple[tuple[int, int, float | None], ...] = ()
    """Prompt tokens, output tokens and seconds of requests, in place of the lengths; after its
    last one it begins again, without seconds."""

    def question(self, number: int, part: str = "") -> Question:
        """The request of this number, from 0, of a part of the bench: no part asks another's
        prompts again, which a cache of prompts would know.
        """
        source = Random(f"{self.seed}/{part}/{number}")
        count, output, seconds = self.prompt.draw(source), self.output.draw(source), None
        if self.trace:
            count, output, seconds = self.trace[number % len(self.trace)]
            seconds = seconds if number < len(self.trace) else None
        common = round(self.shared * count)
        if self.pool:
            known = Random(f"{self.seed}/shared").choices(self.pool, k=common)
            return Question((*known, *source.choices(self.pool, k=count - common)), output, seconds)
        words = max(1, round(count * self.words_a_token))
        common = round(self.shared * words)
        known_words = Random(f"{self.seed}/shared").choices(WORDS, k=common)
        return Question(" ".join((*known_words, *source.choices(WORDS, k=words - common))), output,
                        seconds)

    @property
    def mean_tokens(self) -> tuple[float, float]:
        """Mean tokens of prompts and answers."""
        if not self.trace:
            return self.prompt.mean, self.output.mean
        return (sum(one[0] for one in self.trace) / len(self.trace),
                sum(one[1] for one in self.trace) / len(self.trace))


def lengths(text: str, where: str) -> Lengths:
    """Reads "128", "64..256" (evenly between) or "128~0.8" (lognormal: median, sigma).

    Raises InputError naming `where`.
    """
    found = _FORM.fullmatch(text.strip().replace(",", ""))
    mend = 'like "128", "64..256" (evenly) or "128~0.8" (lognormal: median and spread)'
    if found is None:
        raise InputError(f"{text!r} is no length in tokens", where=where, mend=mend)
    least, most = int(found["first"]), int(found["most"] or 0)
    if not 1 <= least <= MOST_TOKENS or most > MOST_TOKENS or (found["most"] and most < least):
        raise InputError(f"{text!r} is no length from 1 to {show(MOST_TOKENS, 'count')} tokens",
                         where=where, mend=mend)
    sigma = float(found["sigma"] or 0.0)
    if sigma > 4:
        raise InputError(f"a lognormal spread of {sigma:g} is beyond any traffic", where=where,
                         mend="nearest: 4; traffic of chats has about 1")
    return Lengths(least, most if most > least else 0, sigma)


def read_trace(path: Path) -> tuple[tuple[int, int, float | None], ...]:
    """Requests of a JSONL file: `prompt_tokens`, `output_tokens` and, where it has them, `seconds`
    (or `timestamp` in milliseconds) of each line. Raises InputError.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path),
                         mend="give a JSONL file of requests") from None
    found = [_traced(line, f"{path}:{n + 1}") for n, line in enumerate(lines) if line.strip()]
    if not found:
        raise InputError("has no request", where=str(path), mend="one JSON object a line")
    return tuple(found)


def _traced(line: str, where: str) -> tuple[int, int, float | None]:
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict):
        raise InputError("is no JSON object", where=where,
                         mend='like {"prompt_tokens": 200, "output_tokens": 50, "seconds": 0.5}')
    prompt, output = (_count(plain, name, where) for name in _FIELDS)
    seconds = plain.get("seconds")
    if seconds is None and isinstance(plain.get("timestamp"), int | float):
        seconds = plain["timestamp"] / 1000
    if seconds is not None and not (isinstance(seconds, int | float) and 0 <= seconds < 1e9):
        raise InputError(f"seconds = {seconds!r} is no time after the first request", where=where,
                         mend="seconds from 0 on, rising")
    return prompt, output, seconds


def _count(plain: Mapping[str, Any], name: str, where: str) -> int:
    found = next((plain[key] for key in _FIELDS[name] if key in plain), None)
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= MOST_TOKENS:
        raise InputError(f"{name} = {found!r} is no number of tokens", where=where,
                         mend=f"give {name}, at least 1")
    return found

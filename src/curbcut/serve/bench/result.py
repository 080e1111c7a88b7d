"""From answers to figures: what each request met, and what all of them say together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from curbcut.serve.bench.client import Answer
from curbcut.spec.estimate import Estimate, unknown

PERCENTILES = (50, 90, 95, 99)
Counted = Literal["usage", "tokenizer", "chunks"]
"""Where token counts are from: the server's usage, our tokenizer on its text, its chunks."""


@dataclass(frozen=True)
class Sample:
    """What one request met; seconds from when it was due."""

    due: float
    late: float
    """From when it was due to when the client sent it."""
    ended: float
    error: str = ""
    """Why it has no answer; "" for an answered one, and only such have the figures below."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    counted: Counted = "usage"
    ttft: float = 0.0
    tpot: float | None = None
    """Mean of the answer's later tokens; None for an answer of one token."""
    gaps: tuple[float, ...] = ()
    """Between two pieces of the answer."""

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.ended - self.due


@dataclass(frozen=True)
class Spread:
    """Of figures: their mean, percentiles and largest one."""

    mean: float
    percentiles: Mapping[int, float]
    most: float


@dataclass(frozen=True)
class Objective:
    """What a request has to meet to count as served well; None: anything will do."""

    ttft: float | None = None
    tpot: float | None = None

    def met(self, one: Sample) -> bool:
        """Whether an answered request met it."""
        return (not one.error and (self.ttft is None or one.ttft <= self.ttft)
                and (self.tpot is None or one.tpot is None or one.tpot <= self.tpot))

    def __bool__(self) -> bool:
        return self.ttft is not None or self.tpot is not None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One load, and what came of it."""

    load: str
    """As `load.Load` says it."""
    requests: int
    """Answered ones."""
    errors: Mapping[str, int]
    """How many failed, by why."""
    seconds: float
    """From the first request to the end of the last answer."""
    in_flight: float
    """Mean number of requests under way."""
    busy_seconds: float
    """Of `seconds`, those in which at least one was."""
    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    counted: Counted
    ttft: Spread | None
    tpot: Spread | None
    gaps: Spread | None
    end_to_end: Spread | None
    late: Spread | None
    """How late the client itself was: where this is not small, it was the bottleneck."""
    good: int | None = None
    """Requests that met the objective; None where there is none."""
    joules: Estimate = field(default_factory=lambda: unknown("not looked at"))
    """Over `seconds`."""

    @property
    def requests_per_second(self) -> float:
        """Answered ones."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def goodput(self) -> float | None:
        """Requests a second that met the objective (Zhong et al. 2024, arXiv:2401.09670)."""
        if self.good is None:
            return None
        return self.good / self.seconds if self.seconds else 0.0

    @property
    def input_per_second(self) -> float:
        """Prompt tokens a second, remembered ones included."""
        return self.prompt_tokens / self.seconds if self.seconds else 0.0

    @property
    def output_per_second(self) -> float:
        """Answer tokens a second."""
        return self.answer_tokens / self.seconds if self.seconds else 0.0

    @property
    def joules_per_token(self) -> Estimate:
        """Of all that was drawn, for each answer token."""
        if not self.answer_tokens:
            return unknown("no token was answered")
        return self.joules.scaled(1 / self.answer_tokens)


def sample(answer: Answer, due: float, prompt_tokens: int,
           count: Callable[[str], int] | None) -> Sample:
    """What a request met that was due at `due`.

    Tokens are those of the answer's usage; else `count` counts its text; else its pieces.
    `prompt_tokens` is what was asked, where the server does not say it.
    """
    base = Sample(due, max(0.0, answer.began - due), answer.ended)
    if answer.error or answer.status != 200:
        return Sample(due, base.late, answer.ended, error=answer.error or _said(answer))
    texts: list[str] = []
    times: list[float] = []
    usage: Mapping[str, Any] = {}
    whole = False
    for when, data in answer.events():
        if data == b"[DONE]":
            whole = True
            continue
        event = read_json(data)
        if "error" in event:
            return Sample(due, base.late, answer.ended, error=_message(event))
        usage = event.get("usage") or usage
        if text := _text(event):
            texts.append(text)
            times.append(when)
    if not times:
        return Sample(due, base.late, answer.ended, error="an answer without text" if whole
                      else "a stream without an end")
    counted, tokens = _tokens(usage, "".join(texts), len(times), count)
    details = usage.get("prompt_tokens_details") or {}
    return Sample(
        due, base.late, answer.ended, "", usage.get("prompt_tokens", prompt_tokens),
        details.get("cached_tokens") or 0, tokens, counted, times[0] - due,
        (times[-1] - times[0]) / (tokens - 1) if tokens > 1 else None,
        tuple(b - a for a, b in pairwise(times)))


def _tokens(usage: Mapping[str, Any], text: str, pieces: int,
            count: Callable[[str], int] | None) -> tuple[Counted, int]:
    said = usage.get("completion_tokens")
    if isinstance(said, int):
        return "usage", said
    return ("chunks", pieces) if count is None else ("tokenizer", max(count(text), 1))


def _text(event: Mapping[str, Any]) -> str:
    """What a chunk of a completion or a chat adds, thoughts included."""
    found = ""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        found += (choice.get("text") or delta.get("content") or delta.get("reasoning_content")
                  or delta.get("reasoning") or "")
    return found


def read_json(data: bytes) -> Mapping[str, Any]:
    """A JSON object; empty for anything else."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _said(answer: Answer) -> str:
    """What the server said of a request that it did not answer."""
    return f"{answer.status}: {_message(read_json(answer.body()))}"


def _message(event: Mapping[str, Any]) -> str:
    error = event.get("error", event)
    said = error.get("message") if isinstance(error, dict) else error
    return str(said or event.get("detail") or "no reason given")[:200]


def result(load: str, samples: Sequence[Sample], objective: Objective,
           joules: Estimate | None = None) -> Result:
    """What all requests of a load say together; at least one."""
    good = [one for one in samples if not one.error]
    begin = min(one.due for one in samples)
    seconds = max(one.ended for one in samples) - begin
    busy = _covered([(one.due, one.ended) for one in samples])
    return Result(
        load=load, requests=len(good), errors=Counter(one.error for one in samples if one.error),
        seconds=seconds, in_flight=sum(one.seconds for one in samples) / seconds if seconds else 0,
        busy_seconds=busy, prompt_tokens=sum(one.prompt_tokens for one in good),
        cached_tokens=sum(one.cached_tokens for one in good),
        answer_tokens=sum(one.answer_tokens for one in good),
        counted=next((one.counted for one in good if one.counted != "usage"), "usage"),
        ttft=spread([one.ttft for one in good]),
        tpot=spread([one.tpot for one in good if one.tpot is not None]),
        gaps=spread([gap for one in good for gap in one.gaps]),
        end_to_end=spread([one.seconds for one in good]),
        late=spread([one.late for one in samples]),
        good=sum(map(objective.met, samples)) if objective else None,
        joules=joules or unknown("not looked at"))


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and percentiles (linear between ranks); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return Spread(sum(ordered) / len(ordered), {p: _at(ordered, p) for p in PERCENTILES},
                  ordered[-1])


def _at(ordered: Sequence[float], percent: int) -> float:
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of what spans cover together."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total

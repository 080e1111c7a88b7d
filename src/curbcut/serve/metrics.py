"""What a server has done, as Prometheus reads it: /metrics.

Counts come from the engines' own (`Stats`), latencies from each request as it ends. Energy is there
only where a sensor is: what was not measured has no line, and is never 0. Dashboards made for vLLM
find its names beside ours where both mean the same.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from curbcut.ledger.access import Caller
from curbcut.ledger.holds import Taken
from curbcut.serve.engine.interface import Stats
from curbcut.serve.exposition import CONTENT_TYPE, Family
from curbcut.serve.metering.shares import Where
from curbcut.serve.spending import Budgets, Spending

__all__ = ["BOUNDS", "CONTENT_TYPE", "COUNTERS", "GAUGES", "TIMES", "Metrics"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
          300.0)
"""Upper ends of the buckets of all times, in seconds."""
COUNTERS: Sequence[tuple[str, str, str, str]] = (
    ("requests", "requests", "Requests taken in.", ""),
    ("finished_requests", "finished", "Requests that came to their end.", ""),
    ("cancelled_requests", "cancelled", "Requests that were given up.", ""),
    ("failed_requests", "failed", "Requests that the engine failed on.", ""),
    ("refused_requests", "refused", "Requests for which the queue was full.", ""),
    ("preemptions", "preempted", "Times that a running request gave its pages up.",
     "vllm:num_preemptions"),
    ("prompt_tokens", "prompt_tokens", "Tokens of prompts, remembered ones included.",
     "vllm:prompt_tokens"),
    ("cached_tokens", "cached_tokens", "Tokens of prompts that were remembered.",
     "vllm:prefix_cache_hits"),
    ("answer_tokens", "answer_tokens", "Tokens of answers.", "vllm:generation_tokens"),
    ("steps", "steps", "Steps of the engine.", ""),
    ("drafted_tokens", "drafted_tokens", "Tokens guessed ahead.",
     "vllm:spec_decode_num_draft_tokens"),
    ("accepted_tokens", "accepted_tokens", "Guessed tokens that the model agreed to.",
     "vllm:spec_decode_num_accepted_tokens"),
    ("prefill_seconds", "prefill_seconds", "Time of steps spent on prompts.", ""),
    ("decode_seconds", "decode_seconds", "Time of steps spent on answers.", ""),
)
"""Name, field of `Stats`, what it is, vLLM's name for it."""
GAUGES: Sequence[tuple[str, str, str, str]] = (
    ("running_requests", "running", "Requests that are being answered.",
     "vllm:num_requests_running"),
    ("waiting_requests", "waiting", "Requests that wait for a place.",
     "vllm:num_requests_waiting"),
    ("resting_replicas", "resting", "Replicas that failed lately and are passed over.", ""),
    ("pages", "pages", "Pages of the cache of keys and values.", ""),
    ("used_pages", "used_pages", "Pages that running requests hold.", ""),
    ("remembered_pages", "remembered_pages", "Pages nobody holds whose prompts are known.", ""),
    ("weights_bytes", "weights_bytes", "Size of the weights.", ""),
    ("cache_bytes", "cache_bytes", "Size of the cache.", ""),
)
TIMES: Mapping[str, tuple[str, str]] = {
    "ttft_seconds": ("From a request's acceptance to its first token.",
                     "vllm:time_to_first_token_seconds"),
    "tpot_seconds": ("Mean time of an answer's tokens after its first.",
                     "vllm:request_time_per_output_token_seconds"),
    "request_seconds": ("From a request's acceptance to its end.",
                        "vllm:e2e_request_latency_seconds"),
}
Joules = Callable[[], Mapping[str, float | None]]
"""Joules counted since the start, by boundary; None where a sensor is lost."""


@dataclass
class _Times:
    """Counts of times by bucket (the last one is beyond all bounds), and their sum."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, int]]:
        """How many were at most each bound, by the bound as it is written."""
        names = [*map(repr, BOUNDS), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class Metrics:
    """Latencies of requests as they end, and all counts as text. Threads may share it.

    `joules` are what sensors counted, `where` says where a meter found them to go, `budgets` how
    the budgets stand.
    """

    def __init__(self, joules: Joules | None = None, *,
                 where: Callable[[], Where] | None = None,
                 budgets: Budgets | None = None) -> None:
        self._joules = joules
        self._spending = Spending(where, budgets)
        self._times: dict[tuple[str, str], _Times] = {}
        self._ends: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def ended(self, model: str, *, finish: str, seconds: float, ttft_seconds: float | None = None,
              answer_tokens: int = 0) -> None:
        """One request came to its end: `seconds` after its acceptance, its first token after
        `ttft_seconds` (None where it never came).
        """
        found = {"request_seconds": seconds, "ttft_seconds": ttft_seconds}
        if ttft_seconds is not None and answer_tokens > 1:
            found["tpot_seconds"] = (seconds - ttft_seconds) / (answer_tokens - 1)
        with self._lock:
            self._ends[model, finish] = self._ends.get((model, finish), 0) + 1
            for name, value in found.items():
                if value is not None:
                    self._times.setdefault((name, model), _Times()).add(value)

    def settled(self, caller: Caller, model: str, taken: Taken) -> None:
        """One request was charged."""
        self._spending.settled(caller, model, taken)

    def text(self, stats: Mapping[str, Stats]) -> str:
        """All figures of the models in memory, in Prometheus' text format (`CONTENT_TYPE`)."""
        return "".join(family.text() for family in self._families(stats) if family.samples)

    def _families(self, stats: Mapping[str, Stats]) -> Iterator[Family]:
        for table, kind in ((COUNTERS, "counter"), (GAUGES, "gauge")):
            for name, source, what, other in table:
                values = {model: float(getattr(one, source)) for model, one in stats.items()}
                yield from _of_models(kind, name, what, other, values)
        yield from _of_models(
            "gauge", "used_share", "Share of the cache's pages that running requests hold.",
            "vllm:kv_cache_usage_perc",
            {model: one.used_pages / one.pages for model, one in stats.items() if one.pages})
        yield Family("vllm:prefix_cache_queries", "counter", "Tokens of prompts looked for.", [
            ("_total", {"model_name": model}, float(one.prompt_tokens))
            for model, one in stats.items()])
        with self._lock:
            ends = sorted(self._ends.items())
            times = {key: (one.buckets(), one.total) for key, one in sorted(self._times.items())}
        yield from _ends(ends)
        for name, (what, other) in TIMES.items():
            found = {model: one for (kind, model), one in times.items() if kind == name}
            yield _histogram(f"curbcut_{name}", what, "model", found)
            yield _histogram(other, what, "model_name", found)
        yield Family("curbcut_energy_joules", "counter", "Energy that sensors counted.", [
            ("_total", {"boundary": boundary}, joules)
            for boundary, joules in (self._joules() if self._joules else {}).items()
            if joules is not None])
        yield from self._spending.families()


def _of_models(kind: str, name: str, what: str, other: str,
               values: Mapping[str, float]) -> Iterator[Family]:
    """One figure of each model, under our name and, where there is one, vLLM's."""
    suffix = "_total" if kind == "counter" else ""
    for called, label in ((f"curbcut_{name}", "model"), (other, "model_name")):
        if called:
            yield Family(called, kind, what, [(suffix, {label: model}, value)
                                               for model, value in values.items()])


def _ends(ends: Sequence[tuple[tuple[str, str], int]]) -> Iterator[Family]:
    what = "Answers by how they ended."
    yield Family("curbcut_answers", "counter", what, [
        ("_total", {"model": model, "finish": finish}, count)
        for (model, finish), count in ends])
    yield Family("vllm:request_success", "counter", what, [
        ("_total", {"model_name": model, "finished_reason": finish}, count)
        for (model, finish), count in ends if finish in ("stop", "length")])


def _histogram(name: str, what: str, label: str,
               found: Mapping[str, tuple[list[tuple[str, int]], float]]) -> Family:
    samples: list[tuple[str, Mapping[str, str], float]] = []
    for model, (buckets, total) in found.items():
        samples += [("_bucket", {label: model, "le": bound}, count) for bound, count in buckets]
        samples += [("_count", {label: model}, buckets[-1][1]), ("_sum", {label: model}, total)]
    return Family(name, "histogram", what, samples)

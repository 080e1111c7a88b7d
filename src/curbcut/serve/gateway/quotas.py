"""Requests and tokens a minute, and requests at a time, of organisations, projects and keys.

Each limit a minute is a bucket that holds a minute's worth and fills evenly. A request takes its
most tokens and gives back what it did not use. One that is larger than what a minute allows waits
for a full bucket and leaves it in debt: it is not locked out for ever, and the mean holds.

Counts are of this process: servers that share a ledger each allow as much.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from curbcut.ledger.access import Allowance, Caller
from curbcut.serve.gateway.refusal import Refused

MINUTE = 60.0
_FIRST_RETRY_SECONDS = 1
Kind = Literal["requests", "tokens"]


@dataclass
class Bucket:
    """One limit a minute."""

    limit: int
    level: float
    """What may be taken now; below zero after a request larger than the limit."""
    filled: float
    """When the level was as it is (seconds)."""

    def fill(self, now: float) -> None:
        """Adds what has come since."""
        gained = max(0.0, now - self.filled) * self.limit / MINUTE
        self.level, self.filled = min(float(self.limit), self.level + gained), now

    def wait(self, amount: float) -> float:
        """Seconds until `amount` may be taken; infinite where nothing ever may."""
        missing = min(amount, self.limit) - self.level
        if missing <= 0 and self.limit > 0:
            return 0.0
        return missing * MINUTE / self.limit if self.limit > 0 else math.inf


@dataclass
class _Scope:
    """What one scope has under way."""

    buckets: dict[Kind, Bucket] = field(default_factory=dict)
    under_way: int = 0


class Quotas:
    """Who has asked how much lately. For one thread (the event loop's)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._scopes: dict[str, _Scope] = {}

    def request(self, caller: Caller) -> None:
        """Counts one request, whatever becomes of it; raises Refused (429)."""
        self._take(caller, "requests", 1)

    def begin(self, caller: Caller, tokens: int) -> None:
        """A request that may take `tokens` begins; raises Refused (429), and then it does not.

        `end` it.
        """
        for scope, allowance in _limited(caller):
            most = allowance.concurrency
            if most is not None and self._scope(scope).under_way >= most:
                raise Refused(429, f"Rate limit reached for {scope}: {most} "
                                   f"{'request' if most == 1 else 'requests'} at a time.",
                              code="rate_limit_exceeded", retry=most > 0,
                              retry_after_seconds=_FIRST_RETRY_SECONDS if most else None)
        self._take(caller, "tokens", tokens)
        for scope, _ in _limited(caller):
            self._scope(scope).under_way += 1

    def end(self, caller: Caller, tokens: int, used_tokens: int) -> None:
        """A request that began with `tokens` took `used_tokens`."""
        for scope, _ in _limited(caller):
            place = self._scope(scope)
            place.under_way = max(0, place.under_way - 1)
            bucket = place.buckets.get("tokens")
            if bucket is not None:
                bucket.fill(self._clock())
                bucket.level = min(float(bucket.limit), bucket.level + tokens - used_tokens)

    def headers(self, caller: Caller) -> Mapping[str, str]:
        """What is left of the tightest limits, as OpenAI tells it."""
        told: dict[str, str] = {}
        kinds: tuple[Kind, ...] = ("requests", "tokens")
        for kind in kinds:
            found = [bucket for _, bucket in self._buckets(caller, kind)]
            if found:
                tightest = min(found, key=lambda bucket: (bucket.level, bucket.limit))
                full = (tightest.limit - tightest.level) * MINUTE / max(1, tightest.limit)
                told |= {f"x-ratelimit-limit-{kind}": str(tightest.limit),
                         f"x-ratelimit-remaining-{kind}": str(max(0, math.floor(tightest.level))),
                         f"x-ratelimit-reset-{kind}": span(full)}
        return told

    def _take(self, caller: Caller, kind: Kind, amount: int) -> None:
        """Takes from every bucket, or from none."""
        found = list(self._buckets(caller, kind))
        for scope, bucket in found:
            wait = bucket.wait(amount)
            if wait > 0:
                ever = math.isfinite(wait)
                asked = f", and this request may take {amount}" if kind == "tokens" else ""
                raise Refused(
                    429, f"Rate limit reached for {scope}: {bucket.limit} {kind} a minute{asked}.",
                    code="rate_limit_exceeded", retry=ever,
                    retry_after_seconds=max(1, math.ceil(wait)) if ever else None)
        for _, bucket in found:
            bucket.level -= amount

    def _buckets(self, caller: Caller, kind: Kind) -> Iterator[tuple[str, Bucket]]:
        """The limits of this kind, filled up to now; one that was changed goes on as full as it
        was.
        """
        now = self._clock()
        for scope, allowance in _limited(caller):
            limit = allowance.requests_a_minute if kind == "requests" \
                else allowance.tokens_a_minute
            buckets = self._scope(scope).buckets
            if limit is None:
                buckets.pop(kind, None)
                continue
            bucket = buckets.setdefault(kind, Bucket(limit, limit, now))
            bucket.fill(now)
            if bucket.limit != limit:
                bucket.level = min(limit, bucket.level + max(0, limit - bucket.limit))
                bucket.limit = limit
            yield scope, bucket

    def _scope(self, scope: str) -> _Scope:
        return self._scopes.setdefault(scope, _Scope())


def _limited(caller: Caller) -> Iterator[tuple[str, Allowance]]:
    """Scopes of a caller that have limits of their own, the widest first."""
    for scope in caller.scopes:
        if scope in caller.allowances:
            yield scope, caller.allowances[scope]


def span(seconds: float) -> str:
    """A time as OpenAI's headers have it: "120ms", "6m0s", "1h2m3s"."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    parts = [f"{hours}h"] if hours else []
    parts += [f"{minutes}m"] if minutes or hours else []
    return "".join(parts) + f"{whole % 60}s"


def may_ask(caller: Caller | None, model: str) -> bool:
    """Whether a model is among those that all scopes of the caller allow, by its whole name."""
    return caller is None or all(
        allowance.models is None or model in allowance.models
        for _, allowance in _limited(caller))

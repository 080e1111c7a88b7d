"""Who asks when: users that wait for their answers, or requests that come whatever happens.

A closed loop has so many users, each of whom asks again as soon as it has its answer: the server
sets the pace. An open loop has arrivals at a rate, by chance (a Poisson process): a slow server
gets a queue, as it would from the world. Waiting counts from when a request was due.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from random import Random

from curbcut.errors import InputError

MOST_USERS = 10_000
MOST_RATE = 100_000.0
_USERS = re.compile(r"(\d+)(?:\.\.(\d+))?")
_RATE = re.compile(r"(\d+(?:\.\d+)?)(?:\.\.(\d+(?:\.\d+)?))?")


@dataclass(frozen=True)
class Closed:
    """`users` at once; with `to`, as many as that at the end, one joining after another."""

    users: int
    to: int = 0

    @property
    def most(self) -> int:
        """Users at the end."""
        return max(self.users, self.to)

    def joins(self, seconds: float) -> list[float]:
        """When each user begins, in seconds, where the whole takes `seconds`."""
        more = self.most - self.users
        return [0.0] * self.users + [seconds * (n + 1) / (more + 1) for n in range(more)]

    def __str__(self) -> str:
        many = f"{self.users}..{self.to}" if self.to else str(self.users)
        return f"{many} user{'' if many == '1' else 's'}"


@dataclass(frozen=True)
class Open:
    """`rate` requests a second; with `to`, rising evenly to that."""

    rate: float
    to: float = 0.0

    def arrivals(self, seed: int, seconds: float, count: int | None = None) -> list[float]:
        """Times of all requests that come within `seconds`, `count` of them at most.

        A process whose rate changes is one of rate 1 with its clock bent: the n-th request comes
        when the expected number so far is the n-th arrival of that (inversion method, Lewis and
        Shedler 1979).
        """
        source = Random(f"{seed}/arrivals")
        found: list[float] = []
        expected = 0.0
        while count is None or len(found) < count:
            expected += source.expovariate(1.0)
            when = self._when(expected, seconds)
            if when > seconds:
                break
            found.append(when)
        return found

    def _when(self, expected: float, seconds: float) -> float:
        """When so many requests are expected to have come: rate t + (to - rate) t^2 / 2 seconds."""
        slope = (self.to - self.rate) / seconds if self.to and seconds else 0.0
        inside = self.rate**2 + 2 * slope * expected
        # The root in the form that a slope near 0 leaves exact.
        return 2 * expected / (math.sqrt(inside) + self.rate) if inside >= 0 else math.inf

    def __str__(self) -> str:
        return f"{self.rate:g}{f'..{self.to:g}' if self.to else ''} requests/s"


Load = Closed | Open


def users(text: str) -> list[Load]:
    """Reads "8", "1,4,16" (one after another) or "1..16" (a ramp); raises InputError."""
    return [_users(part) for part in text.split(",")]


def rates(text: str) -> list[Load]:
    """The same of requests a second; raises InputError."""
    return [_rate(part) for part in text.split(",")]


def _users(text: str) -> Closed:
    found = _USERS.fullmatch(text.strip())
    first, last = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    if not 1 <= first <= MOST_USERS or last > MOST_USERS or (found and found[2] and last <= first):
        raise InputError(f"{text!r} is no number of users from 1 to {MOST_USERS:,}",
                         where="--users", mend='like "8", "1,4,16" or "1..16" (a ramp)')
    return Closed(first, last)


def _rate(text: str) -> Open:
    found = _RATE.fullmatch(text.strip())
    first, last = (float(found[1]), float(found[2] or 0)) if found else (0.0, 0.0)
    if not 0 < first <= MOST_RATE or last > MOST_RATE or (found and found[2] and last <= 0):
        raise InputError(f"{text!r} is no rate of requests a second", where="--rate",
                         mend='like "2", "0.5,1,2" or "1..10" (a ramp)')
    return Open(first, last if last != first else 0.0)

"""Runs that the tests of levers share."""

from __future__ import annotations

import functools

from curbcut.plan.resolve import resolve
from curbcut.spec.draft import Draft


@functools.cache
def fleet(name="16xH100", tokens="20B", preset="llama-3-8b", **more):
    """A run on a fleet of the facts; `more` are dotted keys, "__" for the dot."""
    raw = {"model": {"preset": preset}, "train": {"tokens": tokens}, "machine": {"name": name}}
    for key, value in more.items():
        table, _, leaf = key.partition("__")
        raw.setdefault(table, {})[leaf] = value
    return resolve(Draft().with_raw(raw, "test")).run

"""Runs that the tests of levers share."""

from __future__ import annotations

import functools

from curbcut.plan.levers.case import Aim
from curbcut.plan.levers.price import priced, unit
from curbcut.plan.resolve import resolve
from curbcut.spec.draft import Draft


@functools.cache
def fleet(name="16xH100", tokens="20B", preset="llama-3-8b", **more):
    """A run on a fleet of the facts, nothing compiled; `more` are dotted keys, "__" for the dot."""
    raw = {"model": {"preset": preset}, "train": {"tokens": tokens}, "machine": {"name": name},
           "recipe": {"compile": False}}
    for key, value in more.items():
        table, _, leaf = key.partition("__")
        raw.setdefault(table, {})[leaf] = value
    return resolve(Draft().with_raw(raw, "test")).run


def aim(name="usd", slower=2.0):
    """What a lever is to lower: a unit, priced as the product does."""
    wanted = unit(name)
    return Aim(wanted, lambda one: priced(one, wanted).value, slower)

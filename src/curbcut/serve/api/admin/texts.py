"""Texts that must be accepted before a key is issued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curbcut.errors import UnknownName
from curbcut.ledger import licences, plain
from curbcut.serve.api.admin.act import MANAGE, SEE, Act, Wish
from curbcut.serve.api.admin.places import listed
from curbcut.serve.gateway.table import flag, text

_PLACE = "/admin/licences/{text_scope}"
_CHARACTERS = 80_000
"""Of a text at most: however it is escaped, a body holds it."""


def _licences(wish: Wish) -> Mapping[str, Any]:
    return listed([plain.licence(one)
                   for one in licences.licences(wish.ledger, ended=wish.given["ended"])])


def _licence(wish: Wish) -> Mapping[str, Any]:
    known = {one.scope: one for one in licences.licences(wish.ledger)}
    found = known.get(wish.path["scope"])
    if found is None:
        raise UnknownName("scope with a text", wish.path["scope"], known, where="licences")
    return {**plain.licence(found), "text": found.text}


def _set_licence(wish: Wish) -> Mapping[str, Any]:
    return plain.licence(licences.set_licence(wish.ledger, wish.path["scope"], wish.given["text"],
                                              actor=wish.actor))


def _end_licence(wish: Wish) -> Mapping[str, Any]:
    licences.end_licence(wish.ledger, wish.path["scope"], actor=wish.actor)
    return {"scope": wish.path["scope"], "ended": True}


def _acceptances(wish: Wish) -> Mapping[str, Any]:
    return listed([vars(one) for one in licences.acceptances(wish.ledger)])


ACTS = (
    Act(method="GET", path="/admin/licences", may=SEE, does=_licences, fields={"ended": flag()}),
    Act(method="GET", path=_PLACE, may=SEE, does=_licence),
    Act(method="PUT", path=_PLACE, may=MANAGE, does=_set_licence,
        fields={"text": text(_CHARACTERS, shortest=1, required=True)}),
    Act(method="DELETE", path=_PLACE, may=MANAGE, does=_end_licence),
    Act(method="GET", path="/admin/acceptances", may=SEE, does=_acceptances),
)

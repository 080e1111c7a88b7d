"""Organisations, projects, keys, and what each may ask at a time."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from curbcut.ledger import access, licences, plain, said
from curbcut.ledger.access import ROLES, Allowance
from curbcut.ledger.migrations import DEFAULT
from curbcut.serve.api.admin.act import MANAGE, SEE, Act, Wish
from curbcut.serve.api.admin.fields import HASH, MODEL, line, name, one_of, several, words
from curbcut.serve.gateway.table import Table, number, whole, wrong

_COUNT = 2**53 - 1
_HASHES = several(HASH, re.compile(HASH["pattern"][1:-1]).fullmatch,
                  "hashes of texts (12 to 64 hex digits)", 64)
_KEY: Table = {
    "name": name(required=True), "project": name(default=DEFAULT),
    "role": one_of(*ROLES, default="user"), "owner": line(), "expires": whole(0, said.LATEST),
    "accepted": _HASHES, "told": words()}
_ALLOWANCE: Table = {
    "models": several(MODEL, re.compile(MODEL["pattern"][1:-1]).fullmatch, "names of models",
                      default=None),
    "requests_a_minute": whole(0, _COUNT), "tokens_a_minute": whole(0, _COUNT),
    "concurrency": whole(0, _COUNT), "weight": number(0, 1000, 1.0, above=True)}


def listed(rows: list[Any], **more: Any) -> dict[str, Any]:
    """A list as OpenAI's clients know lists."""
    return {"object": "list", "data": rows, **more}


def _organisations(wish: Wish) -> Mapping[str, Any]:
    return listed([{"name": one} for one in access.organisations(wish.ledger)])


def _add_organisation(wish: Wish) -> Mapping[str, Any]:
    access.create_organisation(wish.ledger, wish.given["name"], actor=wish.actor)
    return {"name": wish.given["name"]}


def _projects(wish: Wish) -> Mapping[str, Any]:
    return listed([vars(one) for one in access.projects(wish.ledger)])


def _add_project(wish: Wish) -> Mapping[str, Any]:
    named, organisation = wish.given["name"], wish.given["organisation"]
    access.create_project(wish.ledger, named, organisation, actor=wish.actor)
    return {"name": named, "organisation": organisation}


def _archive_project(wish: Wish) -> Mapping[str, Any]:
    access.archive_project(wish.ledger, wish.path["project"], actor=wish.actor)
    return {"name": wish.path["project"], "archived": True}


def _keys(wish: Wish) -> Mapping[str, Any]:
    project, now = wish.given["project"], time.time()
    return listed([plain.key(key, now) for key in access.kept_keys(wish.ledger)
                   if project in (None, key.project)])


def _issue(wish: Wish) -> Mapping[str, Any]:
    given = wish.given
    _check_end(given["expires"])
    secret = access.issue_key(
        wish.ledger, given["name"], actor=wish.actor, project=given["project"], role=given["role"],
        owner=given["owner"], expires=given["expires"], accepted=given["accepted"],
        told=given["told"])
    return _once(given["name"], secret)


def _rotate(wish: Wish) -> Mapping[str, Any]:
    named = wish.path["name"]
    secret = access.rotate_key(wish.ledger, named, actor=wish.actor,
                               grace_seconds=wish.given["grace_seconds"],
                               accepted=wish.given["accepted"])
    return _once(named, secret)


def _revoke(wish: Wish) -> Mapping[str, Any]:
    access.revoke_key(wish.ledger, wish.path["name"], actor=wish.actor)
    return {"name": wish.path["name"], "revoked": True}


def _accept(wish: Wish) -> Mapping[str, Any]:
    licences.accept(wish.ledger, wish.path["name"], wish.given["accepted"], actor=wish.actor,
                    who=wish.given["who"], told=wish.given["told"])
    return {"name": wish.path["name"], "accepted": list(wish.given["accepted"])}


def _allowances(wish: Wish) -> Mapping[str, Any]:
    return listed([plain.allowance(scope, one)
                   for scope, one in sorted(access.allowances(wish.ledger).items())])


def _allow(wish: Wish) -> Mapping[str, Any]:
    scope, allowance = said.scope(wish.ledger, wish.path["scope"]), Allowance(**wish.given)
    access.set_allowance(wish.ledger, scope, allowance, actor=wish.actor)
    return plain.allowance(scope, allowance)


def _once(named: str, secret: str) -> Mapping[str, Any]:
    """A secret is told here, and never again."""
    return {"id": secret.split("-")[1], "name": named, "secret": secret}


def _check_end(expires: int | None) -> None:
    if expires is not None and expires <= time.time():
        raise wrong("expires", "it is past; give seconds since 1970")


ACTS = (
    Act(method="GET", path="/admin/organisations", may=SEE, does=_organisations),
    Act(method="POST", path="/admin/organisations", may=MANAGE, does=_add_organisation,
        fields={"name": name(required=True)}, status=201),
    Act(method="GET", path="/admin/projects", may=SEE, does=_projects),
    Act(method="POST", path="/admin/projects", may=MANAGE, does=_add_project, status=201,
        fields={"name": name(required=True), "organisation": name(default=DEFAULT)}),
    Act(method="DELETE", path="/admin/projects/{project}", may=MANAGE, does=_archive_project),
    Act(method="GET", path="/admin/keys", may=SEE, does=_keys, fields={"project": name()}),
    Act(method="POST", path="/admin/keys", may=MANAGE, does=_issue, fields=_KEY, status=201),
    Act(method="DELETE", path="/admin/keys/{name}", may=MANAGE, does=_revoke),
    Act(method="POST", path="/admin/keys/{name}/rotate", may=MANAGE, does=_rotate, status=201,
        fields={"grace_seconds": number(0, 30 * 86400, 0.0), "accepted": _HASHES}),
    Act(method="POST", path="/admin/keys/{name}/accept", may=MANAGE, does=_accept,
        fields={"accepted": _HASHES, "who": line(), "told": words()}),
    Act(method="GET", path="/admin/allowances", may=SEE, does=_allowances),
    Act(method="PUT", path="/admin/allowances/{scope}", may=MANAGE, does=_allow,
        fields=_ALLOWANCE),
)

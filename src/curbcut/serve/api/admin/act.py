"""An act of administration, as one line of a table: path, who may, fields, and what it does.

The door has let the request in; here its key is asked about once more, in the ledger and at once:
an admin whose key was ended this second changes nothing. Nothing of a body is read before that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy.exc import IntegrityError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from curbcut.errors import CurbcutError, InputError, UnknownName
from curbcut.ledger import access, pepper
from curbcut.ledger.access import Caller, Role
from curbcut.ledger.store import Ledger
from curbcut.serve.api.admin.fields import MODEL, NAME, SCOPE, TEXT_SCOPE
from curbcut.serve.api.door import read
from curbcut.serve.gateway.keys import identify
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.gateway.roles import check_role
from curbcut.serve.gateway.table import Field, Schema, Table, take

_log = logging.getLogger(__name__)
MANAGE: Set[Role] = frozenset(("admin",))
SEE: Set[Role] = frozenset(("admin", "operator", "auditor"))
AUDIT: Set[Role] = frozenset(("admin", "auditor"))
PLACES: Mapping[str, Schema] = {
    "name": NAME, "project": NAME, "scope": SCOPE, "model": MODEL, "text_scope": TEXT_SCOPE,
    "unit": {"enum": ["tokens", "usd", "kwh"]}, "period": {"enum": ["all", "month", "day"]}}
"""What stands in the braces of a path; anything else there names nothing (404)."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What one request asks of the ledger."""

    ledger: Ledger
    actor: str
    """Who, for the audit chain: the key's name and id."""
    path: Mapping[str, str]
    given: Mapping[str, Any]
    """The fields of the body, or of the query."""


@dataclass(frozen=True, kw_only=True)
class Act:
    """One method of one path."""

    method: str
    path: str
    may: Set[Role]
    does: Callable[[Wish], Mapping[str, Any]]
    """The answer's JSON object; blocks, and raises InputError or Refused."""
    fields: Table = field(default_factory=dict)
    """Of the body of POST and PUT, else of the query."""
    status: int = 200

    @property
    def has_body(self) -> bool:
        """Whether its fields come as a JSON object."""
        return self.method in ("POST", "PUT")

    @property
    def places(self) -> Sequence[str]:
        """What stands in the braces of its path."""
        return re.findall(r"{(\w+)}", self.path)


def routed(acts: Sequence[Act], ledger: Ledger, limits: Limits) -> list[Route]:
    """One route a path."""
    by_path: dict[str, dict[str, Act]] = defaultdict(dict)
    for act in acts:
        by_path[act.path][act.method] = act
    return [Route(path, _bound(found, ledger, limits), methods=list(found))
            for path, found in by_path.items()]


def _bound(acts: Mapping[str, Act], ledger: Ledger,
           limits: Limits) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        act = acts["GET" if request.method == "HEAD" else request.method]
        caller = await asyncio.to_thread(_asker, ledger, request.headers.get("authorization"))
        check_role(caller, act.may, f"{act.method} {act.path}")
        body = await read(request, limits) if act.has_body else {}
        asked = take({} if act.has_body else act.fields, _query(request, act.fields), limits)
        given = take(act.fields, body, limits) if act.has_body else asked
        wish = Wish(ledger=ledger, actor=f"{caller.key}/{caller.key_id}",
                    path=_places(request), given=given)
        answer = await asyncio.to_thread(_done, act, wish)
        return JSONResponse(answer, act.status, headers={"Cache-Control": "no-store"})
    return route


def _asker(ledger: Ledger, authorization: str | None) -> Caller:
    try:
        caller = identify(authorization, partial(access.verify, ledger))
    except CurbcutError as error:
        raise _unusable(error) from None
    assert caller is not None  # there is a `verify`, so there is a key or a refusal
    return caller


def _places(request: Request) -> Mapping[str, str]:
    """What stands in the path; raises Refused (404) for what can name nothing."""
    for name, said in request.path_params.items():
        schema = PLACES[name]
        fits = (said in schema["enum"] if "enum" in schema
                else re.fullmatch(schema["pattern"][1:-1], said))
        if not fits:
            known = f" Known: {', '.join(schema['enum'])}." if "enum" in schema else ""
            raise Refused(404, f"There is no {name} {said[:100]!r}.{known}", param=name,
                          code="not_found")
    return {name.removeprefix("text_"): said for name, said in request.path_params.items()}


def _query(request: Request, fields: Table) -> Mapping[str, Any]:
    """The query's values as JSON has them; raises Refused (400) for one that is there twice."""
    found: dict[str, Any] = {}
    for name, said in request.query_params.multi_items():
        if name in found:
            raise Refused(400, f"{name[:100]} is there twice.", param=name[:100],
                          code="invalid_value")
        found[name] = _typed(said, fields[name]) if name in fields else said
    return found


def _typed(said: str, field: Field) -> Any:
    """A query's text as what the field takes; as it is where it is none, for the field to say."""
    kind = field.schema.get("type")
    if kind == "integer" and re.fullmatch(r"-?[0-9]{1,18}", said):
        return int(said)
    if kind == "number" and re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", said):
        return float(said)
    if kind == "boolean" and said in ("true", "false"):
        return said == "true"
    return said.split(",") if kind == "array" else said


def _done(act: Act, wish: Wish) -> Mapping[str, Any]:
    """Does it; what the ledger says against it becomes a refusal."""
    try:
        return act.does(wish)
    except IntegrityError:
        raise Refused(409, "Somebody else changed this just now: look, and ask again.",
                      code="conflict") from None
    except CurbcutError as error:
        places = (wish.ledger.where, pepper.VARIABLE, os.environ.get(pepper.VARIABLE) or "\0")
        if not isinstance(error, InputError) or error.where.startswith(places):
            raise _unusable(error) from None
        unknown = isinstance(error, UnknownName)
        said = ": ".join(part for part in (error.where, error.what) if part)
        raise Refused(404 if unknown else 400, f"{said} ({error.mend})"[:1000],
                      param=error.where or None,
                      code="not_found" if unknown else "invalid_value") from None


def _unusable(error: CurbcutError) -> Refused:
    """What is wrong with the ledger is for the server's log: it tells of the server's places."""
    _log.error("administration: %s", error)
    return Refused(503, "The ledger cannot be used now.", code="ledger_unusable",
                   retry_after_seconds=5)

"""All acts of administration: their routes, and their OpenAPI paths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.routing import Route

from curbcut.ledger.store import Ledger
from curbcut.serve.api.admin import money, places, records, texts
from curbcut.serve.api.admin.act import PLACES, Act, routed
from curbcut.serve.gateway.limits import Limits
from curbcut.serve.gateway.table import schema_of

ACTS: tuple[Act, ...] = (*places.ACTS, *money.ACTS, *texts.ACTS, *records.ACTS)


def routes(ledger: Ledger, limits: Limits | None = None) -> list[Route]:
    """What `app.build` takes as `more`: managing access to what is served, in `ledger`."""
    return routed(ACTS, ledger, limits or Limits())


def published(answers: Callable[[int], Any]) -> dict[str, Any]:
    """Their paths for the OpenAPI document; `answers` makes an operation's responses from the
    status of success.
    """
    paths: dict[str, Any] = {}
    for act in ACTS:
        operation: dict[str, Any] = {
            "operationId": f"{act.method.lower()}{act.path.replace('/', '_')}".translate(
                {ord("{"): None, ord("}"): None}),
            "description": f"For keys of role {' or '.join(sorted(act.may))}.",
            "security": [{"key": []}], "responses": answers(act.status),
            "parameters": [{"name": name, "in": "path", "required": True, "schema": PLACES[name]}
                           for name in act.places]}
        if act.has_body:
            operation["requestBody"] = {"required": True, "content": {
                "application/json": {"schema": schema_of(act.fields)}}}
        else:
            operation["parameters"] += [
                {"name": name, "in": "query", "schema": field.schema, "required": field.required,
                 "style": "form", "explode": False} for name, field in act.fields.items()]
        paths.setdefault(act.path, {})[act.method.lower()] = operation
    return paths

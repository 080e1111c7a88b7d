"""GET /openapi.json: every route and field, from the tables that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from curbcut import __version__
from curbcut.serve.api.admin import acts
from curbcut.serve.gateway import chat, completion, embeddings, responses, tokens
from curbcut.serve.gateway.table import Table, schema_of

BODIES: Mapping[str, Table] = {
    "/v1/completions": completion.TABLE, "/v1/chat/completions": chat.TABLE,
    "/v1/embeddings": embeddings.TABLE, "/v1/responses": responses.TABLE,
    "/v1/responses/input_tokens": responses.TABLE,
    "/v1/chat/completions/input_tokens": chat.TABLE,
    "/tokenize": tokens.TOKENISE, "/detokenize": tokens.DETOKENISE,
}
"""The routes that read a body, and their fields."""
_GETS = ("/v1/models", "/health", "/ping", "/version", "/metrics")
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {
    "type": "object", "required": ["message", "type", "param", "code"], "properties": {
        "message": {"type": "string"}, "type": {"type": "string"},
        "param": {"type": ["string", "null"]}, "code": {"type": ["string", "null"]}}}}}


def document(models: Sequence[str], *, admin: bool = False) -> dict[str, Any]:
    """The OpenAPI document (3.1) of a server that has `models`; `admin`: and the paths that
    manage access to them.
    """
    paths: dict[str, Any] = {path: {"post": {
        "operationId": path.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": {
            "application/json": {"schema": _body(table, models)}}},
        "responses": _answers("application/json", "text/event-stream")}}
        for path, table in BODIES.items()}
    for path in _GETS:
        paths[path] = {"get": {"operationId": f"get{path.replace('/', '_')}",
                               "responses": _answers("application/json", "text/plain")}}
    paths["/v1/models/{model}"] = {"get": {
        "operationId": "get_model", "responses": _answers("application/json"), "parameters": [{
            "name": "model", "in": "path", "required": True,
            "schema": {"type": "string", "pattern": "^[a-z0-9._:-]{1,129}$"}}]}}
    if admin:
        paths |= acts.published(lambda status: _answers("application/json", status=status))
    return {"openapi": "3.1.0", "info": {"title": "Curbcut", "version": __version__},
            "components": {"schemas": {"Error": _ERROR}, "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"}}},
            "security": [{}, {"key": []}], "paths": paths}


def _body(table: Table, models: Sequence[str]) -> Mapping[str, Any]:
    schema = schema_of(table)
    return {**schema, "properties": {**schema["properties"], "model": {
        "type": ["string", "null"], "enum": [*models, None]}}}


def _answers(*kinds: str, status: int = 200) -> dict[str, Any]:
    refused = {"description": "refused", "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}}
    return {str(status): {"description": "served", "content": {kind: {} for kind in kinds}},
            **{str(error): refused for error in (
                400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 500, 503)}}

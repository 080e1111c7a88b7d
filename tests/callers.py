"""Callers for servers of tests: the secrets that they know, without a ledger."""

from __future__ import annotations

from collections.abc import Callable

from curbcut.ledger.access import Caller


def caller(key: str, **given: object) -> Caller:
    """A user of the default project, or as `given` says."""
    values = {"key_id": f"id-{key}", "key": key, "project": "default", "organisation": "default"}
    return Caller(**values | given)


def known(names: dict[str, str]) -> Callable[[str], Caller | None]:
    """Knows secrets by the names of their keys."""
    return {secret: caller(name) for secret, name in names.items()}.get

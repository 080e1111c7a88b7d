"""Texts that a person accepts before a key is issued, and who accepted which of them when.

A text stands for an organisation, a project or a model ("model:NAME"); a scope has one text in
force at most. A key is issued only when each text that binds it is accepted by its hash, so that
nobody accepts words other than those that were read. The acceptance is written in the transaction
that makes the key, before it. A text that comes later binds keys issued from then on; a model with
a text that a key has not accepted is refused to that key (`Caller.unaccepted`) until it has.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from curbcut.errors import InputError, UnknownName
from curbcut.ledger import audit, keys
from curbcut.ledger import schema as tables
from curbcut.ledger.scopes import check_scope, live_key

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

LONGEST_TEXT = 1_000_000
"""Characters of a text at most."""
SHORTEST_HASH = 12
"""Hex digits of a hash that are enough to name a text."""
_KINDS = ("organisation", "project", "model")


@dataclass(frozen=True, kw_only=True)
class Licence:
    """One text of a scope."""

    scope: str
    hash: str
    """SHA-256 of the text's UTF-8, hex."""
    text: str
    set: float
    """Since when it binds, seconds since 1970."""
    ended: float | None = None


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """That somebody accepted a text for a key."""

    key_id: str
    scope: str
    hash: str
    who: str
    told: Mapping[str, str]
    """What they said of themselves: institution, use, ..."""
    time: float


class Unaccepted(InputError):
    """Texts bind a key and were not accepted; nothing was issued."""

    def __init__(self, licences: Sequence[Licence]) -> None:
        named = ", ".join(f"{one.scope} ({one.hash[:SHORTEST_HASH]})" for one in licences)
        super().__init__(f"a text must be accepted first: {named}", where="licences",
                         mend="read it, and accept it by this hash")
        self.licences = tuple(licences)


def set_licence(ledger: Ledger, scope: str, text: str, *, actor: str) -> Licence:
    """From now on keys of `scope` need `text` to be accepted, in place of its text before.

    Raises InputError for a text that is none, UnknownName for a scope that is not there.
    """
    licence = Licence(scope=scope, hash=hash_of(text), text=text, set=time.time())
    row = tables.licences.c
    with ledger.writing() as connection:
        _check(connection, scope)
        _end(connection, scope, licence.set)
        connection.execute(sa.delete(tables.licences).where(row.scope == scope,
                                                            row.hash == licence.hash))
        connection.execute(tables.licences.insert().values(**vars(licence)))
        audit.append(connection, actor, "licence.set", scope, {"hash": licence.hash})
    return licence


def end_licence(ledger: Ledger, scope: str, *, actor: str) -> None:
    """Keys of `scope` need no text any more; raises UnknownName where none is in force."""
    with ledger.writing() as connection:
        if not _end(connection, scope, time.time()):
            known = [one.scope for one in _in_force(connection)]
            raise UnknownName("scope with a text", scope, known, where="licences")
        audit.append(connection, actor, "licence.ended", scope)


def licences(ledger: Ledger, *, ended: bool = False) -> list[Licence]:
    """All texts in force by scope; with `ended` also those that were, the newest first."""
    row = tables.licences.c
    query = sa.select(tables.licences).order_by(row.scope, row.set.desc())
    with ledger.reading() as connection:
        found = connection.execute(query if ended else query.where(row.ended.is_(None)))
        return [Licence(**line._mapping) for line in found]


def needed(ledger: Ledger, project: str, role: str = "user") -> list[Licence]:
    """The texts that a key of this project and role must accept; raises UnknownName."""
    with ledger.reading() as connection:
        check_scope(connection, f"project:{project}")
        return binding(connection, project, role)


def accept(ledger: Ledger, key: str, accepted: Sequence[str], *, actor: str, who: str = "",
           told: Mapping[str, str] | None = None) -> None:
    """Accepts, for the live key of this name, texts that came after it was issued.

    Raises UnknownName (no such key), InputError (no such text).
    """
    with ledger.writing() as connection:
        row = live_key(connection, key)
        due = binding(connection, row.project, row.role)
        chosen = [one for one in due if any(_names(given, one) for given in accepted)]
        _check_known(accepted, due)
        record(connection, row.id, chosen, who=who or row.owner or key, told=told or {},
               actor=actor)


def acceptances(ledger: Ledger, key_id: str = "") -> list[Acceptance]:
    """All, or those of one key, the oldest first."""
    row = tables.acceptances.c
    query = sa.select(tables.acceptances).order_by(row.id)
    with ledger.reading() as connection:
        found = connection.execute(query.where(row.key_id == key_id) if key_id else query)
        return [Acceptance(key_id=line.key_id, scope=line.scope, hash=line.hash, who=line.who,
                           told=json.loads(line.told), time=line.time) for line in found]


def hash_of(text: str) -> str:
    """SHA-256 of a text; raises InputError for what is none."""
    if not text.strip() or len(text) > LONGEST_TEXT or "\0" in text:
        raise InputError("is empty, longer than a million characters, or holds a NUL",
                         where="the licence's text", mend="give the text that people shall read")
    try:
        return hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError:
        raise InputError("is no Unicode text", where="the licence's text",
                         mend="save it as UTF-8") from None


# Within a transaction of the caller's


def binding(connection: sa.Connection, project: str, role: str) -> list[Licence]:
    """Texts in force for a key of this project: of its organisation, of itself and, where the role
    asks models, of each model that the two may ask.
    """
    organisation = connection.scalar(sa.select(tables.projects.c.organisation).where(
        tables.projects.c.name == project))
    scopes = (f"organisation:{organisation}", f"project:{project}")
    row = tables.allowances.c
    lists = [set(json.loads(models)) for models in connection.scalars(
        sa.select(row.models).where(row.scope.in_(scopes), row.models.is_not(None)))]

    def binds(scope: str) -> bool:
        kind, _, name = scope.partition(":")
        if kind != "model":
            return scope in scopes
        return role == "user" and all(name in {one.partition(":")[0] for one in models}
                                      for models in lists)

    return [one for one in _in_force(connection) if binds(one.scope)]


def demand(due: Sequence[Licence], accepted: Sequence[str],
           before: frozenset[str] = frozenset()) -> list[Licence]:
    """Those of `due` that are accepted now; `before`: hashes that were already.

    Raises Unaccepted where one is missing, InputError for a hash of no text that is due.
    """
    missing = [one for one in due if one.hash not in before
               and not any(_names(given, one) for given in accepted)]
    if missing:
        raise Unaccepted(missing)
    _check_known(accepted, due)
    return [one for one in due if any(_names(given, one) for given in accepted)]


def record(connection: sa.Connection, key_id: str, accepted: Sequence[Licence], *, who: str,
           told: Mapping[str, str], actor: str) -> None:
    """Writes that `who` accepted these texts for a key, with the audit chain's row."""
    for one in accepted:
        connection.execute(tables.acceptances.insert().values(
            key_id=key_id, scope=one.scope, hash=one.hash, who=who, time=time.time(),
            told=json.dumps(dict(told), sort_keys=True)))
        audit.append(connection, actor, "licence.accepted", f"key:{key_id}",
                     {"scope": one.scope, "hash": one.hash, "who": who, "told": dict(told)})


def accepted_hashes(connection: sa.Connection, key_id: str) -> frozenset[str]:
    """Hashes of all that was accepted for a key."""
    row = tables.acceptances.c
    return frozenset(connection.scalars(sa.select(row.hash).where(row.key_id == key_id)))


def unaccepted_models(connection: sa.Connection, key_id: str) -> tuple[str, ...]:
    """Models with a text in force that was not accepted for this key."""
    row = tables.licences.c
    taken = sa.select(tables.acceptances.c.hash).where(tables.acceptances.c.key_id == key_id)
    found = connection.scalars(sa.select(row.scope).where(
        row.ended.is_(None), row.scope.startswith("model:"), row.hash.not_in(taken)))
    return tuple(sorted(scope.partition(":")[2] for scope in found))


def _in_force(connection: sa.Connection) -> list[Licence]:
    row = tables.licences.c
    found = connection.execute(sa.select(tables.licences).where(row.ended.is_(None))
                               .order_by(row.scope))
    return [Licence(**line._mapping) for line in found]


def _end(connection: sa.Connection, scope: str, when: float) -> bool:
    row = tables.licences.c
    done = connection.execute(sa.update(tables.licences).where(
        row.scope == scope, row.ended.is_(None)).values(ended=when))
    return bool(done.rowcount)


def _check(connection: sa.Connection, scope: str) -> None:
    kind, _, name = scope.partition(":")
    if kind not in _KINDS:
        raise UnknownName("kind of scope", kind, _KINDS, where=scope)
    if kind != "model":
        check_scope(connection, scope)
    elif ":" in keys.check_model(name, "licences"):
        raise InputError("an adapter stands under its base model's text", where="licences",
                         mend=f"name model:{name.partition(':')[0]}")


def _check_known(accepted: Sequence[str], due: Sequence[Licence]) -> None:
    for given in accepted:
        if not any(_names(given, one) for one in due):
            raise UnknownName("text (by its hash)", given[:64], [one.hash for one in due],
                              where="licences")


def _names(given: Any, licence: Licence) -> bool:
    return (isinstance(given, str) and len(given) >= SHORTEST_HASH
            and licence.hash.startswith(given.casefold()))

"""Who may ask what: organisations, their projects, the keys of these, and what each may take.

    organisation ──< project ──< key (with a role)

Every change is one transaction with its row in the audit chain. `actor` is who makes it.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import sqlalchemy as sa

from curbcut.errors import InputError, UnknownName
from curbcut.ledger import audit, keys, licences
from curbcut.ledger import schema as tables
from curbcut.ledger.keys import KeptKey
from curbcut.ledger.migrations import DEFAULT
from curbcut.ledger.scopes import check_organisation, check_project, check_scope, live_key

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

Role = Literal["admin", "operator", "user", "auditor"]
"""admin: manages everything; operator: sees states and metrics; user: asks models; auditor: reads
accounts and the audit chain. No role but `user` asks models."""
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """What a scope may ask at a time; None is no limit of its own."""

    models: tuple[str, ...] | None = None
    requests_a_minute: int | None = None
    tokens_a_minute: int | None = None
    concurrency: int | None = None
    weight: float = 1.0
    """Share of the server beside others who wait: of two with 1 and 3, the second gets three
    quarters."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who a secret is of, with all that the door must know of it."""

    key_id: str
    key: str
    """The key's name."""
    project: str
    organisation: str
    role: Role = "user"
    owner: str = ""
    expires: float | None = None
    allowances: Mapping[str, Allowance] = field(default_factory=dict)
    """By scope, of the organisation, the project and the key; those without limits are absent."""
    line: str = ""
    """Id of the first key of which this one is a rotation; empty where it is none. Limits and
    budgets of a line of keys are one: while two of them live, they share what is left."""
    unaccepted: tuple[str, ...] = ()
    """Models with a text in force that was not accepted for this key (see `lacks_licence`)."""

    @property
    def scopes(self) -> tuple[str, str, str]:
        """Where its limits and budgets stand, the widest first."""
        return (f"organisation:{self.organisation}", f"project:{self.project}",
                f"key:{self.line or self.key_id}")

    def lacks_licence(self, model: str) -> bool:
        """Whether `model` has a text that this key must accept first; an adapter ("base:adapter")
        stands under its base's.
        """
        return model.partition(":")[0] in self.unaccepted


@dataclass(frozen=True)
class Project:
    """One project."""

    name: str
    organisation: str
    created: float
    archived: float | None = None


def create_organisation(ledger: Ledger, name: str, *, actor: str) -> None:
    """Makes an organisation; raises InputError for a name that is taken, or is none."""
    keys.check_name(name, "an organisation")
    with ledger.writing() as connection:
        if connection.scalar(_named(tables.organisations, name)):
            raise InputError(f"there is an organisation {name!r} already", where="organisations",
                             mend="choose another name")
        connection.execute(tables.organisations.insert().values(name=name, created=time.time()))
        audit.append(connection, actor, "organisation.created", f"organisation:{name}")


def create_project(ledger: Ledger, name: str, organisation: str = DEFAULT, *, actor: str) -> None:
    """Makes a project; raises InputError (taken) or UnknownName (no such organisation)."""
    keys.check_name(name, "a project")
    with ledger.writing() as connection:
        check_organisation(connection, organisation)
        if connection.scalar(_named(tables.projects, name)):
            raise InputError(f"there is a project {name!r} already", where="projects",
                             mend="choose another name")
        connection.execute(tables.projects.insert().values(
            name=name, organisation=organisation, created=time.time()))
        audit.append(connection, actor, "project.created", f"project:{name}",
                     {"organisation": organisation})


def archive_project(ledger: Ledger, name: str, *, actor: str) -> None:
    """Ends a project and all its live keys; raises UnknownName."""
    with ledger.writing() as connection:
        check_project(connection, name)
        now = time.time()
        connection.execute(sa.update(tables.projects).where(tables.projects.c.name == name)
                           .values(archived=now))
        connection.execute(sa.update(tables.keys).where(
            tables.keys.c.project == name, tables.keys.c.revoked.is_(None)).values(revoked=now))
        audit.append(connection, actor, "project.archived", f"project:{name}")


def projects(ledger: Ledger) -> list[Project]:
    """All projects by name, archived ones too."""
    with ledger.reading() as connection:
        found = connection.execute(sa.select(tables.projects).order_by(tables.projects.c.name))
        return [Project(row.name, row.organisation, row.created, row.archived) for row in found]


def organisations(ledger: Ledger) -> list[str]:
    """All organisations by name."""
    with ledger.reading() as connection:
        return list(connection.scalars(sa.select(tables.organisations.c.name)
                                       .order_by(tables.organisations.c.name)))


def set_allowance(ledger: Ledger, scope: str, allowance: Allowance, *, actor: str) -> None:
    """What `scope` may ask from now on; raises InputError for a limit that is none, UnknownName for
    a scope that is not there.
    """
    _check_allowance(allowance)
    values = {"models": None if allowance.models is None else json.dumps(list(allowance.models)),
              "requests_a_minute": allowance.requests_a_minute,
              "tokens_a_minute": allowance.tokens_a_minute,
              "concurrency": allowance.concurrency, "weight": allowance.weight}
    with ledger.writing() as connection:
        scope = check_scope(connection, scope)
        connection.execute(sa.delete(tables.allowances).where(tables.allowances.c.scope == scope))
        connection.execute(tables.allowances.insert().values(scope=scope, **values))
        audit.append(connection, actor, "allowance.set", scope, values)


def allowances(ledger: Ledger, scopes: Sequence[str] = ()) -> dict[str, Allowance]:
    """By scope; all of them where none is named."""
    with ledger.reading() as connection:
        return _allowances(connection, scopes)


def issue_key(ledger: Ledger, name: str, *, actor: str, project: str = DEFAULT,
              role: Role = "user", owner: str = "", expires: float | None = None,
              accepted: Sequence[str] = (), told: Mapping[str, str] | None = None) -> str:
    """Makes a key and returns its secret, which is kept nowhere.

    `accepted`: hashes of the texts that the owner accepts (`licences.needed` gives what is due);
    `told`: what they say of themselves. Raises licences.Unaccepted where one is missing,
    InputError where `name` has a live key, UnknownName for a project or role there is not.
    """
    keys.check_name(name)
    keys.check_words({"owner": owner, **(told or {})})
    if role not in ROLES:
        raise UnknownName("role", role, ROLES, where="keys")
    if expires is not None and not time.time() < expires < math.inf:
        raise InputError(f"{expires:g} is no time to come", where="expires",
                         mend="give seconds since 1970, after now")
    with ledger.writing() as connection:
        check_project(connection, project)
        if connection.scalar(sa.select(tables.keys.c.id).where(
                tables.keys.c.name == name, tables.keys.c.revoked.is_(None))):
            raise InputError(f"there is a key {name!r} already", where="keys",
                             mend=f"revoke it first (curbcut keys revoke {name}), or choose another"
                                  " name")
        texts = licences.demand(licences.binding(connection, project, role), accepted)
        id_, secret = keys.new_secret()
        licences.record(connection, id_, texts, who=owner or name, told=told or {}, actor=actor)
        _issue(ledger, connection, actor, "key.issued", id_, secret, {
            "name": name, "project": project, "role": role, "owner": owner, "expires": expires,
            "rotated_from": None})
        return secret


def rotate_key(ledger: Ledger, name: str, *, actor: str, grace_seconds: float = 0.0,
               accepted: Sequence[str] = ()) -> str:
    """A new secret for the live key of this name; the old one ends after `grace_seconds`.

    What was accepted for the old one counts for the new one. Raises licences.Unaccepted for a text
    that came since and is not in `accepted`; UnknownName; InputError for a time that is none.
    """
    if not 0 <= grace_seconds < math.inf:
        raise InputError(f"{grace_seconds:g} s is no time of grace", where="grace",
                         mend="give 0 or more")
    with ledger.writing() as connection:
        row = live_key(connection, name)
        check_project(connection, row.project)
        before = licences.accepted_hashes(connection, row.id)
        due = licences.binding(connection, row.project, row.role)
        texts = licences.demand(due, accepted, before)
        now = time.time()
        # Only one live key bears the name, so the old one goes on under a name that tells.
        if grace_seconds > 0:
            ends = min(row.expires or now + grace_seconds, now + grace_seconds)
            values: dict[str, Any] = {"name": f"{name[:48]}.{row.id}", "expires": ends}
        else:
            values = {"revoked": now}
        connection.execute(sa.update(tables.keys).where(tables.keys.c.id == row.id).values(values))
        id_, secret = keys.new_secret()
        licences.record(connection, id_, texts, who=row.owner or name, told={}, actor=actor)
        _issue(ledger, connection, actor, "key.rotated", id_, secret, {
            "name": name, "project": row.project, "role": row.role, "owner": row.owner,
            "expires": row.expires, "rotated_from": row.rotated_from or row.id})
        _inherit(connection, row.id, id_)
        return secret


def revoke_key(ledger: Ledger, name: str, *, actor: str) -> None:
    """Ends the live key of this name; raises UnknownName where there is none."""
    with ledger.writing() as connection:
        row = live_key(connection, name)
        connection.execute(sa.update(tables.keys).where(tables.keys.c.id == row.id)
                           .values(revoked=time.time()))
        audit.append(connection, actor, "key.revoked", f"key:{row.id}", {"name": name})


def kept_keys(ledger: Ledger) -> list[KeptKey]:
    """All keys, the oldest first."""
    with ledger.reading() as connection:
        found = connection.execute(sa.select(tables.keys).order_by(tables.keys.c.created))
        return [KeptKey(row.id, row.name, row.created, row.revoked, row.project, row.role,
                        row.owner, row.expires, row.rotated_from or "") for row in found]


def verify(ledger: Ledger, secret: object) -> Caller | None:
    """Whose live key this is, or None. Takes anything a stranger sends."""
    id_ = keys.id_of(secret)
    if id_ is None:
        return None
    with ledger.reading() as connection:
        row = connection.execute(
            sa.select(tables.keys, tables.projects.c.organisation)
            .join(tables.projects, tables.keys.c.project == tables.projects.c.name)
            .where(tables.keys.c.id == id_, tables.keys.c.revoked.is_(None),
                   tables.projects.c.archived.is_(None))).first()
        if row is None or (row.expires is not None and row.expires <= time.time()):
            return None
        pepper = ledger.pepper() if row.peppered else b""
        if not keys.answers(str(secret), row.salt, row.hash, pepper):
            return None
        caller = Caller(key_id=row.id, key=row.name, project=row.project,
                        organisation=row.organisation, role=row.role, owner=row.owner,
                        expires=row.expires, line=row.rotated_from or "")
        return replace(caller, allowances=_allowances(connection, caller.scopes),
                       unaccepted=licences.unaccepted_models(connection, row.id))


def scope_of_key(ledger: Ledger, name: str) -> str:
    """Where limits and budgets of the live key `name` stand; raises UnknownName."""
    with ledger.reading() as connection:
        row = live_key(connection, name)
        return f"key:{row.rotated_from or row.id}"


def _issue(ledger: Ledger, connection: sa.Connection, actor: str, action: str, id_: str,
           secret: str, values: Mapping[str, Any]) -> None:
    salt = secrets.token_hex(16)
    connection.execute(tables.keys.insert().values(
        id=id_, salt=salt, hash=keys.hashed(secret, salt, ledger.pepper(create=True)), peppered=1,
        created=time.time(), **values))
    audit.append(connection, actor, action, f"key:{id_}", values)


def _inherit(connection: sa.Connection, old: str, new: str) -> None:
    """What was accepted for a key counts for the one in its place."""
    accepted = sa.select(tables.acceptances).where(tables.acceptances.c.key_id == old)
    for line in connection.execute(accepted).all():
        kept = {name: value for name, value in line._mapping.items() if name != "id"}
        connection.execute(tables.acceptances.insert().values({**kept, "key_id": new}))


def _check_allowance(allowance: Allowance) -> None:
    for name in ("requests_a_minute", "tokens_a_minute", "concurrency"):
        value = getattr(allowance, name)
        if value is not None and not (isinstance(value, int) and 0 <= value < 2**53):
            raise InputError(f"{value} is no limit", where=name, mend="give a whole number, 0 or "
                             "more, or none")
    for model in allowance.models or ():
        keys.check_model(model, "models")
    if not 0 < allowance.weight <= 1000:
        raise InputError(f"{allowance.weight:g} is no weight", where="weight",
                         mend="give a number above 0, at most 1000")


def _allowances(connection: sa.Connection, scopes: Sequence[str]) -> dict[str, Allowance]:
    query = sa.select(tables.allowances)
    query = query.where(tables.allowances.c.scope.in_(scopes)) if scopes else query
    return {row.scope: Allowance(
        models=None if row.models is None else tuple(json.loads(row.models)),
        requests_a_minute=row.requests_a_minute, tokens_a_minute=row.tokens_a_minute,
        concurrency=row.concurrency, weight=row.weight) for row in connection.execute(query)}


def _named(table: sa.Table, name: str) -> sa.Select[Any]:
    return sa.select(table.c.name).where(table.c.name == name)

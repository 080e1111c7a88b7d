"""Hold before work, settle after: nothing overshoots a budget, nothing is charged twice.

    hold ──> held ──cover──> held ──settle──> gone: its use is recorded
                     ├──release──> gone         (nothing came of it)
                     └──reap────> abandoned     (its server died; what was covered is charged)
                                     └──cover, settle──> held again, if there is still room

A hold takes the most that a request can cost from each budget that applies, or from none of them
(`Exhausted`). Before anything is delivered it is *covered*: noted as delivered, durably. So a
server that is killed at any instant leaves of each request what was delivered at least, and that is
charged once, when its lease has run out: by any other server, or itself when it starts again.

A server that is only slow may find its hold abandoned, and the room given to others. It is held
again if there is room; otherwise cover and settle say `Lapsed`, and nothing more may be delivered.

Each function is one transaction; lists of requests share one. One writes at a time (`Ledger.
writing`), so that what was read in a transaction is so until its end.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from curbcut.ledger import budgets, leases, moves
from curbcut.ledger import schema as tables
from curbcut.ledger.amounts import UNITS, Amount
from curbcut.ledger.budgets import Budget
from curbcut.ledger.leases import LEASE_SECONDS, clock
from curbcut.ledger.moves import Moves, Place

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

__all__ = ["LEASE_SECONDS", "Exhausted", "Lapsed", "Taken", "Wanted", "beat", "close_server",
           "cover_all", "extend", "hold", "hold_all", "live", "open_server", "reap", "release_all",
           "settle", "settle_all"]

beat, open_server = leases.beat, leases.open_server


FORGOTTEN_SECONDS = 7 * 86400.0
"""Nobody settles an abandoned hold that is so old."""


class Exhausted(Exception):
    """A budget has no room for a request; nothing was held."""

    def __init__(self, budget: Budget, wanted: int) -> None:
        super().__init__(f"{budget.scope} has {budget.left} {budget.unit} left of "
                         f"{budget.amount} and {wanted} are asked for")
        self.budget, self.wanted = budget, wanted


class Lapsed(Exception):
    """A hold is held no longer: deliver nothing more. What was covered is charged."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A request that wants room in the budgets of its scopes."""

    scopes: Sequence[str]
    project: str
    organisation: str
    model: str
    most: Amount
    """What it can take at most."""
    key_id: str | None = None
    key: str | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    """Of the hold that it becomes: asked for again, it is held once."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a request took in the end."""

    prompt_tokens: int
    output_tokens: int
    nanousd: int
    """Charged by the price list."""
    millijoules: int | None = None
    """Its share of the machine's; None where not known."""
    cached_tokens: int = 0
    cost_nanousd: int | None = None
    seconds: float = 0.0
    """From acceptance to the end."""
    engine_seconds: float | None = None
    """Its share of the engine's steps."""
    finish: str = ""
    energy_basis: str = ""

    @property
    def charge(self) -> Amount:
        """What counts against budgets."""
        return Amount(tokens=self.prompt_tokens + self.output_tokens, nanousd=self.nanousd,
                      millijoules=self.millijoules or 0)


Told = Mapping[str, Taken] | Collection[tuple[str, Taken]]
"""What is said of holds, by their ids."""


def close_server(ledger: Ledger, server: str) -> None:
    """Ends a lease; what is still held is reaped at once."""
    leases.end(ledger, server)
    reap(ledger)


def hold(ledger: Ledger, server: str, wanted: Wanted) -> str:
    """Holds the most that a request can take; returns the hold's id. Raises Exhausted."""
    found = hold_all(ledger, server, [wanted])[0]
    if isinstance(found, Exhausted):
        raise found
    return found


def hold_all(ledger: Ledger, server: str, wanted: Sequence[Wanted]) -> list[str | Exhausted]:
    """The same for several requests in one transaction: each is held whole or not at all, the
    first ones first.
    """
    with ledger.writing() as connection:
        now = clock(connection)
        there = {row.id for row in moves.holds(connection, [one.id for one in wanted])}
        room = _room(connection, {scope for one in wanted for scope in one.scopes}, now)
        made: list[dict[str, Any]] = []
        moved, results = Moves(), list[str | Exhausted]()
        for one in wanted:
            fault = None if one.id in there else _take(room, moved, one.id, one.scopes, one.most)
            if fault is None and one.id not in there:
                there.add(one.id)
                made.append(_row_of(one, server, now))
            results.append(fault or one.id)
        if made:
            connection.execute(tables.holds.insert(), made)
        moved.write(connection)
    return results


def extend(ledger: Ledger, hold: str, more: Amount) -> None:
    """Holds more for a request that is held already; raises Exhausted, or KeyError where it is
    held no longer.
    """
    with ledger.writing() as connection:
        row = next(iter(moves.holds(connection, [hold])), None)
        if row is None or row.state != "held":
            raise KeyError(hold)
        scopes, moved = moves.scopes_of(connection, row), Moves()
        room = _room(connection, scopes, row.made)  # its balances are those of that period
        if fault := _take(room, moved, hold, scopes, more):
            raise fault
        moved.write(connection)
        connection.execute(sa.update(tables.holds).where(tables.holds.c.id == hold).values(
            {unit: tables.holds.c[unit] + more.of(unit) for unit in UNITS}))


def cover_all(ledger: Ledger, covered: Told) -> list[Lapsed | None]:
    """Notes of each hold what is delivered from now on at most, in the order given; a cover never
    shrinks. Where one is `Lapsed`, nothing more may be delivered.
    """
    told = list(covered.items() if isinstance(covered, Mapping) else covered)
    with ledger.writing() as connection:
        rows = _held(connection, moves.holds(connection, [id_ for id_, _ in told]))
        notes = {id_: _noted(row) for id_, row in rows.items()}
        for id_, taken in told:
            if id_ in notes:
                notes[id_] = {name: max(notes[id_][name], value)
                              for name, value in _said(taken).items()}
        moves.update_holds(connection, [{"of": id_, **note} for id_, note in notes.items()])
    return [None if id_ in rows else Lapsed(id_) for id_, _ in told]


def settle(ledger: Ledger, hold: str, taken: Taken) -> None:
    """Charges what a request took, once, and gives the rest of its hold back. Durable on return.

    A hold that is settled already is left as it is. Raises Lapsed where it was abandoned and has
    no room any more: only what it had covered is charged.
    """
    if fault := settle_all(ledger, {hold: taken})[0]:
        raise fault


def settle_all(ledger: Ledger, settled: Told) -> list[Lapsed | None]:
    """The same for several in one transaction, in the order given."""
    told = list(settled.items() if isinstance(settled, Mapping) else settled)
    with ledger.writing() as connection:
        there = moves.holds(connection, [id_ for id_, _ in told])
        rows = _held(connection, there)
        once: dict[str, Taken] = {}
        for id_, taken in told:
            if id_ in rows:
                once.setdefault(id_, taken)
        _charge(connection, [(rows[id_], taken) for id_, taken in once.items()])
        moves.forget(connection, list(once))
    lapsed = {row.id for row in there} - set(rows)
    return [Lapsed(id_) if id_ in lapsed else None for id_, _ in told]


def release_all(ledger: Ledger, released: Iterable[str]) -> None:
    """Gives whole holds back: nothing came of their requests."""
    with ledger.writing() as connection:
        rows = [row for row in moves.holds(connection, list(released)) if row.state == "held"]
        _charge(connection, [(row, None) for row in rows])
        moves.forget(connection, [row.id for row in rows])


def reap(ledger: Ledger, *, lease_seconds: float = LEASE_SECONDS) -> int:
    """Charges what was covered by holds of dead servers, and gives the rest back; how many.

    A server says that it lives (`beat`) before it reaps: it may have slept.
    """
    with ledger.writing() as connection:
        dead = leases.dead(connection, lease_seconds)
        found = connection.execute(sa.select(tables.holds).where(
            tables.holds.c.state == "held", tables.holds.c.server.in_(dead))).all()
        _charge(connection, [(row, _covered(row)) for row in found])
        moves.update_holds(connection, [{"of": row.id, "state": "abandoned"} for row in found])
        moves.forget(connection, connection.scalars(sa.select(tables.holds.c.id).where(
            tables.holds.c.state == "abandoned",
            tables.holds.c.made < clock(connection) - FORGOTTEN_SECONDS)).all())
        return len(found)


def live(ledger: Ledger) -> int:
    """Requests that are held now."""
    with ledger.reading() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(tables.holds).where(
            tables.holds.c.state == "held")) or 0)


def _room(connection: sa.Connection, scopes: Collection[str],
          now: float) -> dict[str, list[Budget]]:
    """Budgets as they stand, by scope."""
    room: dict[str, list[Budget]] = {}
    for budget in budgets.read(connection, sorted(scopes), now) if scopes else []:
        room.setdefault(budget.scope, []).append(budget)
    return room


def _take(room: Mapping[str, list[Budget]], moved: Moves, hold: str, scopes: Sequence[str],
          most: Amount) -> Exhausted | None:
    """Takes `most` from every budget of `scopes`; else from none, and the first without room."""
    lines = [(moves.place_of(budget), budget) for scope in scopes
             for budget in room.get(scope, ())]
    for place, budget in lines:
        standing = replace(budget, held=budget.held + moved.held.get(place, 0))
        wanted = most.of(budget.unit)
        # Joules are known afterwards: once a budget of them is empty, not even 0 has room.
        if wanted > standing.left or (budget.unit == "millijoules" and standing.left == 0):
            return Exhausted(standing, wanted)
    for place, budget in lines:
        moved.take(hold, place, most.of(budget.unit))
    return None


def _held(connection: sa.Connection, rows: Sequence[Any]) -> dict[str, Any]:
    """Those that are held, by id; abandoned ones again, where there is still room for them."""
    found: dict[str, Any] = {}
    for row in rows:
        if row.state == "held" or (row.state == "abandoned" and _revive(connection, row)):
            found[row.id] = row
    return found


def _revive(connection: sa.Connection, row: Any) -> bool:
    charged, moved = _covered(row).charge, Moves()
    for place, amount in moves.lines(connection, [row.id]):
        spent = min(charged.of(place.unit), amount)
        left = moves.left(connection, place)
        if left is not None and amount - spent > left:
            return False
        moved.move(place, held=amount, spent=-spent)
    moved.write(connection)
    connection.execute(sa.delete(tables.uses).where(tables.uses.c.hold == row.id))
    moves.update_holds(connection, [{"of": row.id, "state": "held"}])
    return True


def _charge(connection: sa.Connection, ended: Sequence[tuple[Any, Taken | None]]) -> None:
    """Turns what is held into what is charged, at each balance, and records the uses.

    Money and tokens are never charged beyond the hold. Joules are only known afterwards: what goes
    beyond their hold is charged as far as the budget has room; the use tells all of them.
    """
    taken = {row.id: one and _within(row, one) for row, one in ended}
    moved, beyond = Moves(), list[tuple[Place, int]]()
    for hold_, place, amount in moves.lines_of(connection, list(taken)):
        one = taken[hold_]
        charge = 0 if one is None else one.charge.of(place.unit)
        moved.move(place, held=-amount, spent=min(charge, amount))
        if charge > amount and place.unit == "millijoules":
            beyond.append((place, charge - amount))
    moved.write(connection)
    for place, more in beyond:
        left = moves.left(connection, place)
        moves.spend(connection, place, more if left is None else min(more, max(left, 0)))
    now = clock(connection)
    uses = [_use(row, taken[row.id], now) for row, one in ended
            if one is not None and (one.prompt_tokens or one.output_tokens)]
    if uses:
        connection.execute(tables.uses.insert(), uses)


def _within(row: Any, taken: Taken) -> Taken:
    return replace(taken, nanousd=min(taken.nanousd, row.nanousd))


def _use(row: Any, taken: Taken | None, now: float) -> dict[str, Any]:
    assert taken is not None
    return {"key": row.key, "model": row.model, "prompt_tokens": taken.prompt_tokens,
            "output_tokens": taken.output_tokens, "seconds": taken.seconds, "time": now,
            "hold": row.id, "key_id": row.key_id, "project": row.project,
            "organisation": row.organisation, "cached_tokens": taken.cached_tokens,
            "finish": taken.finish, "charged_nanousd": taken.nanousd,
            "cost_nanousd": taken.cost_nanousd, "millijoules": taken.millijoules,
            "energy_basis": taken.energy_basis, "engine_seconds": taken.engine_seconds}


def _row_of(wanted: Wanted, server: str, now: float) -> dict[str, Any]:
    return {"id": wanted.id, "server": server, "key_id": wanted.key_id, "key": wanted.key,
            "project": wanted.project, "organisation": wanted.organisation, "model": wanted.model,
            "made": now, "state": "held", "covered_prompt_tokens": 0, "covered_output_tokens": 0,
            "covered_nanousd": 0, "covered_millijoules": 0,
            **{unit: wanted.most.of(unit) for unit in UNITS}}


def _said(taken: Taken) -> dict[str, int]:
    return {"covered_prompt_tokens": taken.prompt_tokens,
            "covered_output_tokens": taken.output_tokens, "covered_nanousd": taken.nanousd,
            "covered_millijoules": taken.millijoules or 0}


def _noted(row: Any) -> dict[str, int]:
    return {name: getattr(row, name) for name in ("covered_prompt_tokens", "covered_output_tokens",
                                                  "covered_nanousd", "covered_millijoules")}


def _covered(row: Any) -> Taken:
    return Taken(prompt_tokens=row.covered_prompt_tokens, output_tokens=row.covered_output_tokens,
                 nanousd=row.covered_nanousd,
                 millijoules=min(row.covered_millijoules, row.millijoules) or None,
                 energy_basis="default" if row.covered_millijoules else "", finish="abandoned")

"""Hold before work, settle after: nothing overshoots a budget, nothing is charged twice.

    hold ──> held ──cover──> held ──settle──> settled
                     │
                     ├──release──> released     (nothing came of it)
                     └──reap────> abandoned     (its server died; what was covered is charged)
                                     └──settle──> settled (it was only slow: charged rightly)

A hold takes the most that a request can cost from each budget that applies, or from none of them
(`Exhausted`). Before anything is delivered it is *covered*: noted as delivered, durably. So a
server that is killed at any instant leaves of each request what was delivered at least, and that is
charged once, when its lease has run out: by any other server, or itself when it starts again.

Each function is one transaction; lists of requests share one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from curbcut.ledger import budgets
from curbcut.ledger import schema as tables
from curbcut.ledger.amounts import UNITS, Amount
from curbcut.ledger.budgets import Budget

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

LEASE_SECONDS = 30.0
"""A server that has not said for so long that it lives is dead."""


class Exhausted(Exception):
    """A budget has no room for a request; nothing was held."""

    def __init__(self, budget: Budget, wanted: int) -> None:
        super().__init__(f"{budget.scope} has {budget.left} {budget.unit} left of "
                         f"{budget.amount} and {wanted} are asked for")
        self.budget, self.wanted = budget, wanted


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


def open_server(ledger: Ledger) -> str:
    """Begins a lease; returns the server's id."""
    id_, now = secrets.token_hex(8), time.time()
    with ledger.writing() as connection:
        connection.execute(tables.servers.insert().values(id=id_, started=now, beat=now))
    return id_


def beat(ledger: Ledger, server: str) -> None:
    """The server lives; to be said well within `LEASE_SECONDS`."""
    with ledger.writing() as connection:
        connection.execute(sa.update(tables.servers).where(tables.servers.c.id == server)
                           .values(beat=time.time(), ended=None))


def close_server(ledger: Ledger, server: str) -> None:
    """Ends a lease; what is still held is reaped at once."""
    with ledger.writing() as connection:
        connection.execute(sa.update(tables.servers).where(tables.servers.c.id == server)
                           .values(ended=time.time()))
    reap(ledger)


def hold(ledger: Ledger, server: str, wanted: Wanted) -> str:
    """Holds the most that a request can take; returns the hold's id. Raises Exhausted."""
    found = hold_all(ledger, server, [wanted])[0]
    if isinstance(found, Exhausted):
        raise found
    return found


def hold_all(ledger: Ledger, server: str, wanted: Sequence[Wanted]) -> list[str | Exhausted]:
    """The same for several requests in one transaction: each is held whole or not at all."""
    now = time.time()
    with ledger.writing() as connection:
        return [_hold(connection, server, one, now) for one in wanted]


def extend(ledger: Ledger, hold: str, more: Amount) -> None:
    """Holds more for a request that is held already; raises Exhausted, or KeyError where it is
    held no longer.
    """
    with ledger.writing() as connection:
        row = _row(connection, hold)
        if row is None or row.state != "held":
            raise KeyError(hold)
        scopes = _scopes(row)
        if exhausted := _take(connection, hold, scopes, more, time.time()):
            raise exhausted
        connection.execute(sa.update(tables.holds).where(tables.holds.c.id == hold).values(
            {unit: tables.holds.c[unit] + more.of(unit) for unit in UNITS}))


def cover_all(ledger: Ledger, covered: Mapping[str, Taken]) -> None:
    """Notes of each hold what is delivered from now on at most; larger than what was noted."""
    with ledger.writing() as connection:
        for id_, taken in covered.items():
            connection.execute(sa.update(tables.holds).where(
                tables.holds.c.id == id_, tables.holds.c.state == "held").values(
                covered_prompt_tokens=taken.prompt_tokens,
                covered_output_tokens=taken.output_tokens, covered_nanousd=taken.nanousd,
                covered_millijoules=taken.millijoules or 0))


def settle(ledger: Ledger, hold: str, taken: Taken) -> None:
    """Charges what a request took, once, and gives the rest of its hold back. Durable on return.

    A hold that is settled already is left as it is.
    """
    settle_all(ledger, {hold: taken})


def settle_all(ledger: Ledger, settled: Mapping[str, Taken]) -> None:
    """The same for several in one transaction."""
    with ledger.writing() as connection:
        for id_, taken in settled.items():
            _settle(connection, id_, taken)


def release_all(ledger: Ledger, released: Iterable[str]) -> None:
    """Gives whole holds back: nothing came of their requests."""
    with ledger.writing() as connection:
        for id_ in released:
            if _turn(connection, id_, ("held",), "released"):
                _give_back(connection, id_, Amount())


def reap(ledger: Ledger, *, lease_seconds: float = LEASE_SECONDS) -> int:
    """Charges what was covered by holds of dead servers, and gives the rest back; how many."""
    limit = time.time() - lease_seconds
    with ledger.writing() as connection:
        dead = sa.select(tables.servers.c.id).where(sa.or_(
            tables.servers.c.beat < limit, tables.servers.c.ended.is_not(None)))
        found = connection.execute(sa.select(tables.holds).where(
            tables.holds.c.state == "held", tables.holds.c.server.in_(dead))).all()
        return sum(_abandon(connection, row) for row in found)


def live(ledger: Ledger) -> int:
    """Requests that are held now."""
    with ledger.reading() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(tables.holds).where(
            tables.holds.c.state == "held")) or 0)


def _hold(connection: sa.Connection, server: str, wanted: Wanted, now: float) -> str | Exhausted:
    id_ = secrets.token_hex(12)
    with connection.begin_nested() as attempt:
        connection.execute(tables.holds.insert().values(
            id=id_, server=server, key_id=wanted.key_id, key=wanted.key, project=wanted.project,
            organisation=wanted.organisation, model=wanted.model, made=now, state="held",
            covered_prompt_tokens=0, covered_output_tokens=0, covered_nanousd=0,
            covered_millijoules=0, **{unit: wanted.most.of(unit) for unit in UNITS}))
        exhausted = _take(connection, id_, wanted.scopes, wanted.most, now)
        if exhausted is not None:
            attempt.rollback()
            return exhausted
    return id_


def _take(connection: sa.Connection, hold: str, scopes: Sequence[str], most: Amount,
          now: float) -> Exhausted | None:
    """Takes `most` from every budget of `scopes`; the first one that has no room, else None."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for budget in budgets.read(connection, scopes, now):
        wanted = most.of(budget.unit)
        at = {"scope": budget.scope, "unit": budget.unit, "period": budget.period,
              "start": budget.start}
        connection.execute(insert(tables.balances).values(**at, spent=0, held=0)
                           .on_conflict_do_nothing())
        row = tables.balances.c
        done = connection.execute(
            sa.update(tables.balances).where(
                *budgets.place(budget.scope, budget.unit, budget.period, budget.start),
                row.spent + row.held + wanted <= budget.amount).values(held=row.held + wanted))
        if done.rowcount == 0:
            return Exhausted(budget, wanted)
        line = insert(tables.hold_lines).values(hold=hold, **at, amount=wanted)
        connection.execute(line.on_conflict_do_update(
            index_elements=["hold", "scope", "unit", "period"],
            set_={"amount": tables.hold_lines.c.amount + wanted}))
    return None


def _turn(connection: sa.Connection, hold: str, before: Sequence[str], after: str) -> bool:
    """Moves a hold on; False where somebody did already."""
    done = connection.execute(sa.update(tables.holds).where(
        tables.holds.c.id == hold, tables.holds.c.state.in_(before)).values(state=after))
    return bool(done.rowcount)


def _settle(connection: sa.Connection, hold: str, taken: Taken) -> None:
    row = _row(connection, hold)
    if row is None or not _turn(connection, hold, ("held", "abandoned"), "settled"):
        return
    if row.state == "held":
        _give_back(connection, hold, taken.charge)
        _use(connection, row, taken)
    else:  # it was thought dead, and charged what it had covered
        _charge_again(connection, row, taken)


def _abandon(connection: sa.Connection, row: Any) -> bool:
    if not _turn(connection, row.id, ("held",), "abandoned"):
        return False
    taken = _covered(row)
    _give_back(connection, row.id, taken.charge)
    if taken.prompt_tokens or taken.output_tokens:
        _use(connection, row, taken)
    return True


def _give_back(connection: sa.Connection, hold: str, charge: Amount) -> None:
    """Turns what is held into what is charged (never more than was held), at each balance."""
    lines = connection.execute(sa.select(tables.hold_lines).where(
        tables.hold_lines.c.hold == hold).order_by(
        tables.hold_lines.c.scope, tables.hold_lines.c.unit, tables.hold_lines.c.period)).all()
    row = tables.balances.c
    for line in lines:
        spent = min(charge.of(line.unit), line.amount)
        connection.execute(sa.update(tables.balances).where(
            *budgets.place(line.scope, line.unit, line.period, line.start)).values(
            held=row.held - line.amount, spent=row.spent + spent))


def _charge_again(connection: sa.Connection, hold: Any, taken: Taken) -> None:
    """In place of what was charged when it was thought dead."""
    before, after = _covered(hold).charge, taken.charge
    lines = connection.execute(sa.select(tables.hold_lines).where(
        tables.hold_lines.c.hold == hold.id)).all()
    row = tables.balances.c
    for line in lines:
        more = min(after.of(line.unit), line.amount) - min(before.of(line.unit), line.amount)
        connection.execute(sa.update(tables.balances).where(
            *budgets.place(line.scope, line.unit, line.period, line.start)).values(
            spent=row.spent + more))
    connection.execute(sa.delete(tables.uses).where(tables.uses.c.hold == hold.id))
    _use(connection, hold, taken)


def _use(connection: sa.Connection, row: Any, taken: Taken) -> None:
    connection.execute(tables.uses.insert().values(
        key=row.key, model=row.model, prompt_tokens=taken.prompt_tokens,
        output_tokens=taken.output_tokens, seconds=taken.seconds, time=time.time(), hold=row.id,
        key_id=row.key_id, project=row.project, organisation=row.organisation,
        cached_tokens=taken.cached_tokens, finish=taken.finish, charged_nanousd=taken.nanousd,
        cost_nanousd=taken.cost_nanousd, millijoules=taken.millijoules,
        energy_basis=taken.energy_basis, engine_seconds=taken.engine_seconds))


def _covered(row: Any) -> Taken:
    return Taken(prompt_tokens=row.covered_prompt_tokens, output_tokens=row.covered_output_tokens,
                 nanousd=row.covered_nanousd, millijoules=row.covered_millijoules or None,
                 energy_basis="default", finish="abandoned")


def _row(connection: sa.Connection, hold: str) -> Any:
    return connection.execute(sa.select(tables.holds).where(tables.holds.c.id == hold)
                              .with_for_update()).first()


def _scopes(row: Any) -> tuple[str, ...]:
    scopes = (f"organisation:{row.organisation}", f"project:{row.project}")
    return (*scopes, f"key:{row.key_id}") if row.key_id else scopes

"""`Ledger`: what is written to and read from the tables, one method a sentence."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from curbcut.errors import CurbcutError, DamagedFile, InputError, UnknownName
from curbcut.ledger import codec, pairs, pepper
from curbcut.ledger.engine import BUSY_SECONDS, connect, faults
from curbcut.ledger.inbox import Batch, Damage, Event
from curbcut.ledger.pairs import Pair
from curbcut.ledger.schema import (
    accounts,
    damaged_lines,
    events,
    figures,
    inbox_files,
    runs,
    uses,
)
from curbcut.spec import Account, Resolved, Run

Kind = Literal["forecast", "measured"]


@dataclass(frozen=True)
class RunLine:
    """One run in a list: its machine, when it was last recorded, the accounts it has."""

    name: str
    machine: str
    accelerator: str
    recorded: float
    accounts: tuple[tuple[str, str], ...]
    """(step, kind) of each, sorted."""


def open_ledger(where: str | os.PathLike[str], *, create: bool = True) -> Ledger:
    """Opens the ledger at a path (SQLite) or a URL ("postgresql://host/base").

    Makes it where there is none, unless `create` is False. Raises InputError for a place that
    cannot be written or a ledger of a newer version, DamagedFile for what is no ledger.
    """
    target = str(where) if "://" in str(where) else Path(where)
    return Ledger(connect(target, create=create))


class Ledger:
    """An open ledger. Several processes may hold one at once; a forked child opens its own."""

    def __init__(self, engine: sa.Engine) -> None:
        """Use `curbcut.ledger.open_ledger`, which makes and checks the engine."""
        self._engine = engine
        self._reader, self._writer = engine, engine.execution_options(curbcut_writing=True)
        if engine.dialect.name == "postgresql":
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ",
                                                    postgresql_readonly=True)
            # Whatever a database's own settings say: who had to wait must see what was written.
            self._writer = self._writer.execution_options(isolation_level="READ COMMITTED")
        # Threads of one process wait here: a database lets those who wait for it sleep for long.
        self._turn = threading.Lock()
        self._mine = threading.local()
        # A file by its path, as the person knows it; a server by its URL without the password.
        local = engine.url.get_backend_name() == "sqlite" and engine.url.database
        self.where = local or engine.url.render_as_string(hide_password=True)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the database."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, all of it as it stands at one instant."""
        with faults(self.where), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes, whole or not at all; it waits for its turn at once, and nobody
        else writes until its end. One inside another of the same thread is part of it.
        """
        outer: sa.Connection | None = getattr(self._mine, "connection", None)
        if outer is not None:
            yield outer
            return
        if not self._turn.acquire(timeout=2 * BUSY_SECONDS):
            raise CurbcutError(f"other threads held the ledger for {2 * BUSY_SECONDS} s",
                               where=str(self.where), mend="do the same again")
        try:
            with faults(self.where), self._writer.begin() as connection:
                self._mine.connection = connection
                yield connection
        finally:
            self._mine.connection = None
            self._turn.release()

    # Runs and their accounts

    def record_run(self, resolved: Resolved) -> None:
        """Records a resolved run; its accounts from now on belong to exactly this one."""
        with self.writing() as connection:
            _put_run(connection, resolved.run, resolved.origins, time.time())

    def resolved(self, run: str) -> Resolved | None:
        """The newest resolved run of this name, or None."""
        with self.reading() as connection:
            row = _newest_run(connection, run)
        if row is None or row.resolved is None:
            return None
        try:
            return Resolved(codec.run_from_plain(json.loads(row.resolved)), json.loads(row.origins))
        except (InputError, ValueError, TypeError, AttributeError) as error:
            raise DamagedFile(f"run {run!r} cannot be read back ({error})", where=self.where,
                              mend="it was recorded by another version of Curbcut") from None

    def runs(self) -> list[RunLine]:
        """All runs by name, the last recorded first."""
        query = sa.select(runs.c.name, runs.c.machine, runs.c.accelerator, runs.c.recorded,
                          accounts.c.step, accounts.c.kind)
        query = query.select_from(runs.outerjoin(accounts))
        with self.reading() as connection:
            found = connection.execute(query.order_by(runs.c.recorded.desc(), runs.c.id.desc()))
            lines: dict[str, tuple[Any, set[tuple[str, str]]]] = {}
            for row in found:
                _, kinds = lines.setdefault(row.name, (row, set()))
                if row.step is not None:
                    kinds.add((row.step, row.kind))
        return [RunLine(name, row.machine, row.accelerator, row.recorded, tuple(sorted(kinds)))
                for name, (row, kinds) in lines.items()]

    def record_account(self, run: str, step: str, kind: Kind, account: Account, *,
                       finished: bool = True) -> None:
        """Records what a run's step is to take, or took. `finished`: whether the step came to its
        end; a measurement of one that did not is no ground for calibration.

        Raises UnknownName for a run that was not recorded.
        """
        with self.writing() as connection:
            row = _newest_run(connection, run)
            if row is None:
                raise UnknownName("run", run, connection.scalars(sa.select(runs.c.name)),
                                  where=self.where)
            _put_account(connection, row.id, step, kind, account, finished, time.time(), None)

    def account(self, run: str, step: str, kind: Kind) -> Account | None:
        """The newest account of the newest run of this name; None where there is none."""
        with self.reading() as connection:
            row = _newest_run(connection, run)
            wanted = sa.select(accounts.c.id).where(
                accounts.c.run == (row.id if row else None), accounts.c.step == step,
                accounts.c.kind == kind)
            wanted = wanted.order_by(accounts.c.recorded.desc(), accounts.c.id.desc()).limit(1)
            id_ = connection.scalar(wanted)
            if id_ is None:
                return None
            found = connection.execute(sa.select(figures).where(figures.c.account == id_))
            return codec.account([dict(figure) for figure in found.mappings()], self.where)

    def steps(self, run: str) -> list[str]:
        """Steps of which the newest run of this name has an account, in the order of the circle."""
        with self.reading() as connection:
            row = _newest_run(connection, run)
            wanted = sa.select(accounts.c.step).where(accounts.c.run == (row.id if row else None))
            found = connection.scalars(wanted.group_by(accounts.c.step)
                                       .order_by(sa.func.min(accounts.c.id)))
            return list(found)

    def pairs(self, *, machine: str = "", step: str = "train") -> list[Pair]:
        """Newest forecast and measurement of each finished run, newest first (`pairs.NEWEST` at
        most). `machine` narrows to runs on that machine or accelerator name.
        """
        values = {"machine": machine, "step": step, "newest": pairs.NEWEST}
        with self.reading() as connection:
            found = connection.execute(sa.text(pairs.QUERY), values).all()
        return pairs.collect(found, self.where)

    # Events that processes left

    def events(self, run: str, kind: str = "", *, limit: int = 100_000) -> list[Event]:
        """Events of a run in the order of time; of one kind only if `kind` is given."""
        query = sa.select(events).where(events.c.run == run)
        if kind:
            query = query.where(events.c.kind == kind)
        query = query.order_by(events.c.time, events.c.process, events.c.sequence).limit(limit)
        with self.reading() as connection:
            return [Event(row.run, row.process, row.sequence, row.time, row.kind,
                          json.loads(row.body)) for row in connection.execute(query)]

    def inbox_offset(self, folder: str, file: str) -> int:
        """Bytes of an inbox file that have been taken in."""
        with self.reading() as connection:
            return connection.scalar(_offset(folder, file)) or 0

    def absorb(self, folder: str, file: str, batch: Batch) -> bool:
        """Takes in a batch, whole or not at all; False if another import was there first."""
        with self.writing() as connection:
            place = {"folder": folder, "file": file}
            connection.execute(_insert_new(connection, inbox_files), {**place, "offset_bytes": 0})
            taken: Any = connection.scalar(_offset(folder, file).with_for_update())
            if taken != batch.start:
                return False
            damaged = list(batch.damaged)
            for offset, event in batch.events:
                fault = _take_noun(connection, event)
                damaged += [Damage(file, offset, fault)] if fault else []
            if batch.events:
                connection.execute(_insert_new(connection, events), [
                    {"run": e.run, "process": e.process, "sequence": e.sequence, "time": e.time,
                     "kind": e.kind, "body": json.dumps(e.body)} for _, e in batch.events])
            if damaged:
                connection.execute(_insert_new(connection, damaged_lines), [
                    {**place, "offset_bytes": d.offset_bytes, "reason": d.reason} for d in damaged])
            connection.execute(
                sa.update(inbox_files)
                .where(inbox_files.c.folder == folder, inbox_files.c.file == file)
                .values(offset_bytes=batch.end))
            return True

    def damage(self, folder: str) -> tuple[Damage, ...]:
        """Lines of a run's inbox that could not be read, by file and place."""
        query = sa.select(damaged_lines).where(damaged_lines.c.folder == folder)
        query = query.order_by(damaged_lines.c.file, damaged_lines.c.offset_bytes)
        with self.reading() as connection:
            return tuple(Damage(row.file, row.offset_bytes, row.reason)
                         for row in connection.execute(query))

    # Keys and what they used (`access` has the rest)

    def pepper(self, *, create: bool = False) -> bytes:
        """What hashes of keys need beside the ledger; see `pepper.read`."""
        return pepper.read(str(self.where), create=create)

    def record_use(self, key: str | None, model: str, *, prompt_tokens: int, output_tokens: int,
                   seconds: float, **more: Any) -> None:
        """Records one answered request for which nothing was held; durable when this returns.

        `more`: other columns of `uses`, as `cached_tokens`, `millijoules`, `cost_nanousd`.
        """
        with self.writing() as connection:
            connection.execute(uses.insert().values(
                key=key, model=model, prompt_tokens=prompt_tokens, output_tokens=output_tokens,
                seconds=seconds, time=time.time(), **more))


def _insert_new(connection: sa.Connection, table: sa.Table) -> Any:
    """An insert that leaves rows alone whose primary key is there already."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def _offset(folder: str, file: str) -> sa.Select[tuple[int]]:
    return sa.select(inbox_files.c.offset_bytes).where(
        inbox_files.c.folder == folder, inbox_files.c.file == file)


def _newest_run(connection: sa.Connection, name: str, digest: str = "") -> Any:
    query = sa.select(runs).where(runs.c.name == name)
    query = query.where(runs.c.digest == digest) if digest else query
    return connection.execute(
        query.order_by(runs.c.recorded.desc(), runs.c.id.desc()).limit(1)).first()


def _put_run(connection: sa.Connection, run: Run, origins: Mapping[str, str],
             when: float) -> None:
    plain = codec.plain_run(run)
    values = {"name": run.name, "digest": codec.digest(plain), "machine": run.machine.name,
              "accelerator": run.machine.accelerator, "resolved": json.dumps(plain),
              "origins": json.dumps(dict(origins)), "recorded": when}
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(runs).values(values)
    # Seen again, a run only becomes the newest of its name; an old line makes nothing newer.
    connection.execute(statement.on_conflict_do_update(
        index_elements=["name", "digest"],
        set_={"recorded": when, "origins": values["origins"]},
        where=runs.c.recorded < when))


def _put_account(connection: sa.Connection, run: int, step: str, kind: str, account: Account,
                 finished: bool, when: float, origin: str | None) -> None:
    made = connection.execute(accounts.insert().values(
        run=run, step=step, kind=kind, finished=int(finished), recorded=when, origin=origin))
    assert made.inserted_primary_key is not None
    found = codec.rows(account)
    if found:
        id_ = made.inserted_primary_key[0]
        connection.execute(figures.insert(), [{"account": id_, **row} for row in found])


def _take_noun(connection: sa.Connection, event: Event) -> str | None:
    """Puts a run or account that came as an event where it belongs; returns why it could not."""
    if event.kind not in ("run", "account"):
        return None
    body = event.body
    try:
        if "\\u0000" in _clean_text(body):
            return "holds a NUL, which no database keeps"
        if event.kind == "run":
            run = codec.run_from_plain(body["run"])
            if run.name != event.run:
                return "records a run of another name"
            _put_run(connection, run, dict(body["origins"]), event.time)
        else:
            return _take_account(connection, event)
    except (CurbcutError, KeyError, TypeError, ValueError, AttributeError) as error:
        return f"is no {event.kind} ({str(error).splitlines()[0] if str(error) else 'cut'})"
    return None


def _clean_text(body: Mapping[str, Any]) -> str:
    """`body` as JSON; raises UnicodeEncodeError (a ValueError) for text that is no Unicode."""
    text = json.dumps(body, ensure_ascii=False)
    text.encode()
    return text


def _take_account(connection: sa.Connection, event: Event) -> str | None:
    body = event.body
    origin = f"{event.run}/{event.process}/{event.sequence}"
    if connection.scalar(sa.select(accounts.c.id).where(accounts.c.origin == origin)):
        return None
    if body["kind"] not in ("forecast", "measured"):
        return "is an account of no known kind"
    row = _newest_run(connection, event.run, body["run_digest"])
    if row is None:
        return "is an account of a run that was never recorded"
    _put_account(connection, row.id, str(body["step"]), body["kind"],
                 codec.from_plain(body["account"], origin), bool(body["finished"]), event.time,
                 origin)
    return None

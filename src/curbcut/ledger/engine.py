"""From a path or URL to a connected engine, with each fault as one clear error."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from curbcut.errors import CurbcutError, DamagedFile, InputError
from curbcut.ledger import migrations, schema

BUSY_SECONDS = 30
"""How long one process waits for another's write."""

_ADVISORY_LOCK = 0x6375726263757400
"""PostgreSQL lock under which all writing is done ("curbcut")."""


def connect(target: str | Path, *, create: bool = True) -> sa.Engine:
    """An engine on `target` whose tables are there and of this version.

    Raises InputError (cannot be written, newer version, no driver) or DamagedFile (no ledger).
    """
    where = str(target)
    if isinstance(target, Path):
        _check_path(target, create)
        url: sa.URL = sa.URL.create("sqlite", database=str(target))
    else:
        url = _read_url(target)
        where = url.render_as_string(hide_password=True)
    engine = _make_engine(url, where)
    try:
        with faults(where):
            _prepare(engine, where)
    except CurbcutError:
        engine.dispose()
        raise
    return engine


def _check_path(path: Path, create: bool) -> None:
    if path.is_dir():
        raise InputError("is a folder, not a ledger", where=str(path),
                         mend="name a file, like runs/ledger.sqlite")
    if path.parent.exists() and not path.parent.is_dir():
        raise InputError("is a file, not a folder of runs", where=str(path.parent),
                         mend="name a folder with --runs")
    if not path.exists() and not create:
        raise InputError("no ledger here yet", where=str(path),
                         mend="`curbcut go`, `curbcut train` or `curbcut keys add` makes one; or "
                              "name its folder with --runs")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make its folder ({error.strerror})", where=str(path),
                         mend="choose a folder that you may write") from None


def _read_url(text: str) -> sa.URL:
    try:
        url = sa.make_url(text)
    except sa.exc.ArgumentError:
        raise InputError("cannot be read as a database URL", where="the ledger",
                         mend="write postgresql://user@host/base, or a path") from None
    family = url.get_backend_name()
    if family not in ("sqlite", "postgresql"):
        raise InputError(f"a ledger cannot be kept in {family}", where="the ledger",
                         mend="use a path (SQLite) or a postgresql:// URL")
    # SQLAlchemy's default driver is the old psycopg2; ours is its successor.
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _make_engine(url: sa.URL, where: str) -> sa.Engine:
    try:
        # A pooled connection may be of a server that was started anew since.
        engine = sa.create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
    except ModuleNotFoundError as error:
        raise InputError(f"this database needs {error.name}, which is not installed", where=where,
                         mend="pip install 'psycopg[binary]'") from None
    if url.get_backend_name() == "sqlite":
        sa.event.listen(engine, "connect", _set_pragmas)
    else:
        sa.event.listen(engine, "connect", _set_limits)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions by itself: _begin says which kind each one is.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    _enter_wal(cursor)
    cursor.close()


def _enter_wal(cursor: sqlite3.Cursor) -> None:
    # Entering WAL does not wait on the busy timeout when another process is opening the same
    # new file, so it waits here. A file system without WAL keeps its own journal: also right.
    limit = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > limit:
                raise
            time.sleep(0.02)


def _set_limits(connection: Any, _record: object) -> None:
    # A writer that is stopped in the middle (a laptop asleep) must not keep all others waiting.
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {BUSY_SECONDS * 1000}")
        cursor.execute("SET synchronous_commit = on")
    connection.commit()


def _begin(connection: sa.Connection) -> None:
    # A reader that turns writer half-way would fail at once when another wrote in between;
    # a writer therefore says so at its beginning, and waits its turn. PostgreSQL would let many
    # write; one at a time, as in SQLite, what a transaction has read stays so until its end, and
    # no two wait for each other.
    writing = connection.get_execution_options().get("curbcut_writing")
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
    elif writing:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")


def _prepare(engine: sa.Engine, where: str) -> None:
    with engine.begin() as connection:
        names = set(sa.inspect(connection).get_table_names())
        if schema.about.name in names and _version(connection, where) == schema.VERSION:
            return
    with engine.execution_options(curbcut_writing=True).begin() as connection:
        names = set(sa.inspect(connection).get_table_names())
        if schema.about.name in names:
            migrations.upgrade(connection, _version(connection, where))
            return
        if names & set(schema.metadata.tables):
            raise DamagedFile("holds tables of something else", where=where,
                              mend="give the ledger a file or database of its own")
        schema.metadata.create_all(connection)
        connection.execute(schema.about.insert().values(version=schema.VERSION,
                                                        created=time.time()))
        migrations.seed(connection)


def _version(connection: sa.Connection, where: str) -> int:
    """Of the tables there; raises DamagedFile without one, InputError for one from later."""
    version = connection.scalar(sa.select(sa.func.max(schema.about.c.version)))
    if version is None:
        raise DamagedFile("does not say its version", where=where,
                          mend="restore it from a copy, or move it aside to begin a new one")
    if version > schema.VERSION:
        raise InputError(f"is of version {version}; this Curbcut knows {schema.VERSION}",
                         where=where, mend="upgrade with: pip install -U curbcut")
    return int(version)


@contextmanager
def faults(where: str) -> Iterator[None]:
    """Turns what a database driver raises inside into one error that says the mend."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DBAPIError as error:
        raise _translate(error, where) from error


def _translate(error: sa.exc.DBAPIError, where: str) -> CurbcutError:
    original: Any = error.orig
    text = str(original).strip().splitlines()[0] if str(original).strip() else "no word of why"
    code = getattr(original, "sqlite_errorname", "") or ""
    state = getattr(original, "sqlstate", "") or ""
    if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
        return InputError("the ledger cannot be written", where=where,
                          mend="give yourself write permission on it and its folder, or choose"
                               " another folder with --runs")
    if code.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT", "SQLITE_ERROR")):
        return DamagedFile(f"the ledger is damaged ({text})", where=where,
                           mend="restore it from a copy, or move it aside: the runs' own lines"
                                " (metrics/*.jsonl) are imported again into a new one")
    if code.startswith("SQLITE_FULL"):
        return InputError("the disk is full; nothing of this was written", where=where,
                          mend="free some space and run the same command again")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or state == "55P03":
        return CurbcutError(f"another process held the ledger for {BUSY_SECONDS} s", where=where,
                            mend="run the same command again")
    return CurbcutError(f"the ledger cannot be used ({text})", where=where,
                        mend="check that the database runs and that you may use it")

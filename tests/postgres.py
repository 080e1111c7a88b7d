"""A private PostgreSQL for tests, from what is installed here, in a folder of its own."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from without import hidden

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

PLACES = "/usr/lib/postgresql/*/bin"
_SETTINGS = ["-c", "shared_buffers=32MB", "-c", "max_connections=200", "-c", "listen_addresses="]
_QUICK = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off", "-c", "jit=off"]
"""No power fails between two tests; a server that is killed keeps what it was told all the same."""
_numbers = itertools.count()


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest there is."""
    if hidden("postgresql"):
        return None
    found = sorted(Path("/").glob(PLACES.lstrip("/")), key=lambda path: float(path.parent.name))
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else (found[-1] if found else None)


def _as(user: str | None) -> dict[str, object]:
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid,
                                    "extra_groups": []}


@contextlib.contextmanager
def server(*, synced: bool = False) -> Iterator[str]:
    """URL of a server without databases but its own; skips the test where none is installed.

    `synced`: what is committed would survive that power fails.
    """
    where = programs()
    if where is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    user = "nobody" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        data = f"{folder}/data"
        subprocess.run([where / "initdb", "-D", data, "-U", "ann", "-A", "trust", "-N",
                        "-E", "UTF8", "--locale=C"],
                       check=True, cwd=folder, stdout=subprocess.DEVNULL, **_as(user))
        with Path(f"{folder}/log").open("w") as log:
            running = subprocess.Popen([where / "postgres", "-D", data, "-k", folder, *_SETTINGS,
                                        *([] if synced else _QUICK)],
                                       cwd=folder, stderr=log, **_as(user))
        try:
            url = f"postgresql://ann@/postgres?host={folder}"
            _wait(url, running, Path(f"{folder}/log"))
            yield url
        finally:
            running.send_signal(signal.SIGQUIT)
            running.wait(60)


def _wait(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if running.poll() is not None:
                pytest.skip(f"PostgreSQL does not start: {log.read_text()[-500:]}")
            time.sleep(0.02)


def emptied(url: str) -> str:
    """The same database, with nothing in it: much cheaper than a new one, to make and to delete."""
    import psycopg

    with psycopg.connect(url, autocommit=True, options="-c client_min_messages=warning") as one:
        one.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return url


def cleared(ledger: Ledger) -> Ledger:
    """The same ledger as it was when it was new, save for its numbers: cheaper than `emptied`."""
    import sqlalchemy as sa

    from curbcut.ledger import migrations, schema

    with ledger.writing() as connection:
        # Without the guard of the audit chain, and in any order.
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        for table in schema.metadata.tables.values():
            if table is not schema.about:
                connection.execute(sa.delete(table))
        migrations.seed(connection)
    return ledger


def new_database(url: str) -> str:
    """A new, empty database of the server at `url`; its URL."""
    import psycopg

    name = f"test{next(_numbers)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return url.replace("/postgres?", f"/{name}?")

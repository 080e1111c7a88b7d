"""The ledger's tables, for SQLite and PostgreSQL alike.

    runs ──< accounts ──< figures        events      keys      uses
                                         inbox_files, damaged_lines (what an import has read)

Times are seconds since 1970 (UTC). A figure whose `value` is NULL was looked for and not known.
"""

from __future__ import annotations

import sqlalchemy as sa

VERSION = 1
"""Version of these tables. A ledger of a newer version is refused, never guessed at."""

metadata = sa.MetaData()

about = sa.Table(
    "curbcut_ledger", metadata,
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("created", sa.Double, nullable=False),
)
runs = sa.Table(
    "runs", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("machine", sa.Text, nullable=False),
    sa.Column("accelerator", sa.Text, nullable=False),
    sa.Column("resolved", sa.Text),
    sa.Column("origins", sa.Text),
    sa.Column("recorded", sa.Double, nullable=False),
    sa.UniqueConstraint("name", "digest"),
)
"""One row for each different resolved run of a name: an account belongs to what was executed."""

accounts = sa.Table(
    "accounts", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("run", sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("finished", sa.Integer, nullable=False),
    sa.Column("recorded", sa.Double, nullable=False),
    sa.Column("origin", sa.Text, unique=True),
    sa.CheckConstraint("kind IN ('forecast', 'measured')"),
)
figures = sa.Table(
    "figures", metadata,
    sa.Column("account", sa.ForeignKey("accounts.id"), primary_key=True),
    sa.Column("section", sa.Text, primary_key=True),
    sa.Column("figure", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("low", sa.Double),
    sa.Column("high", sa.Double),
    sa.Column("basis", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
)
events = sa.Table(
    "events", metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("process", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("events_by_time", "run", "kind", "time"),
)
inbox_files = sa.Table(
    "inbox_files", metadata,
    sa.Column("folder", sa.Text, primary_key=True),
    sa.Column("file", sa.Text, primary_key=True),
    sa.Column("offset_bytes", sa.BigInteger, nullable=False),
)
damaged_lines = sa.Table(
    "damaged_lines", metadata,
    sa.Column("folder", sa.Text, primary_key=True),
    sa.Column("file", sa.Text, primary_key=True),
    sa.Column("offset_bytes", sa.BigInteger, primary_key=True),
    sa.Column("reason", sa.Text, nullable=False),
)
keys = sa.Table(
    "keys", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("revoked", sa.Double),
)
sa.Index("one_live_key_a_name", keys.c.name, unique=True,
         sqlite_where=keys.c.revoked.is_(None), postgresql_where=keys.c.revoked.is_(None))
uses = sa.Table(
    "uses", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, index=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
)

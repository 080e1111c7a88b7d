"""The ledger's tables, for SQLite and PostgreSQL alike.

    runs ──< accounts ──< figures        events
                                         inbox_files, damaged_lines (what an import has read)
    organisations ──< projects ──< keys ──< holds ──< hold_lines     uses     prices
    allowances, budgets ──< balances (each of an organisation, a project or a key)
    licences ──< acceptances             servers ──< meterings       audit

Times are seconds since 1970 (UTC). A figure whose `value` is NULL was looked for and not known.
What is counted against a budget is whole numbers (tokens, nanodollars, millijoules): sums of them
are exact, so that nothing overshoots by a rounding.
"""

from __future__ import annotations

import sqlalchemy as sa

VERSION = 2
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
organisations = sa.Table(
    "organisations", metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("archived", sa.Double),
)
projects = sa.Table(
    "projects", metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("organisation", sa.ForeignKey("organisations.name"), nullable=False, index=True),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("archived", sa.Double),
)
keys = sa.Table(
    "keys", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("salt", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("revoked", sa.Double),
    sa.Column("project", sa.Text, nullable=False, server_default="default", index=True),
    sa.Column("role", sa.Text, nullable=False, server_default="user"),
    sa.Column("owner", sa.Text, nullable=False, server_default=""),
    sa.Column("expires", sa.Double),
    sa.Column("peppered", sa.Integer, nullable=False, server_default="0"),
    sa.Column("rotated_from", sa.Text),
)
sa.Index("one_live_key_a_name", keys.c.name, unique=True,
         sqlite_where=keys.c.revoked.is_(None), postgresql_where=keys.c.revoked.is_(None))
allowances = sa.Table(
    "allowances", metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("models", sa.Text),
    sa.Column("requests_a_minute", sa.BigInteger),
    sa.Column("tokens_a_minute", sa.BigInteger),
    sa.Column("concurrency", sa.BigInteger),
    sa.Column("weight", sa.Double, nullable=False, server_default="1"),
)
"""What a scope ("organisation:lab", "project:thesis", "key:00c0ffee") may ask at a time; NULL is no
limit of its own."""
budgets = sa.Table(
    "budgets", metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("unit", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.CheckConstraint("unit IN ('tokens', 'nanousd', 'millijoules')"),
    sa.CheckConstraint("period IN ('all', 'month', 'day')"),
    sa.CheckConstraint("amount >= 0"),
)
balances = sa.Table(
    "balances", metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("unit", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("spent", sa.BigInteger, nullable=False),
    sa.Column("held", sa.BigInteger, nullable=False),
    sa.CheckConstraint("spent >= 0"),
    sa.CheckConstraint("held >= 0"),
)
"""What is spent and held of a budget in the period that begins at `start`."""
servers = sa.Table(
    "servers", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("started", sa.Double, nullable=False),
    sa.Column("beat", sa.Double, nullable=False),
    sa.Column("ended", sa.Double),
)
"""Serving processes; the holds of one whose beat is old are taken over by any other."""
holds = sa.Table(
    "holds", metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("server", sa.ForeignKey("servers.id"), nullable=False, index=True),
    sa.Column("key_id", sa.Text),
    sa.Column("key", sa.Text),
    sa.Column("project", sa.Text, nullable=False),
    sa.Column("organisation", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("made", sa.Double, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("nanousd", sa.BigInteger, nullable=False),
    sa.Column("millijoules", sa.BigInteger, nullable=False),
    sa.Column("covered_prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("covered_output_tokens", sa.BigInteger, nullable=False),
    sa.Column("covered_nanousd", sa.BigInteger, nullable=False),
    sa.Column("covered_millijoules", sa.BigInteger, nullable=False),
    sa.CheckConstraint("state IN ('held', 'settled', 'released', 'abandoned')"),
    sa.Index("live_holds", "state", "server"),
)
"""`covered`: what was noted, before it was delivered, as delivered at most; what is charged when
the server dies."""
hold_lines = sa.Table(
    "hold_lines", metadata,
    sa.Column("hold", sa.ForeignKey("holds.id"), primary_key=True),
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("unit", sa.Text, primary_key=True),
    sa.Column("period", sa.Text, primary_key=True),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
)
"""From which balance how much is held."""
uses = sa.Table(
    "uses", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, index=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("hold", sa.Text),
    sa.Column("key_id", sa.Text),
    sa.Column("project", sa.Text),
    sa.Column("organisation", sa.Text),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("finish", sa.Text, nullable=False, server_default=""),
    sa.Column("charged_nanousd", sa.BigInteger),
    sa.Column("cost_nanousd", sa.BigInteger),
    sa.Column("millijoules", sa.BigInteger),
    sa.Column("energy_basis", sa.Text, nullable=False, server_default=""),
    sa.Column("engine_seconds", sa.Double),
)
"""One row a request that was answered, or begun. `charged`: by the price list; `cost`: its share of
the machine's; NULL where not known."""
sa.Index("one_use_a_hold", uses.c.hold, unique=True)
sa.Index("uses_by_time", uses.c.time)
prices = sa.Table(
    "prices", metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("since", sa.Double, primary_key=True),
    sa.Column("prompt_nanousd", sa.BigInteger, nullable=False),
    sa.Column("cached_nanousd", sa.BigInteger, nullable=False),
    sa.Column("output_nanousd", sa.BigInteger, nullable=False),
    sa.Column("prompt_millijoules", sa.BigInteger),
    sa.Column("output_millijoules", sa.BigInteger),
    sa.Column("basis", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
)
"""What a million tokens cost; and, for holds, the joules that they take at most."""
meterings = sa.Table(
    "meterings", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("server", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("start", sa.Double, nullable=False),
    sa.Column("end", sa.Double, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("millijoules", sa.BigInteger),
    sa.Column("cost_nanousd", sa.BigInteger),
    sa.Column("kgco2e", sa.Double),
    sa.Column("basis", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.CheckConstraint("kind IN ('requests', 'idle', 'lost', 'correction')"),
    sa.Index("meterings_by_time", "start"),
)
"""Where a server's joules and money went, by stretches of time: to requests, to nobody (idle), to
work whose request was never settled (lost), and what makes the sum equal the counter's."""
licences = sa.Table(
    "licences", metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("hash", sa.Text, primary_key=True),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("set", sa.Double, nullable=False),
    sa.Column("ended", sa.Double),
)
"""Texts that must be accepted before a key is issued for a project or a model ("model:NAME")."""
acceptances = sa.Table(
    "acceptances", metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key_id", sa.Text, nullable=False, index=True),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("told", sa.Text, nullable=False),
    sa.Column("time", sa.Double, nullable=False),
)
audit = sa.Table(
    "audit", metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
"""Who changed what: each row holds the hash of the row before it."""

_SAYS = "the audit chain is append-only"
_GUARDS = {
    "sqlite": [f"CREATE TRIGGER audit_{word.lower()} BEFORE {word} ON audit "
               f"BEGIN SELECT RAISE(ABORT, '{_SAYS}'); END" for word in ("UPDATE", "DELETE")],
    "postgresql": [
        "CREATE FUNCTION audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION '{_SAYS}' USING ERRCODE = 'restrict_violation'; END $$",
        "CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_stays()"],
}


@sa.event.listens_for(audit, "after_create")
def _guard(_table: sa.Table, connection: sa.Connection, **_told: object) -> None:
    for statement in _GUARDS[connection.dialect.name]:
        connection.exec_driver_sql(statement)

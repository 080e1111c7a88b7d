"""What was promised of each run's training, by section and kind: of many runs in one look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curbcut.ledger.store import Ledger

Figures = dict[tuple[str, str], dict[str, Any]]

_FORECASTS = """
SELECT newest.name, figures.section, figures.figure, figures.value, figures.low, figures.high,
       figures.basis, figures.source
FROM (SELECT accounts.id AS id, runs.name AS name,
             ROW_NUMBER() OVER (PARTITION BY runs.name
                                ORDER BY runs.recorded DESC, runs.id DESC,
                                         accounts.recorded DESC, accounts.id DESC) AS place
      FROM accounts JOIN runs ON runs.id = accounts.run
      WHERE runs.name IN :names AND accounts.step = 'train' AND accounts.kind = 'forecast') newest
JOIN figures ON figures.account = newest.id
WHERE newest.place = 1 AND figures.value IS NOT NULL AND figures.section IN :sections"""
_SECTIONS = ("loss", "tokens_per_second", "mfu", "memory_bytes", "watts", "usd", "kwh")


def promises(ledger: Ledger, runs: list[str]) -> dict[str, Figures]:
    """The known figures of each run's newest forecast of its training."""
    import sqlalchemy as sa

    query = sa.text(_FORECASTS).bindparams(sa.bindparam("names", expanding=True),
                                           sa.bindparam("sections", expanding=True))
    found: dict[str, Figures] = {}
    with ledger.reading() as connection:
        for name, section, kind, *figure in connection.execute(
                query, {"names": runs, "sections": list(_SECTIONS)}):
            found.setdefault(name, {})[section, kind] = dict(
                zip(("value", "low", "high", "basis", "source"), figure, strict=True))
    return found

"""Ways to rent, as people name them."""

from __future__ import annotations

from curbcut.errors import UnknownName

ANY = "any"
CONTRACTS = ("on-demand", "spot", "reserved-1y", "reserved-3y")
FREE = ("on-demand", "spot")
"""Contracts of `any`: one that binds for years is never cheaper for a single run."""


def contracts_of(text: str, where: str) -> list[str]:
    """Those that a text names, with commas between them; raises UnknownName."""
    said = [name.strip() for name in text.split(",") if name.strip()]
    if ANY in said:
        return list(FREE)
    for one in said:
        if one not in CONTRACTS:
            raise UnknownName("contract", one, (*CONTRACTS, ANY), where=where)
    return said

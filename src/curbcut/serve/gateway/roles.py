"""Which roles may take which paths. A path that names nobody lets nobody in.

Where no keys are needed everybody may do all that this machine serves.
"""

from __future__ import annotations

from collections.abc import Set

from curbcut.ledger.access import ROLES, Caller, Role
from curbcut.serve.gateway.refusal import Refused

EVERYBODY: Set[Role] = frozenset(ROLES)
ASK: Set[Role] = frozenset(("user",))
"""Asking models: whoever sets limits does not spend under them."""
WATCH: Set[Role] = frozenset(("admin", "operator", "auditor"))
"""What all keys together do."""


def check_role(caller: Caller | None, roles: Set[Role], what: str) -> None:
    """Raises Refused (403) for a caller of another role."""
    if caller is not None and caller.role not in roles:
        may = " or ".join(role for role in ROLES if role in roles) or "no"
        raise Refused(403, f"A key of role {caller.role} may not {what}: that takes a key of role "
                           f"{may}.", code="role_not_allowed", retry=False)

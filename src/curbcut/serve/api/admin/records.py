"""What was used, and who changed what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curbcut.ledger import audit, plain, usage
from curbcut.ledger.said import LATEST
from curbcut.serve.api.admin.act import AUDIT, Act, Wish
from curbcut.serve.api.admin.fields import KEY_ID, NAME, line, matching, several
from curbcut.serve.api.admin.places import listed
from curbcut.serve.gateway.table import Field, Table, number, whole

_MOST = 1000
_USAGE: Table = {
    "start": number(0, LATEST), "end": number(0, LATEST), "every_seconds": number(60, 366 * 86400),
    "by": several({"enum": [*usage.BY]}, usage.BY.__contains__, f"of {', '.join(usage.BY)}",
                  len(usage.BY), default=usage.BY),
    "organisation": matching(NAME), "project": matching(NAME), "key_id": matching(KEY_ID),
    "model": line(200)}
_HEAD = matching({"type": "string", "pattern": "^[0-9a-f]{64}$"})


def _used(wish: Wish) -> Mapping[str, Any]:
    given = {**wish.given, "model": wish.given["model"] or None}
    return listed([plain.usage(one) for one in usage.used(wish.ledger, **given)])


def _entries(wish: Wish) -> Mapping[str, Any]:
    limit = wish.given["limit"]
    found = audit.entries(wish.ledger, after=wish.given["after"], limit=limit + 1)
    return listed([vars(one) for one in found[:limit]], has_more=len(found) > limit)


def _verified(wish: Wish) -> Mapping[str, Any]:
    verdict = audit.verify(wish.ledger, wish.given["head"] or "")
    return {"sound": not verdict.fault, **vars(verdict)}


_ENTRIES: Mapping[str, Field] = {"after": whole(0, 2**53 - 1, 0), "limit": whole(1, _MOST, 100)}
ACTS = (
    Act(method="GET", path="/admin/usage", may=AUDIT, does=_used, fields=_USAGE),
    Act(method="GET", path="/admin/audit", may=AUDIT, does=_entries, fields=_ENTRIES),
    Act(method="GET", path="/admin/audit/verify", may=AUDIT, does=_verified,
        fields={"head": _HEAD}),
)

"""API keys: what is handed out, what is kept, and how one answers to the other.

A secret carries 256 random bits, so nobody can guess one and a slow hash (scrypt) would protect
nothing: it would only add its 60 ms to every request. What is kept is HMAC-SHA256 of the secret
under a salt of its own and a pepper that is not in the ledger: a copied ledger opens nothing, and
a row that somebody writes into it neither.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from curbcut.errors import InputError

LONGEST_WORDS = 500
"""Characters of what a person says of themselves."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MODEL = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,63}(:[a-z0-9_-][a-z0-9._-]{0,63})?")
"""Names of models as they are served; of an adapter, "model:adapter". They are only ever looked up,
never joined to a path."""
_SECRET = re.compile(r"ck-([0-9a-f]{8})-[A-Za-z0-9_-]{43}")


@dataclass(frozen=True)
class KeptKey:
    """What the ledger knows of one key; the secret is not among it."""

    id: str
    """Public part of the secret, by which a person tells keys apart."""
    name: str
    created: float
    """Seconds since 1970."""
    revoked: float | None
    project: str = "default"
    role: str = "user"
    owner: str = ""
    expires: float | None = None
    line: str = ""
    """Id of the first key of which this one is a rotation; empty where it is none."""


def check_name(name: str, what: str = "a key") -> str:
    """`name` if `what` may have it; raises InputError otherwise."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot name {what}", where=f"{what.split()[-1]}s",
                         mend="use up to 64 of a-z, 0-9, dot, dash and underscore")
    return name


def check_model(name: str, where: str) -> str:
    """`name` if a model, or an adapter ("model:adapter"), may have it; raises InputError."""
    if not MODEL.fullmatch(name):
        raise InputError(f"{name[:80]!r} cannot name a model", where=where,
                         mend="use up to 64 of a-z, 0-9, dot, dash and underscore")
    return name


def check_words(given: Mapping[str, str]) -> None:
    """Raises InputError for what no person says of themselves: too long, or no printable text."""
    for name, words in given.items():
        if len(name) > 64 or len(words) > LONGEST_WORDS or not (name + words).isprintable():
            raise InputError(f"is no text of up to {LONGEST_WORDS} printable characters",
                             where=ascii(name[:64])[1:-1], mend="write it on one line")


def new_secret() -> tuple[str, str]:
    """A fresh (id, secret); the id is the readable part of the secret."""
    id_ = secrets.token_hex(4)
    return id_, f"ck-{id_}-{secrets.token_urlsafe(32)}"


def id_of(secret: object) -> str | None:
    """The id in a well-formed secret; None for anything else, whatever a stranger sends."""
    match = _SECRET.fullmatch(secret) if isinstance(secret, str) else None
    return match[1] if match else None


def hashed(secret: str, salt: str, pepper: bytes = b"") -> str:
    """What is kept of a secret: HMAC-SHA256 under `pepper` and `salt` (hex), as hex."""
    return hmac.new(pepper + bytes.fromhex(salt), secret.encode(), hashlib.sha256).hexdigest()


def answers(secret: str, salt: str, kept: str, pepper: bytes = b"") -> bool:
    """Whether `secret` is the one behind `kept`, in time that does not depend on how near."""
    return hmac.compare_digest(hashed(secret, salt, pepper).encode(), kept.encode())

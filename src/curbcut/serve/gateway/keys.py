"""Who asks: a bearer key, or anyone on the loopback address while there are no keys."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from curbcut.errors import InputError
from curbcut.ledger.access import Caller
from curbcut.serve.gateway.refusal import Refused

Verify = Callable[[str], Caller | None]
"""Who a secret is of, or None for a secret that opens nothing."""


def is_loopback(host: str) -> bool:
    """Whether `host` (a name or an address to listen on) is reached from this machine only."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, verify: Verify | None) -> None:
    """Raises InputError for an address that others can reach while there is no key."""
    if verify is None and not is_loopback(host):
        raise InputError(f"{host} can be reached from other machines, and there is no key yet",
                         where="--host", mend="curbcut keys add NAME, or --host 127.0.0.1")


def identify(authorization: str | None, verify: Verify | None) -> Caller | None:
    """Who asks, None where no keys are needed; raises Refused (401) without a known
    key where they are.
    """
    if verify is None:
        return None
    scheme, _, secret = (authorization or "").strip().partition(" ")
    if scheme.casefold() != "bearer" or not secret.strip():
        raise Refused(401, "You did not provide an API key: send it as 'Authorization: Bearer "
                           "KEY'.", code="missing_api_key")
    caller = verify(secret.strip())
    if caller is None:
        raise Refused(401, "Incorrect API key provided.", code="invalid_api_key")
    return caller


def check_origin(host: str | None, origin: str | None, verify: Verify | None) -> None:
    """Where no key is needed, refuses (403) what a web page of another site may have sent.

    A browser can be led to a loopback port, by a form of any site or by a name that is made to
    point here; then `Origin`, or `Host`, is not a loopback name.
    """
    if verify is not None:
        return
    for name, value in (("Host", host), ("Origin", origin)):
        if value is not None and not is_loopback(_name_of(value)):
            raise Refused(403, f"Without keys, only this machine is served, and {name} says "
                               f"{value[:100]!r}.", code="foreign_origin")


def _name_of(value: str) -> str:
    """The host name in "http://[::1]:8000", "localhost:8000" and the like."""
    rest = value.rpartition("://")[2].partition("/")[0]
    if rest.startswith("["):
        return rest[1:].partition("]")[0]
    return rest.partition(":")[0]

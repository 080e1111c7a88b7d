import pytest

from callers import caller
from curbcut.ledger.budgets import Budget
from curbcut.ledger.holds import Exhausted
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.gateway.roles import ASK, EVERYBODY, WATCH, check_role
from curbcut.serve.gateway.shortage import not_recorded, shortage, unpriced

NOON = 1_798_718_400.0
"""2026-12-31 12:00 UTC."""


@pytest.mark.parametrize(("unit", "amount", "wanted", "said"), [
    ("nanousd", 5 * 10**9, 25 * 10**7, ["money", "5 USD", "4.5 USD are left", "0.25 USD"]),
    ("millijoules", 36 * 10**8, 18 * 10**8, ["energy", "1 kWh", "0.5 kWh"]),
    ("tokens", 10**6, 1234, ["1,000,000 tokens", "1,234 tokens"])])
def test_the_budget_and_what_is_left_of_it_are_named(unit, amount, wanted, said):
    budget = Budget(scope="project:thesis", unit=unit, period="month", amount=amount,
                    spent=amount // 20, held=amount // 20)
    refused = shortage(Exhausted(budget, wanted), NOON)
    assert all(word in refused.message for word in [*said, "project:thesis", "a month"])
    assert "begins anew in 12 h" in refused.message and refused.retry_after_seconds == 43_200
    assert refused.body["error"]["type"] == refused.code == "insufficient_quota"
    assert refused.headers == {"Retry-After": "43200", "x-should-retry": "false"}


def test_a_budget_that_never_begins_anew_says_no_time():
    budget = Budget(scope="key:1", unit="tokens", period="all", amount=1)
    refused = shortage(Exhausted(budget, 2), NOON)
    assert refused.status == 429 and refused.headers == {"x-should-retry": "false"}
    assert "anew" not in refused.message


def test_other_words():
    budget = Budget(scope="key:1", unit="nanousd", period="all", amount=1)
    assert "no price" in unpriced("m", budget).message
    assert not_recorded().status == 503 and not_recorded().headers["Retry-After"]


def test_roles():
    for role in ("admin", "operator", "auditor"):
        check_role(caller("a", role=role), WATCH, "look")
        with pytest.raises(Refused, match="takes a key of role user") as caught:
            check_role(caller("a", role=role), ASK, "ask")
        assert caught.value.status == 403
    check_role(caller("a"), ASK, "ask")
    for roles in (WATCH, frozenset()):  # a path that names nobody lets nobody in
        with pytest.raises(Refused, match="of role user may not look"):
            check_role(caller("a"), roles, "look")
    check_role(None, frozenset(), "anything, on a machine without keys")
    assert EVERYBODY == ASK | WATCH

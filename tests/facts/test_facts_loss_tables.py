"""The tables around the loss laws: constants, published runs, benchmark proxies."""

from __future__ import annotations

import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.facts import downstream, loss_constants, loss_laws, loss_runs


def test_constants_as_published():
    assert loss_constants.value("repeat_tokens") == 15.387756
    assert loss_constants.value("repeat_parameters") == 5.309743
    assert loss_constants.value("moe_e_max") == 290.4521
    assert all(one.low <= one.value <= one.high and one.source and one.date
               for one in loss_constants.constants())


def test_unknown_names_offer_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'repeat_tokens'"):
        loss_constants.constant("repeat_token")
    with pytest.raises(UnknownName, match="top1-error-17-c4"):
        downstream.proxy("top1-error-17-c")


def test_runs_are_apart_and_learn_more_with_more_tokens():
    runs = loss_runs.runs()
    assert len({run.run for run in runs}) == len(runs) == 14
    small = [run for run in runs if run.parameters < 2e7]
    losses = [run.nats_per_token for run in sorted(small, key=lambda run: run.tokens)]
    assert losses == sorted(losses, reverse=True)


def test_every_proxy_names_a_law_that_is_there():
    for proxy in downstream.proxies():
        assert loss_laws.law(proxy.law).name == proxy.law
        assert proxy.error_low < 1 < proxy.error_high


def test_ones_own_constant_replaces_ours(own_facts):
    (own_facts / "loss_constants.csv").write_text(
        "name,value,low,high,source,date\nbend,3,2,4,own runs,2026\n")
    assert loss_constants.value("bend") == 3
    assert "x / sqrt" in loss_constants.constant("bend").note


def test_a_constant_outside_its_interval_is_refused(own_facts):
    (own_facts / "loss_constants.csv").write_text(
        "name,value,low,high,source,date\nbend,3,4,5,own runs,2026\n")
    with pytest.raises(InputError, match="not in order"):
        loss_constants.constants()

"""The rule of thumb and our table of sizes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError, UnknownName
from curbcut.facts import presets
from curbcut.plan import rule_of_thumb
from curbcut.spec import ModelShape, codec

SUPPLY = rule_of_thumb.Supply("H100", 989.4e12, 0.40, 2.5, 1.195)


@pytest.mark.parametrize(("size", "flops", "hours", "usd", "mwh", "days"), [
    (1e9, 1.2e20, 84, 211, 0.10, 0.003), (7e9, 5.88e21, 4.13e3, 10.3e3, 4.9, 0.17),
    (70e9, 5.88e23, 4.13e5, 1.03e6, 493, 16.8), (175e9, 3.68e24, 2.58e6, 6.45e6, 3.1e3, 105),
    (1e12, 1.2e26, 8.42e7, 211e6, 101e3, 3.4e3)])
def test_the_table_by_hand(size, flops, hours, usd, mwh, days):
    line = next(one for one in rule_of_thumb.table(SUPPLY) if one.rule.parameters == size)
    assert line.rule.tokens == 20 * size and line.training_bytes == 16 * size
    assert line.rule.flops == pytest.approx(flops, rel=0.005)
    assert line.accelerator_hours == pytest.approx(hours, rel=0.01)
    assert line.usd == pytest.approx(usd, rel=0.01)
    assert line.mwh == pytest.approx(mwh, rel=0.02)
    assert line.days_on_many == pytest.approx(days, rel=0.15 if size == 1e9 else 0.02)


def test_published_runs_are_near_the_rule():
    # Chinchilla 70B on 1.4T: 5.76e23; GPT-3 on 300B: 3.14e23 (Epoch AI).
    assert rule_of_thumb.rule(70e9).flops == pytest.approx(5.76e23, rel=0.03)
    assert rule_of_thumb.rule(175e9, tokens=300e9).flops_at_tokens == pytest.approx(
        3.14e23, rel=0.01)


def test_experts_divide_by_k():
    shape = codec.build(ModelShape, presets.shape("DeepSeek-V3"), "model")
    found = rule_of_thumb.of_shape(shape, 14.8e12)
    assert found.sparsity == pytest.approx(shape.parameters / shape.active_parameters)
    assert found.flops == pytest.approx(120 * shape.parameters ** 2 / found.sparsity)
    assert found.flops_at_tokens == pytest.approx(6 * shape.active_parameters * 14.8e12)


@settings(max_examples=50)
@given(size=st.floats(1e6, 1e13), k=st.floats(1, 100))
def test_the_two_formulas_are_one(size, k):
    found = rule_of_thumb.rule(size, size / k)
    assert found.flops == pytest.approx(6 * found.active_parameters * found.tokens)
    assert found.flops == pytest.approx(
        rule_of_thumb.rule(size, size / k, found.tokens).flops_at_tokens)


def test_a_supply_is_of_the_facts():
    found = rule_of_thumb.supply()
    assert found.flops_per_second == pytest.approx(989.4e12, rel=0.01)
    assert 0.3 < found.utilisation < 0.6 and 1 < found.usd_per_hour < 12
    assert found.kilowatts == pytest.approx(1.195, rel=0.05)
    with pytest.raises(UnknownName, match="H100"):
        rule_of_thumb.supply("H1000-SXM-80GB")


def test_what_has_no_known_rent_has_no_price(monkeypatch):
    monkeypatch.setattr("curbcut.facts.prices.rents", lambda name, kind=None: [])
    found = rule_of_thumb.supply()
    assert found.usd_per_hour is None
    assert rule_of_thumb.table(found, [1e9])[0].usd is None


def test_without_a_known_peak_another_is_offered(monkeypatch):
    from dataclasses import replace

    from curbcut.facts import accelerators

    known = accelerators.accelerator("H100")
    monkeypatch.setattr("curbcut.facts.accelerators.accelerator",
                        lambda name: replace(known, peak_flops={}))
    with pytest.raises(InputError, match="take another"):
        rule_of_thumb.supply()

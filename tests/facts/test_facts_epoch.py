from datetime import date

import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.facts import constants, epoch, epoch_staff, prices


def test_tables_are_whole():
    assert (len(epoch.models()), len(epoch.chips()), len(epoch.results())) == (64, 27, 64)
    days = [one.published for one in epoch.models()]
    assert days == sorted(days, reverse=True)
    assert {one.name for one in epoch.models()} == set(epoch.results())


def test_each_model_names_chips_and_a_base_that_are_there():
    known = {one.name for one in epoch.models()}
    chips = {one.name for one in epoch.chips()}
    for one in epoch.models():
        assert one.base_model in known | {""}, one.name
        if len(one.hardware) == 1:
            assert one.hardware[0] in chips, one.name


def test_each_chip_but_the_titan_has_a_rate_and_no_tpu_pretends_to_be_a_gpu():
    for one in epoch.chips():
        assert (one.kind == "tpu") == one.name.startswith("Google")
        assert (one.fp32_flops or one.fp16_flops or one.tf32_flops or one.fp16_tensor_flops
                or one.int8_ops), one.name


def test_constants_that_forecasts_use_too_are_the_same():
    for theirs, ours in (("value_loss", "hardware_value_loss"),
                         ("hours_per_year", "hours_per_year"),
                         ("network_share", "interconnect_cost_fraction"),
                         ("server_price_other", "server_price_ratio"),
                         ("pue_hyperscaler", "pue_hyperscaler"), ("utilisation", "mfu_unknown")):
        assert epoch.constant(theirs).value == constants.constant(ours).value, theirs


def test_producer_prices_are_by_month():
    assert epoch.producer_price(date(2023, 12, 31)) == epoch.producer_price(date(2023, 12, 1))
    assert epoch.producer_price(date(2031, 1, 1)) == epoch.producer_price(date(2024, 4, 1))
    with pytest.raises(InputError, match="1999-01"):
        epoch.producer_price(date(1999, 1, 1))


def test_electricity_is_of_the_nearest_year():
    assert epoch.electricity(2020).value == 0.0667
    assert epoch.electricity(2012) == epoch.constant("usd_per_kwh_2015")
    assert epoch.electricity(2031) == epoch.constant("usd_per_kwh_2024")


def test_unknown_names_say_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'GPT-4'"):
        epoch.model("GPT-5")
    with pytest.raises(UnknownName, match="NVIDIA A100"):
        epoch.chip("NVIDIA A10")
    with pytest.raises(UnknownName, match="pue_other"):
        epoch.constant("pue_othr")
    with pytest.raises(UnknownName, match="GPT-4"):
        epoch_staff.project("GPT-44")


def test_a_users_own_model_is_added(own_facts):
    (own_facts / "epoch").mkdir()
    (own_facts / "epoch" / "models.csv").write_text(
        "name,published,hardware,chip_hours,organisations,source,date\n"
        "Ours,2024-02-01,NVIDIA H100 SXM5,1000,our lab,our log,2024-03-01\n")
    assert epoch.model("Ours").chip_hours == 1000
    assert len(epoch.models()) == 65


def test_a_day_that_is_none_is_refused_with_its_line(own_facts):
    (own_facts / "epoch").mkdir()
    (own_facts / "epoch" / "models.csv").write_text(
        "name,published,source,date\nOurs,last May,our log,2024\n")
    with pytest.raises(InputError, match=r"models\.csv, line 2: published is 'last May'"):
        epoch.models()


def test_projects_have_people_and_a_length():
    found = epoch_staff.projects()
    assert [one.model for one in found] == [
        "GPT-3 175B (davinci)", "OPT-175B", "GPT-4", "Gemini 1.0 Ultra"]
    assert [sum(role.people for role in one.roles) for one in found] == [25, 19, 284, 941]
    for one in found:
        assert one.years or (one.start and one.end), one.model
        assert one.model in epoch.results()


def test_history_has_a_price_of_each_chip_that_is_priced():
    hardware = {point.hardware for point in prices.history()}
    assert "NVIDIA H100 SXM5" in hardware
    assert all(point.date <= "2024-12-31" for point in prices.history())

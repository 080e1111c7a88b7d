"""A row of one's own that cannot be read is one clear error with its file and line, whatever the
table; what can be read adds to ours or stands in place of one of ours.
"""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import EXIT_BAD_INPUT, InputError, UnknownName
from curbcut.facts import (
    accelerators,
    capability,
    collectives,
    currency,
    downstream,
    electricity,
    embodied,
    epoch,
    epoch_staff,
    fab,
    grid,
    levers,
    loss_constants,
    loss_laws,
    loss_runs,
    physics,
    presets,
    prices,
    water,
)
from curbcut.facts.table import Row

P = "source,date"
ME = "me,2026"
LAW = "name,E,A,alpha,B,beta,unit,domain"


@pytest.fixture
def ours(tmp_path_factory):
    """What a look-up gives without any row of one's own (a folder is read once)."""
    def read(look_up):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CURBCUT_FACTS", str(tmp_path_factory.mktemp("nobody")))
            return look_up()
    return read


@pytest.fixture
def own(own_facts):
    """Writes a table of one's own: its header, then its rows."""
    def write(name, *lines):
        path = own_facts / f"{name}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
        return path
    return write


CASES = [
    ("accelerators", accelerators.accelerators, "id,name,kind,memory_gib,memory_gb_per_s",
     "x,X,gpu,lots,100", "memory_gib is 'lots'"),
    ("accelerators", accelerators.accelerators, "id,name,kind,memory_gib,memory_gb_per_s",
     "x,X,gpu,80,-1", "memory_gb_per_s is '-1'"),
    ("accelerators", accelerators.accelerators, "id,name,kind,memory_gib,memory_gb_per_s",
     "x,X,gup,80,100", "unknown kind 'gup'"),
    ("accelerators", accelerators.accelerators, "id,name,kind,memory_gib,memory_gb_per_s,tdp_w",
     "x,X,gpu,80,100,nan", "tdp_w is 'nan'"),
    ("capability", capability.records, "task,what,day,value,unit,included",
     "t,w,2026-02-30,1,usd,all", "which is no day"),
    ("collectives", collectives.bandwidths, "cluster,kind,nodes,bytes_per_second,message_bytes",
     "c,all_reduce,1.5,1e9,1e6", "nodes is 1.5"),
    ("collectives", collectives.bandwidths, "cluster,kind,nodes,bytes_per_second,message_bytes",
     "c,all_gathr,1,1e9,1e6", "unknown kind 'all_gathr'"),
    ("currency", currency.codes, "code,usd,low,high,year", "EUR,1.2,1.3,1.4,2026",
     "not in order"),
    ("currency", currency.codes, "code,usd,low,high,year", "EUR,1.2,1.1,1.4,lately",
     "year is 'lately'"),
    ("downstream", downstream.proxies, "name,law,epsilon,k,gamma,error_low,error_high,tasks",
     "p,l,0.8,x,1,1,1,t", "k is 'x'"),
    ("electricity", electricity.prices, "zone,price,currency,year", "Frannce,0.2,EUR,2026",
     "unknown grid zone 'Frannce'"),
    ("electricity", electricity.prices, "zone,price,currency,year", "FRA,0.2,EURO,2026",
     "unknown currency 'EURO'"),
    ("electricity", electricity.prices, "zone,price,low,high,currency,year",
     "FRA,0.2,0.3,0.4,EUR,2026", "not in order"),
    ("embodied", lambda: embodied.embodied("server"), "category,item,value,low,high,unit",
     "server,s,10,20,30,kg", "not in order"),
    ("embodied", lambda: embodied.embodied("server"), "category,item,value,unit", "server,s,10,",
     "unit is empty"),
    ("fab", lambda: fab.fab(5), "process_nm,kwh_per_cm2,gas_g_per_cm2_low,gas_g_per_cm2_high,"
     "materials_g_per_cm2", "2,none,1,2,3", "kwh_per_cm2 is 'none'"),
    ("dies", lambda: fab.die("H100"), "accelerator,die_mm2,process_nm", "H1O0,800,4",
     "unknown accelerator 'H1O0'"),
    ("dies", lambda: fab.die("H100"), "accelerator,die_mm2,process_nm", "H100,big,4",
     "die_mm2 is 'big'"),
    ("grid", grid.zones, "zone,gco2e_per_kwh", "FRA,clean", "gco2e_per_kwh is 'clean'"),
    ("grid", grid.zones, "zone,gco2e_per_kwh,year", "FRA,10,soon", "year is 'soon'"),
    ("grid_hours", lambda: grid.hours("FRA"), "zone,hour,gco2e_per_kwh", "FRA,1.5,10",
     "hour is 1.5"),
    ("levers", levers.rows, "lever,quote,kind,prices", "fp8,fast,end-to-endd,no",
     "unknown kind 'end-to-endd'"),
    ("levers", levers.rows, "lever,quote,kind,prices", "fp8,fast,end-to-end,perhaps",
     "unknown prices 'perhaps'"),
    ("loss_constants", loss_constants.constants, "name,value", "bend,much", "value is 'much'"),
    ("loss_laws", loss_laws.laws, LAW, "l,x,1,0.3,1,0.3,nats per token,text", "E is 'x'"),
    ("loss_laws", loss_laws.laws, LAW, "l,1,1,0.3,1,,nats per token,text", "beta is empty"),
    ("loss_runs", loss_runs.runs, "run,parameters,tokens,nats_per_token,warmup_share",
     "r,1e6,1e9,inf,0", "nats_per_token is 'inf'"),
    ("physics_serving", lambda: physics.constants("physics_serving"),
     "name,value,rows,sources", "new,0.5,1.5,1", "rows is 1.5"),
    ("rent_prices", prices.book, "accelerator,kind,usd_per_hour", "H100,spot,$2",
     r"usd_per_hour is '\$2'"),
    ("water", lambda: water.of_site(True), "scope,zone,litres_per_kwh", "gird,FRA,1",
     "unknown scope 'gird'"),
    ("water", lambda: water.of_grid("FRA"), "scope,zone,litres_per_kwh,low,high",
     "grid,FRA,1,2,3", "not in order"),
    ("epoch/models", epoch.models, "name,published", "Ours,", "published is empty"),
    ("epoch/models", epoch.models, "name,published,training_start", "Ours,2024-01-01,spring",
     "training_start is 'spring'"),
    ("epoch/models", epoch.models, "name,published,chip_hours", "Ours,2024-01-01,-5",
     "chip_hours is '-5'"),
    ("epoch/chips", epoch.chips, "name,kind,released", "C,gpu,", "released is empty"),
    ("epoch/chips", epoch.chips, "name,kind,released", "C,cpu,2024-01-01", "unknown kind 'cpu'"),
    ("epoch/hardware_prices", prices.history, "hardware,purchase_usd", "C,dear",
     "purchase_usd is 'dear'"),
    ("epoch/producer_prices", lambda: epoch.producer_price(date(2024, 1, 1)), "index", "high",
     "index is 'high'"),
    ("epoch/contributors", epoch_staff.projects,
     "model,role,people,fte_low,fte_high,salary_low,salary_high,equity_low,equity_high",
     "GPT-4,cooks,2.5,1,1,1,1,1,1", "people is 2.5"),
    ("epoch/projects", epoch_staff.projects, "model,years_low,years_high", "Ours,1,",
     "years_high is empty"),
]


@pytest.mark.parametrize(("name", "read", "header", "row", "says"), CASES,
                         ids=[f"{one[0]}: {one[4]}" for one in CASES])
def test_a_row_that_cannot_be_read_says_file_line_and_mend(own, name, read, header, row, says):
    path = own(name, "# ours", f"{header},{P}", f"{row},{ME}")
    with pytest.raises(InputError, match=says) as caught:
        read()
    assert caught.value.where == f"{path}, line 3"
    assert caught.value.mend and caught.value.exit_code == EXIT_BAD_INPUT


def test_a_preset_that_is_half_said_is_refused_where_it_stands(own):
    path = own("presets", f"name,layers,width,{P}", f"half,2,64,{ME}")
    with pytest.raises(InputError, match="heads is empty") as caught:
        presets.shape("half")
    assert caught.value.where == f"{path}, line 2"


@pytest.mark.parametrize(("column", "cell", "says"), [
    ("layers", "2.5", "no whole number"), ("attention", "flash", "unknown attention 'flash'"),
    ("feed_forward", "gatd", "did you mean 'gated'"), ("rope_theta", "x", "rope_theta is 'x'"),
    ("experts", "many", "experts is 'many'")])
def test_a_broken_dimension_of_one_of_our_presets_is_refused(own, column, cell, says):
    own("presets", f"name,{column},{P}", f"Qwen3-0.6B,{cell},{ME}")
    with pytest.raises(InputError, match=says):
        presets.shape("Qwen3-0.6B")
    assert presets.shape("Llama-3-8B")["layers"] == 32, "others are read as before"


HEADERS = [("accelerators", accelerators.accelerators, "memory_gb", "memory_gib"),
           ("rent_prices", prices.book, "usd_per_hr", "usd_per_hour"),
           ("grid", grid.zones, "gco2_per_kwh", "gco2e_per_kwh"),
           ("embodied", lambda: embodied.embodied("server"), "categry", "category"),
           ("levers", levers.rows, "leverr", "lever"),
           ("water", lambda: water.of_site(True), "litres_per_kw", "litres_per_kwh"),
           ("epoch/models", epoch.models, "chip_hrs", "chip_hours")]


@pytest.mark.parametrize(("name", "read", "column", "nearest"), HEADERS)
def test_a_column_that_ours_has_not_names_the_nearest(own, name, read, column, nearest):
    path = own(name, f"{column},{P}", f"1,{ME}")
    with pytest.raises(UnknownName, match=f"'{nearest}'") as caught:
        read()
    assert caught.value.where == f"{path}, line 1"


@pytest.mark.parametrize(("name", "key", "read"), [
    ("accelerators", "id", accelerators.accelerators), ("currency", "code", currency.codes),
    ("loss_laws", "name", loss_laws.laws), ("water", "scope", lambda: water.of_site(True)),
    ("epoch/chips", "name", epoch.chips), ("levers", "lever", levers.rows)])
def test_a_row_without_its_key_is_refused(own, name, key, read):
    own(name, f"{key},{P}", f",{ME}")
    with pytest.raises(InputError, match=rf"line 2: {key} is empty"):
        read()


@pytest.mark.parametrize(("name", "read"), [(one[0], one[1]) for one in HEADERS])
def test_a_file_with_a_header_alone_changes_nothing(own, ours, name, read):
    own(name, P)
    assert read() == ours(read)


def test_rows_of_ones_own_replace_by_key_whatever_the_capitals(own, ours):
    before = {one.id: one for one in ours(accelerators.accelerators)}
    own("accelerators", f"id,tdp_w,{P}", f"H100-SXM-80GB,650,{ME}")
    after = {one.id.casefold(): one for one in accelerators.accelerators()}
    assert len(after) == len(before)
    changed = after["h100-sxm-80gb"]
    assert changed.tdp_watts == 650 and changed.source == "me"
    assert changed.peak_flops == before["h100-sxm-80gb"].peak_flops
    assert after["v100-sxm2-32gb"] == before["v100-sxm2-32gb"]


def test_an_empty_cell_of_ones_own_says_that_it_is_not_known(own):
    own("accelerators", f"id,purchase_usd,{P}", f"h100-sxm-80gb,,{ME}")
    assert accelerators.accelerator("H100").purchase_usd is None


def test_the_last_of_two_rows_of_one_key_counts(own):
    own("currency", f"code,usd,low,high,year,{P}", f"EUR,1.1,1,1.2,2026,{ME}",
        f"eur,1.3,1,1.4,2026,{ME}")
    assert currency.usd_per("EUR").value == 1.3
    assert len(currency.codes()) == len(set(currency.codes()))


def test_a_rate_of_ones_own_reaches_prices_of_electricity_in_it(own, ours):
    before, rate = ours(lambda: (electricity.price("FRA"), currency.usd_per("EUR").value))
    own("currency", f"code,usd,low,high,year,{P}", f"EUR,{2 * rate!r},1,9,2026,{ME}")
    after = electricity.price("FRA")
    for end in ("usd", "low", "high"):
        assert getattr(after, end) == pytest.approx(2 * getattr(before, end))


def test_each_folder_is_read_for_itself(tmp_path, monkeypatch):
    for name, usd in (("a", 1.5), ("b", 2.5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "currency.csv").write_text(
            f"code,usd,low,high,year,{P}\nEUR,{usd},1,3,2026,{ME}\n")
        monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path / name))
        assert currency.usd_per("EUR").value == usd


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1e12), st.floats(0, 1e12), st.floats(0, 1e12))
def test_an_interval_is_read_as_written_or_refused(low, value, high):
    row = Row({"value": repr(value), "low": repr(low), "high": repr(high)}, "f.csv, line 9")
    if low <= value <= high:
        assert row.interval() == (value, low, high)
        return
    with pytest.raises(InputError, match=r"f\.csv, line 9: .* not in order"):
        row.interval()


@pytest.mark.parametrize(("low", "high", "ends"), [("", "", (2, 2)), ("1", "", (1, 2)),
                                                   ("", "3", (2, 3))])
def test_an_end_that_is_not_said_is_the_value(low, high, ends):
    row = Row({"v": "2", "low": low, "high": high}, "here")
    assert row.interval("v") == (2, *ends)


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1e9).filter(lambda value: value != int(value)))
def test_what_is_no_whole_number_is_never_rounded(value):
    with pytest.raises(InputError, match="no whole number"):
        Row({"n": repr(value)}, "here").whole("n")


@pytest.mark.parametrize("text", ["0x10", "1,000", "1 000", "1_0.0.0", "--1", "1e", "one", "½"])
def test_what_python_or_people_may_read_as_a_number_is_none(text):
    with pytest.raises(InputError, match="write a plain number"):
        Row({"n": text}, "here").number("n")


def test_a_folder_in_place_of_a_file_is_no_table(own_facts):
    (own_facts / "currency.csv").mkdir()
    assert currency.usd_per("EUR").value > 1


def test_one_proxy_is_found_by_its_name():
    assert downstream.proxy(downstream.proxies()[0].name) == downstream.proxies()[0]
    assert downstream.proxy().name == downstream.DEFAULT


def test_dollars_of_december_are_of_the_month_whatever_the_day():
    months = {date(2010, 5, day): epoch.producer_price(date(2010, 5, day)) for day in (1, 17, 31)}
    assert len(set(months.values())) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1900, 2100), st.integers(1900, 2100))
def test_electricity_is_never_of_a_year_farther_than_need_be(year, other):
    years = sorted(int(name.rpartition("_")[2]) for name in (
        one.name for one in (epoch.electricity(each) for each in range(2010, 2031))))
    found = int(epoch.electricity(year).name.rpartition("_")[2])
    assert abs(found - year) == min(abs(one - year) for one in years)
    if year <= other:
        assert found <= int(epoch.electricity(other).name.rpartition("_")[2])

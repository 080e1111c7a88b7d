"""Run files: every field of every noun is written and read back, old files still load, and what
cannot be is one clear error.
"""

from __future__ import annotations

import ast
import inspect
import json
import tomllib
from dataclasses import MISSING, fields, replace
from typing import Literal, get_args, get_origin

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from curbcut import spec
from curbcut.errors import InputError, UnknownName
from curbcut.spec import Limits, Place, Resolved, Run, ServeJob, TrainJob, codec, nouns
from curbcut.spec.draft import flatten, nest
from curbcut.spec.nouns import Machine, ModelShape, Recipe
from curbcut.units import Money
from tiny import tiny_run

NEW = {
    "recipe.power_limit": 0.6, "train.text_bytes": 40_000_000_000, "train.token_worth": 1.3,
    "train.development": 2.5, "serve.months": 6.0, "place.year": 2022, "place.hours": "22-6",
    "place.market_gco2e_per_kwh": 35.5, "place.contract": "reserved-1y", "place.staff_fte": 1.5,
    "place.staff_usd_per_year": 90_000.0, "place.tenure": "rent",
    "machine.domain_accelerators": 72, "limits.kgco2e": 12.5,
}
NOUNS = {"model": ModelShape, "machine": Machine, "recipe": Recipe, "train": TrainJob,
         "serve": ServeJob, "place": Place, "limits": Limits}


def read(text, tmp_path):
    path = tmp_path / "again.toml"
    path.write_text(text, encoding="utf-8")
    return spec.load(path)


def back(run, tmp_path, origins=None):
    return read(spec.dumps(Resolved(run, origins or {})), tmp_path).complete().run


def with_(run, **tables):
    return replace(run, **{name: replace(getattr(run, name), **values)
                           for name, values in tables.items()})


@pytest.mark.parametrize("key", NEW)
def test_each_field_is_written_and_read_back_with_who_set_it(key, tmp_path):
    table, _, name = key.partition(".")
    run = with_(tiny_run(), **{table: {name: NEW[key]}})
    assert getattr(getattr(run, table), name) != getattr(getattr(tiny_run(), table), name), key
    text = spec.dumps(Resolved(run, {key: "a person"}))
    line = next(one for one in text.splitlines() if one.startswith(f"{name} = ")
                and one.endswith("# a person"))
    assert str(NEW[key]) in line
    assert read(text, tmp_path).complete().run == run


def test_all_of_them_at_once_are_read_back(tmp_path):
    run = with_(tiny_run(), **nest(NEW))
    assert back(run, tmp_path) == run
    assert flatten(codec.plain(run)).items() >= NEW.items()


def test_plain_json_has_them_and_gives_the_run_back():
    run = with_(tiny_run(), **nest(NEW))
    plain = json.loads(json.dumps(codec.plain(run), allow_nan=False))
    assert codec.build(Run, codec.check(Run, plain)) == run


def test_an_old_file_without_the_new_fields_loads_with_their_defaults(tmp_path):
    old = tiny_run()
    text = spec.dumps(Resolved(old, {}))
    kept = [line for line in text.splitlines()
            if not any(line.startswith(f"{key.partition('.')[2]} = ") for key in NEW)]
    assert len(kept) < len(text.splitlines()) - 8
    assert read("\n".join(kept), tmp_path).complete().run == old


def test_a_file_without_the_tables_that_came_later_loads(tmp_path):
    text = spec.dumps(Resolved(tiny_run(), {}))
    whole = tomllib.loads(text)
    for gone in ("serve", "place", "limits"):
        whole.pop(gone, None)
    run: Run = codec.build(Run, codec.check(Run, whole))
    assert (run.serve, run.place, run.limits) == (ServeJob(), Place(), Limits())


def default(noun, name):
    item = next(one for one in fields(noun) if one.name == name)
    return item.default if item.default is not MISSING else None


@pytest.mark.parametrize(("key", "value"), [
    ("recipe.power_limit", 1.0), ("train.text_bytes", 0), ("train.token_worth", 1.0),
    ("train.development", 0.0), ("serve.months", 0.0), ("place.year", 0), ("place.hours", ""),
    ("place.market_gco2e_per_kwh", None), ("place.contract", "on-demand"),
    ("place.staff_fte", 0.0), ("place.staff_usd_per_year", 0.0)])
def test_what_nobody_says_changes_no_older_plan(key, value):
    table, _, name = key.partition(".")
    assert default(NOUNS[table], name) == value


CLOSED = [(table, one.name, get_args(hint)) for table, noun in NOUNS.items()
          for one in fields(noun) for hint in [codec.hints(noun)[one.name]]
          if get_origin(hint) is Literal]


@pytest.mark.parametrize(("table", "name", "allowed"), CLOSED,
                         ids=[f"{table}.{name}" for table, name, _ in CLOSED])
def test_every_closed_list_is_read_back_and_a_slip_names_the_nearest(table, name, allowed,
                                                                     tmp_path):
    for value in allowed:
        run = with_(tiny_run(), **{table: {name: value}})
        assert getattr(getattr(back(run, tmp_path), table), name) == value
    slip = allowed[-1] + "x"
    with pytest.raises(UnknownName, match=f"'{allowed[-1]}'") as caught:
        read(f'[{table}]\n{name} = "{slip}"\n', tmp_path)
    assert caught.value.where == f"again.toml: {table}.{name}"


SLIPS = [("recipe", "power_limt", "power_limit"), ("place", "contrct", "contract"),
         ("place", "hour", "hours"), ("place", "market_gco2_per_kwh", "market_gco2e_per_kwh"),
         ("serve", "month", "months"), ("train", "token_wort", "token_worth"),
         ("train", "developmnt", "development"), ("train", "text_byte", "text_bytes"),
         ("place", "staff_ftes", "staff_fte"), ("place", "staff_usd_a_year",
                                                "staff_usd_per_year"),
         ("limits", "kgco2", "kgco2e"), ("machine", "nods", "nodes"), ("model", "layer", "layers")]


@pytest.mark.parametrize(("table", "given", "nearest"), SLIPS)
def test_an_unknown_key_says_its_table_and_the_nearest(table, given, nearest, tmp_path):
    with pytest.raises(UnknownName, match=f"unknown key '{given}'") as caught:
        read(f"[{table}]\n{given} = 1\n", tmp_path)
    assert f"'{nearest}'" in caught.value.mend
    assert caught.value.where == f"again.toml: {table}"


def test_an_unknown_table_names_the_nearest(tmp_path):
    with pytest.raises(UnknownName, match="unknown key 'reciep'") as caught:
        read("[reciep]\ntp = 2\n", tmp_path)
    assert "'recipe'" in caught.value.mend


@pytest.mark.parametrize(("text", "message"), [
    ("[recipe]\npower_limit = 0", "greater than 0"),
    ("[recipe]\npower_limit = true", "expected a number"),
    ("[train]\ntext_bytes = -1", "at least 0"), ('[train]\ntext_bytes = "40 GBx"', "unknown unit"),
    ("[train]\ntext_bytes = 1.5", "whole number"), ("[train]\ntoken_worth = 0", "greater than 0"),
    ("[train]\ndevelopment = -1", "at least 0"), ("[train]\nsuffixes = 3", "expected a list"),
    ('[train]\nsuffixes = ".py"', "expected a list"), ("[train]\nsuffixes = [3]", "expected text"),
    ("[serve]\nmonths = inf", "not a number"), ("[place]\nhours = 22", "expected text"),
    ("[place]\nyear = 2022.5", "whole number"), ("[place]\nmarket_gco2e_per_kwh = nan",
                                                 "not a number"),
    ('[place]\nmarket_gco2e_per_kwh = "50 g"', "unknown unit 'g'"),
    ("[place]\nstaff_fte = -0.5", "at least 0"), ('[place]\ntenure = "rented"', "'rent'"),
    ("[machine]\nwatts = 700", "expected a table"), ("[machine.watts]\nmax = nan", "not a number"),
    ('[machine.watts]\nmax = "700 W"', "expected a number"), ("[limits]\nmoney = true",
                                                             "no currency"),
    ("extends = 3", "one file name"), ('extends = ["a.toml"]', "one file name"),
    (f"[train]\ntokens = 1{'0' * 400}", "too large"),
    (f"[model]\nrope_theta = 1{'0' * 400}", "too large"),
    (f"[machine.watts]\nmax = 1{'0' * 400}", "too large"),
    (f"[train]\ntokens = 1{'0' * 5000}", "not valid TOML"),
    ('[limits]\nkwh = "1,5 kWh"', "parts no thousands")])
def test_what_cannot_be_is_one_error_of_one_place(text, message, tmp_path):
    with pytest.raises(InputError, match=message) as caught:
        read(text, tmp_path)
    assert caught.value.mend and "again.toml" in caught.value.where
    assert caught.value.exit_code == 2


def test_a_file_that_is_no_utf8_is_named(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes("name = \"é\"\n".encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8") as caught:
        spec.load(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(("text", "key", "value"), [
    ('[train]\ntext_bytes = "40 GB"', "train.text_bytes", 40_000_000_000),
    ('[train]\ntokens = "1.5b"', "train.tokens", 1_500_000_000),
    ('[limits]\nkwh = "3.6 MJ"', "limits.kwh", 1.0), ('[limits]\nkgco2e = "2 t"',
                                                      "limits.kgco2e", 2000.0),
    ('[serve]\ntpot_seconds = "50 ms"', "serve.tpot_seconds", 0.05),
    ("[place]\nmarket_gco2e_per_kwh = 0", "place.market_gco2e_per_kwh", 0.0),
    ('[place]\nyear = "2022"', "place.year", 2022)])
def test_units_are_read_where_a_field_has_them(text, key, value, tmp_path):
    draft = read(text, tmp_path)
    found = draft.get(key)
    assert found == pytest.approx(value) and type(found) is type(value)
    assert draft.origins[key] == "again.toml"


# --- laws ---------------------------------------------------------------------------------------

words = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)
sizes = st.floats(1e-9, 1e15)


@settings(max_examples=40, deadline=None)
@drawn(words, words, words)
def test_any_text_survives_being_written(name, text, origin):
    run = replace(tiny_run(), name=name, train=TrainJob(tokens=10, text=text,
                                                        suffixes=(text, name)))
    written = spec.dumps(Resolved(run, {"name": origin, "train.text": origin}))
    assert codec.build(Run, codec.check(Run, tomllib.loads(written))) == run


@settings(max_examples=40, deadline=None)
@drawn(sizes, sizes, sizes, st.floats(0.001, 1.0), st.integers(1, 10**15))
def test_any_number_survives_being_written(rate, kwh, watts, limit, tokens):
    run = with_(tiny_run(), recipe={"learning_rate": rate, "power_limit": limit},
                limits={"kwh": kwh}, machine={"watts": {"max": watts, "odd name\x7f": rate}},
                train={"tokens": tokens})
    written = spec.dumps(Resolved(run, {}))
    assert codec.build(Run, codec.check(Run, tomllib.loads(written))) == run


@settings(max_examples=40, deadline=None)
@drawn(st.floats(1e-6, 1e18), st.sampled_from(["USD", "EUR", "JPY"]))
def test_any_amount_of_money_survives_being_written(amount, currency):
    run = with_(tiny_run(), limits={"money": Money(amount, currency)})
    written = spec.dumps(Resolved(run, {}))
    again = codec.build(Run, codec.check(Run, tomllib.loads(written)))
    assert again.limits.money == run.limits.money


def test_money_that_people_write_stays_as_they_write_it():
    assert str(Money(500.0, "EUR")) == "500 EUR"
    assert str(Money(1234567.89, "USD")) == "1,234,567.89 USD"


def test_writing_what_was_written_gives_the_same_bytes(tmp_path):
    run = with_(tiny_run(), **nest(NEW))
    first = spec.dumps(Resolved(run, {}))
    assert spec.dumps(Resolved(back(run, tmp_path), {})) == first


def test_none_is_left_out_and_read_back_as_none(tmp_path):
    text = spec.dumps(Resolved(tiny_run(), {}))
    assert "market_gco2e_per_kwh" not in text and "None" not in text
    assert back(tiny_run(), tmp_path).place.market_gco2e_per_kwh is None


def test_what_toml_has_no_word_for_is_an_error_of_ours():
    with pytest.raises(TypeError, match="no TOML for object"):
        spec.dumps(Resolved(replace(tiny_run(), name=object()), {}))


def test_every_field_has_its_help():
    """The docstring behind each field is what a person is told of it; of a table, the noun's."""
    tree = ast.parse(inspect.getsource(nouns))
    classes = [one for one in tree.body if isinstance(one, ast.ClassDef)]
    tables = {one.name for one in classes}
    for cls in classes:
        assert ast.get_docstring(cls)
        for item, following in zip(cls.body, [*cls.body[1:], None], strict=True):
            if isinstance(item, ast.AnnAssign) and ast.unparse(item.annotation) not in tables:
                said = following.value.value if isinstance(following, ast.Expr) else None
                assert isinstance(said, str) and said.endswith("."), f"{cls.name}.{item.target.id}"

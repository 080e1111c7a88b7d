"""What people call figures: each kind in use has a name of its own, and says its group once."""

from __future__ import annotations

import re

import pytest

from curbcut.report.labels import GROUPS, called, label
from curbcut.spec import UNIT_OF, Account


def kinds():
    """(section, kind) as `Account` lists those in use."""
    text = re.sub(r"\([^)]*\)", "", Account.__doc__.partition("answers):")[2])
    sections = "|".join(UNIT_OF)
    parts = re.split(rf"\b((?:{sections})(?: / (?:{sections}))*):", text)
    for names, words in zip(parts[1::2], parts[2::2], strict=True):
        for section in names.split(" / "):
            yield from ((section, kind) for kind in re.findall(r"\b[a-z][a-z_0-9]+\b", words))


NAMED = [("usd", one) for one in ("rent", "energy", "ownership", "staff", "total", "development",
                                  "project")]
NAMED += [("usd_ways", one) for one in ("on_demand", "reserved_1y", "reserved_3y", "spot", "own",
                                        "academic", "epoch_amortised", "epoch_acquisition",
                                        "epoch_cloud", "with_staff")]
NAMED += [("kgco2e", one) for one in ("operational", "market", "embodied", "total", "project")]
NAMED += [("kwh", one) for one in ("device", "node", "facility", "project")]
NAMED += [("kwh_modelled", one) for one in ("device", "node", "facility")]
NAMED += [("joules_per_token", one) for one in ("training", "answer", "most")]
NAMED += [("seconds", one) for one in ("total", "steps", "data", "evaluation", "checkpoint",
                                       "other", "prefill", "decode", "idle", "ttft", "tpot")]
NAMED += [("loss", "nats_per_token"), ("loss", "bits_per_byte"), ("litres", "water"),
          ("mfu", "run"), ("hfu", "run"), ("goodput", "run"), ("watts", "device"),
          ("watts", "host"), ("watts", "server"), ("flops", "model"), ("flops", "hardware")]
NAMED += [("tokens_per_second", one) for one in ("steps", "prefill", "decode", "answers", "most")]


def test_the_kinds_above_are_those_that_the_account_lists():
    listed = set(kinds())
    assert {section for section, _ in listed} == set(UNIT_OF)
    assert not {one for one in NAMED if one not in listed}


@pytest.mark.parametrize(("section", "kind"), NAMED)
def test_every_kind_has_words_without_underscores_and_a_name_that_stands_alone(section, kind):
    for said in (label(section, kind), called(section, kind)):
        assert said.strip() == said and said and "_" not in said
    words = called(section, kind).split()
    assert len(words) == len(set(words)) or kind in ("answer", "most"), words


@pytest.mark.parametrize("group", GROUPS)
def test_no_two_figures_of_a_group_are_called_the_same(group):
    names = [called(section, kind) for section, kind in NAMED if section in GROUPS[group]]
    assert len(names) == len(set(names)), names


def test_a_name_that_stands_alone_is_of_one_figure_only():
    names = [called(section, kind) for section, kind in NAMED]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(("section", "kind", "alone"), [
    ("usd", "total", "money total"), ("kwh", "facility", "energy facility"),
    ("usd", "staff", "staff"), ("kgco2e", "embodied", "embodied"), ("mfu", "run", "MFU"),
    ("usd_ways", "spot", "rent spot"), ("kwh_modelled", "node", "energy node (model)"),
    ("watts", "device", "device power"), ("litres", "water", "water consumed"),
    ("seconds", "ttft", "time ttft"), ("kgco2e", "project", "carbon whole project")])
def test_names_as_people_read_them(section, kind, alone):
    assert called(section, kind) == alone


def test_a_kind_that_nobody_named_is_its_own_words():
    assert label("seconds", "warm_up") == "warm up"
    assert called("seconds", "warm_up") == "time warm up"

"""The constants' files read, say what they stand on, and take a user's own on top."""

from __future__ import annotations

from pathlib import Path

import pytest

from curbcut.errors import InputError
from curbcut.facts import physics

HEADER = "name,accelerator,stack,version,without,value,low,high,unit,rows,sources,note,source,date"


@pytest.mark.parametrize("file", physics.FILES)
def test_every_value_lies_in_its_interval_and_says_what_it_stands_on(file: str) -> None:
    found = physics.constants(file)
    assert found
    for one in found:
        assert one.low <= one.value <= one.high, one
        assert one.source and one.date, one
        thin = 0 < one.rows < 10 or (one.rows and one.sources < 2)
        if thin and not one.stack and not one.accelerator:
            assert "unsupported" in one.note, f"{one.name} stands on {one.rows} rows"


def test_a_prior_without_a_stack_is_no_stack_of_its_own() -> None:
    for file in physics.FILES:
        for one in physics.constants(file):
            assert not (one.stack and one.without), one


def test_a_users_value_replaces_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = physics.constants("physics_training")[0]
    own = tmp_path / "mine"
    own.mkdir()
    row = (f"{ours.name},{ours.accelerator},{ours.stack},{ours.version},{ours.without},"
           f"{ours.value * 2},,,,12,2,,measured here,2026-11-22")
    (own / "physics_training.csv").write_text(f"{HEADER}\n{row}\n")
    monkeypatch.setenv("CURBCUT_FACTS", str(own))
    assert physics.constants("physics_training")[0].value == ours.value * 2


def test_a_value_outside_its_interval_is_refused(tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "physics_training.csv").write_text(
        f"{HEADER}\nnew,,,,,5,6,7,,1,1,unsupported,me,2026-11-22\n")
    monkeypatch.setenv("CURBCUT_FACTS", str(tmp_path))
    with pytest.raises(InputError, match="not in order"):
        physics.constants("physics_training")


def test_a_familys_value_goes_before_the_general_one_and_what_was_left_out_before_both() -> None:
    one = physics.constant
    assert one("power", "memory", "b200").accelerator == "b200"
    assert one("power", "memory", "no such family").accelerator == ""
    assert one("power", "memory", "b200", "Qwen3-8B").without == "Qwen3-8B"
    assert one("power", "knee", "b200", "Qwen3-8B").value == one(
        "power", "knee", "", "Qwen3-8B").value
    assert one("power", "knee", "b200", "no such model").without == ""
    with pytest.raises(KeyError):
        one("power", "no such constant")


def test_families_are_those_with_values_of_their_own() -> None:
    assert physics.families("power_caps") == ("a40", "p100", "quadro-rtx-6000", "v100")

"""Whole files in anybody's words: every row is scored or named, and JSON has no NaN."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.plan.validation import runs
from curbcut.plan.validation.cells import Cells
from curbcut.plan.validation.outcome import Regime, validate
from curbcut.report.validation import print_outcome, rows_csv
from plan.test_plan_validation_serving import OFFLINE, SPLIT, TOGETHER
from plan.validation import tables
from plan.validation.test_validation_runs import RUN
from plan.validation.test_validation_spellings import CHANGE, COUNTS, GPUS, WORDS

RUN_WORDS = {"gpu": GPUS, "model": WORDS["model"], "date": ("", "2021", "2024-05", "2024-05-01",
                                                            "1999"), "n_gpus": COUNTS,
             "tokens": ("1e12", "2 trillion", "300B", "15T", "1,400,000,000", "", "n/a", "-1", "0"),
             "params_total": ("7e9", "7B", "70B", "1.8T", "", "?", "0", "-7e9", "124M", "50%"),
             "params_active": ("7e9", "3B", "", "n/a", "9e99", "0"),
             "gpu_hours": ("1e6", "1.3M", "368,640", "", "-", "0", "n/a"),
             "wall_hours": ("10", "", "n/a", "1e3", "-5"),
             "layout": ("", "tp8 pp 16", "TP=4, PP=8, fp8", "no TP, EP 64", "tp 3", "1F1B", "ep 7",
                        "fp8 + DualPipe", "?")}
SERVING_WORDS = {"system": ("h100_sxm", "H200 SXM", "b200", "gb200", "mi300x", "?", "", "abacus"),
                 "precision": ("fp8", "FP4", "bf16", "", "int4", "?"),
                 "isl": ("1,024", "8k", "0", "-1", "", "n/a", "2000"),
                 "osl": ("1024", "1", "0", "", "x"), "concurrency": ("1", "1,024", "", "0", "-"),
                 "tp_size": ("1", "8", "3", "", "TP8", "0"), "model_path": WORDS["model"],
                 "batch_size": ("1", "", "64", "no"), "backend": WORDS["software"],
                 "silicon_ttft_ms": ("10", "", "n/a", "-3", "0"),
                 "silicon_tpot_ms": ("10", "1e3", "", "?")}


def words(columns):
    return st.lists(st.sampled_from(sorted(columns)).flatmap(
        lambda column: st.tuples(st.just(column), st.sampled_from(columns[column]))),
        min_size=1, max_size=4).map(dict)


def outcome(kind, lines, columns=None, regime=None):
    with tempfile.TemporaryDirectory() as folder:
        path = tables.write(Path(folder) / "t.csv", lines, columns)
        return validate(kind, path, regime or Regime())


def check(found, count, quantities=None):
    """Each row once in each quantity; figures that are figures."""
    plain = json.loads(json.dumps(found.plain(), allow_nan=False))
    for name, part in found.parts.items():
        if quantities is None or name in quantities:
            assert len(part.predictions) + len(part.unexpressed) == count
            own = plain[name] if name else plain
            assert own["rows"] == len(part.predictions)
            assert len(own["unexpressed"]) == len(part.unexpressed)
        for one in part.predictions:
            assert 0 < one.low95 <= one.low80 <= one.predicted <= one.high80 <= one.high95
            assert one.predicted < float("inf")
        assert all(one.reason for one in part.unexpressed)
    assert rows_csv(list(found.parts.items())).count("\n") >= 1 + sum(
        len(part.predictions) for part in found.parts.values())


@settings(max_examples=40, deadline=None)
@given(changes=st.lists(CHANGE, min_size=1, max_size=6), known=st.booleans())
def test_any_throughput_rows_are_scored_or_named(changes, known):
    lines = [tables.LLAMA | change for change in changes]
    check(outcome("throughput", lines, tables.THROUGHPUT, Regime(known=known)), len(lines))


@settings(max_examples=40, deadline=None)
@given(changes=st.lists(CHANGE, min_size=1, max_size=5))
def test_any_memory_rows_are_scored_or_named(changes):
    lines = [tables.MEMORY] + [tables.MEMORY | {
        key: value for key, value in change.items() if key in tables.MEMORY} for change in changes]
    check(outcome("memory", lines), len(lines))


@settings(max_examples=20, deadline=None)
@given(changes=st.lists(CHANGE, min_size=1, max_size=4))
def test_any_sweep_is_scored_or_named_for_step_and_memory(changes):
    lines = [tables.SWEEP] + [tables.SWEEP | {
        key: value for key, value in change.items() if key in tables.SWEEP} for change in changes]
    for kind in ("throughput", "memory"):
        check(outcome(kind, [line | {"id": f"s{number}"} for number, line in enumerate(lines)]),
              len(lines))


@settings(max_examples=12, deadline=None)
@given(changes=st.lists(words(RUN_WORDS), min_size=1, max_size=3))
def test_any_runs_are_priced_or_named(changes):
    lines = [RUN | change for change in changes]
    check(outcome("runs", lines, list(RUN)), len(lines))


@settings(max_examples=30, deadline=None)
@given(changes=st.lists(words(SERVING_WORDS), min_size=1, max_size=4))
def test_any_serving_rows_are_scored_or_named(changes):
    lines = [TOGETHER, SPLIT] + [TOGETHER | change | {"id": f"x{number}"}
                                 for number, change in enumerate(changes)]
    check(outcome("serving", lines), len(lines), {"ttft", "tpot"})


@settings(max_examples=20, deadline=None)
@given(changes=st.lists(words({"gpu": GPUS, "gpus": COUNTS, "isl": COUNTS, "osl": COUNTS,
                               "precision": WORDS["precision"], "model": WORDS["model"],
                               "engine": WORDS["software"],
                               "parallel": ("TP2", "TP 4 EP8", "", "?", "DP8", "tp=3"),
                               "value": ("100", "", "n/a", "-1", "1,024.5")}),
                        min_size=1, max_size=4))
def test_any_offline_throughput_is_scored_or_named(changes):
    lines = [OFFLINE] + [OFFLINE | change | {"id": f"x{number}"}
                         for number, change in enumerate(changes)]
    check(outcome("serving", lines), len(lines), {"throughput"})


@pytest.mark.parametrize(("kind", "lines"), [
    ("throughput", [tables.LLAMA, tables.LLAMA | {"gpu": "?"}]), ("memory", [tables.MEMORY]),
    ("throughput", [tables.SWEEP]), ("memory", [tables.SWEEP]), ("throughput", [tables.SINGLE]),
    ("runs", [RUN]), ("serving", [TOGETHER]), ("serving", [OFFLINE])])
def test_what_is_printed_has_every_source_and_no_nan(capsys, kind, lines):
    found = outcome(kind, lines)
    print_outcome(found)
    said = capsys.readouterr().out
    assert found.regime.name() in said
    for part in found.parts.values():
        for source in part.score.by_source:
            assert source in said
    assert "nan" not in said.casefold().split()


def hours(**change):
    """Predicted accelerator-hours of a run."""
    with tempfile.TemporaryDirectory() as folder:
        path = tables.write(Path(folder) / "r.csv", [RUN | change], list(RUN))
        found, left = runs.predict(path)
    assert not left, left
    return found[0]


@pytest.mark.parametrize("model", ["Llama 2 13B", "someone's own"])
def test_hours_grow_with_tokens_and_parameters(model):
    few, many = (hours(model=model, tokens=tokens).predicted for tokens in ("5e11", "2e12"))
    assert many == pytest.approx(4 * few, rel=0.02)
    small, large = (hours(model="someone's own", params_total=count, params_active=count).predicted
                    for count in ("7e9", "7e10"))
    assert large > 4 * small


def test_a_faster_accelerator_takes_fewer_hours():
    slow, fast = (hours(model="someone's own", gpu=gpu).predicted for gpu in ("A100", "H100"))
    assert fast < slow


@pytest.mark.parametrize("count", ["64", "512", "1024", ""])
def test_hours_are_of_all_accelerators_and_never_beat_their_peak(count):
    found = hours(n_gpus=count).predicted
    at_peak = 6 * 13e9 * 2e12 / 312e12 / 3600  # an A100's dense bf16 rate, as its maker states it
    assert at_peak < found < 10 * at_peak


def test_a_layout_that_is_named_is_kept():
    named = hours(layout="tp 2, pp 4")
    assert any("tp 2 pp 4" in text for text in named.assumed)
    none = hours(layout="no TP")
    assert any("tp 1 " in text for text in none.assumed)


def test_a_named_precision_is_kept_where_the_chip_has_it():
    plain, low = (hours(gpu="H100", layout=layout) for layout in ("", "fp8"))
    assert any("fp8" in text for text in low.assumed)
    assert low.predicted < plain.predicted


@settings(max_examples=40, deadline=None)
@given(total=st.floats(2e8, 1e12), share=st.floats(0.02, 1.0))
def test_usual_shapes_are_sound_and_about_as_large_as_asked(total, share):
    cells = Cells({})
    shape = runs.usual_shape(cells, total, total * share)
    assert shape.layers >= 4 and shape.heads * shape.head_size == shape.width
    assert bool(shape.experts) == (share <= 0.8)
    assert shape.active_parameters <= shape.parameters
    if shape.experts:
        assert shape.experts > shape.experts_per_token >= 1 and shape.expert_ffn >= 64
        assert any("experts" in text for text in cells.assumed)
    else:
        assert shape.parameters == pytest.approx(total * share, rel=0.4)

"""Measured energy of inference: rows become nouns, and are predicted by constants without them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.errors import InputError
from curbcut.plan.validation import energy_inference, energy_model, energy_rows
from curbcut.plan.validation.cells import CannotExpress, Cells
from curbcut.plan.validation.energy_rows import row
from curbcut.plan.validation.outcome import Regime

LINE = {"task": "lm-arena-chat", "model": "owner/Llama-3.1-70B-Instruct", "precision": "bfloat16",
        "gpu": "H100", "n_gpus": "4", "tp": "4", "ep": "1", "dp": "1", "max_num_seqs": "64",
        "avg_batch": "60", "avg_output_tokens": "400", "j_per_output_token": "1.0",
        "avg_gpu_power_w": "2000"}
HEADER = ",".join(LINE)


def of(**cells):
    return row(Cells(LINE | cells), "line 1")


def joules(one, without=""):
    got = energy_model.predicted(energy_model.table([one]), energy_model.values(without))
    return float(got.joules[0])


def table(tmp_path: Path, *lines: dict[str, str]) -> Path:
    path = tmp_path / "measured.csv"
    path.write_text("\n".join([HEADER, *(",".join((LINE | one).values()) for one in lines)]))
    return path


def test_a_row_becomes_nouns():
    one = of()
    assert one.architecture == "Llama-3.1-70B" and one.name == "Llama-3.1-70B-Instruct"
    assert (one.engine.tp, one.engine.dense_bytes, one.batch, one.tdp_watts) == (4, 2, 60, 700)
    assert one.measured == {"joules": 1.0, "watts": 2000.0} and not one.assumed


@pytest.mark.parametrize(("name", "architecture"), [
    ("Qwen/Qwen3-VL-235B-A22B-Instruct-FP8", "Qwen3-235B-A22B"),
    ("Qwen/Qwen3-Omni-30B-A3B-Instruct", "Qwen3-30B-A3B"),
    ("meta-llama/Llama-4-Scout-17B-16E-Instruct", "Llama-4-Scout"),
    ("deepseek-ai/DeepSeek-V3.1", "DeepSeek-V3"), ("deepseek-ai/DeepSeek-R1-0528", "DeepSeek-V3"),
    ("meta-llama/Llama-3.3-70B-Instruct", "Llama-3.1-70B"),
    ("Qwen/Qwen3-Coder-480B-A35B-Instruct", "Qwen3-Coder-480B-A35B")])
def test_names_mean_their_architecture(name, architecture):
    assert of(model=name, n_gpus="8", tp="1", ep="1").architecture == architecture


def test_experts_are_spread_and_attention_is_cut():
    one = of(model="Qwen3-235B-A22B", n_gpus="8", tp="1", ep="8")
    assert (one.engine.tp, one.engine.ep, one.engine.moe_tp) == (8, 8, 1)


def test_quantised_rows_hold_fewer_bytes_and_only_blocks_are_blocked():
    fp8 = of(model="Qwen3-235B-A22B-FP8", precision="fp8", n_gpus="8", tp="1", ep="8")
    assert fp8.engine.expert_bytes == 1 and fp8.blocked
    assert not of(precision="fp8").blocked
    assert not of(model="DeepSeek-V3", precision="fp8", n_gpus="8", tp="1", ep="8").blocked
    born = of(model="gpt-oss-120b", precision="mxfp4", n_gpus="1", tp="1")
    assert born.engine.dense_bytes == 2 and born.engine.expert_bytes < 1


@pytest.mark.parametrize(("total", "active", "sparse"), [("12", "12", False), ("80", "3", True),
                                                         ("300", "30", True)])
def test_a_model_nobody_knows_is_priced_by_its_size(total, active, sparse):
    one = of(model="nobody/New-Model", total_params_b=total, active_params_b=active, n_gpus="1",
             tp="1")
    assert any("no preset" in said for said in one.assumed)
    assert bool(one.shape.experts) == sparse
    assert one.shape.parameters == pytest.approx(float(total) * 1e9, rel=0.25)
    assert one.shape.active_parameters == pytest.approx(float(active) * 1e9, rel=0.35)
    assert joules(one, one.architecture) > 0


@pytest.mark.parametrize(("model", "total", "active"), [
    ("nobody/Foo-9B", 9e9, 9e9), ("nobody/Bar-100B-A10B-fp8", 100e9, 10e9)])
def test_a_name_tells_the_size_where_no_cell_does(model, total, active):
    one = of(model=model, total_params_b="", active_params_b="", n_gpus="1", tp="1")
    assert one.shape.parameters == pytest.approx(total, rel=0.25)
    assert one.shape.active_parameters == pytest.approx(active, rel=0.35)
    assert any("parameters from the name" in said for said in one.assumed)


@pytest.mark.parametrize(("cells", "said"), [
    ({"model": "nobody/New-Model"}, "no preset"), ({"gpu": "no such"}, "no such"),
    ({"precision": "fp3"}, "precision"), ({"n_gpus": "7"}, "cannot be cut"),
    ({"avg_batch": "", "max_num_seqs": ""}, "avg_batch"),
    ({"model": "Qwen3-235B-A22B", "ep": "3", "n_gpus": "8"}, "cannot be spread")])
def test_rows_that_cannot_be_expressed_say_why(cells, said):
    with pytest.raises(CannotExpress, match=said):
        of(**cells)


def test_what_a_row_leaves_open_is_filled_in_and_said():
    one = of(task="poems", avg_output_tokens="", avg_batch="")
    assert one.batch == 64 and len(one.assumed) == 2


@settings(max_examples=30, deadline=None)
@given(st.floats(1, 1000), st.floats(1.01, 8),
       st.sampled_from(["Llama-3.1-8B", "Qwen3-30B-A3B", "DeepSeek-V3", "Qwen3-235B-A22B-FP8"]),
       st.sampled_from(["H100", "B200"]))
def test_a_larger_batch_never_takes_more_joules_a_token(batch, factor, model, gpu):
    how = {"model": model, "gpu": gpu, "n_gpus": "8", "tp": "8",
           "precision": "fp8" if model.endswith("FP8") else "bfloat16"}
    few, many = (joules(of(avg_batch=str(n), **how)) for n in (batch, batch * factor))
    assert many <= few * (1 + 1e-9)


def test_watts_lie_between_idle_and_the_rated_power():
    rows = [of(avg_batch=str(n), gpu=gpu, task=task) for n in (1, 30, 1000)
            for gpu in ("H100", "B200") for task in energy_rows.TASKS]
    got = energy_model.predicted(energy_model.table(rows), energy_model.values())
    rated = np.array([one.tdp_watts * one.accelerators for one in rows])
    assert np.all(got.watts < rated) and np.all(got.watts > 0.1 * rated)
    assert got.joules == pytest.approx(got.watts / got.tokens_per_second)


def test_a_row_is_predicted_by_constants_that_have_not_seen_its_architecture():
    one = of()
    unseen, seen = joules(one, "Llama-3.1-70B"), joules(one)
    assert unseen != seen and unseen == pytest.approx(seen, rel=0.2)
    assert joules(one, "an architecture of nobody's") == seen


def test_a_file_is_scored_and_its_known_regime_uses_all_rows(tmp_path):
    path = table(tmp_path, {}, {"avg_batch": "8", "j_per_output_token": "4", "avg_gpu_power_w": ""},
                 {"model": "who/Unknown"})
    found = energy_inference.validate_inference(path, Regime())
    part = found.parts[""]
    assert [one.id for one in part.predictions] == ["line 1", "line 2"]
    assert [one.id for one in part.unexpressed] == ["line 3"]
    assert len(found.parts["watts"].predictions) == 1
    assert len(found.parts["watts"].unexpressed) == 2
    one = part.predictions[0]
    assert one.low95 < one.low80 < one.predicted < one.high80 < one.high95
    known = energy_inference.validate_inference(path, Regime(known=True)).parts[""]
    assert known.predictions[0].predicted != one.predicted
    factors = found.more["error_factors"]["joules"]
    assert factors["all"]["rows"] == 2 and 1 <= factors["all"]["typical"] <= factors["all"]["p90"]
    assert set(factors["by_batch"]) == {"4 to 16", "16 to 64"}


def test_other_tables_and_regimes_are_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no column"):
        energy_inference.validate_inference(path, Regime())
    with pytest.raises(InputError, match="no calibrated regime"):
        energy_inference.validate_inference(table(tmp_path, {}), Regime(calibrate=3))


def test_published_lines_take_the_same_path():
    line = {"name": "Llama-3.1-70B-Instruct lm-arena-chat", "hardware": "4x H100 bfloat16",
            "quantity": "avg batch 60", "energy": "1.0", "energy_unit": "J/output token",
            "note": "2000 W GPU; 2000 tok/s", "source": "somebody"}
    found, left = energy_inference.published([line, line | {"energy_unit": "Wh/prompt"},
                                              line | {"hardware": "a rack"}])
    assert len(found) == 1 and found[0].source == "somebody"
    usual = of(avg_output_tokens=str(energy_rows.ANSWER_TOKENS[energy_rows.CHAT]))
    assert found[0].predicted == pytest.approx(joules(usual, "Llama-3.1-70B"))
    assert len(left) == 2 and "Wh/prompt" in left[0].reason


def test_constants_are_found_again_where_rows_follow_them():
    rows = [of(avg_batch=str(n), gpu=gpu, model=model, n_gpus="8", tp="8", task=task)
            for n in (4, 16, 64, 256) for gpu in ("H100", "B200") for task in energy_rows.TASKS[:3]
            for model in ("Llama-3.1-8B", "Llama-3.1-70B", "Qwen3-30B-A3B")]
    true = energy_model.values()
    got = energy_model.predicted(energy_model.table(rows), true)
    rows = [replace(one, measured={"joules": float(j), "watts": float(w)})
            for one, j, w in zip(rows, got.joules, got.watts, strict=True)]
    fitted = energy_model.fit(rows, got.tokens_per_second.tolist(), rounds=12)
    again = energy_model.predicted(energy_model.table(rows), fitted.values)
    off = np.abs(np.log(again.joules / got.joules))
    assert np.median(off) < 0.05
    assert fitted.values["bandwidth_share", ""] == pytest.approx(true["bandwidth_share", ""],
                                                                 rel=0.15)


def test_spreads_hold_the_middle():
    for name in energy_rows.MEASURED:
        low80, high80, low95, high95 = energy_inference.spread(name)
        assert low95 < low80 < 1 < high80 < high95

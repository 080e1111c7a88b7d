"""Cells that once broke a table, were read as something else, or were lost from the count."""

from __future__ import annotations

import json

import pytest

from curbcut.plan.validation import memory, rows, runs, serving
from curbcut.plan.validation.cells import CannotExpress, Cells
from curbcut.plan.validation.machines import accelerator
from curbcut.plan.validation.outcome import Regime, validate
from curbcut.report.validation import print_outcome
from plan.validation import tables
from plan.validation.test_validation_runs import RUN

SCORED = {"rows", "unexpressed", "macro_mape", "median_abs_pct_error", "p90_abs_pct_error",
          "bias_pct", "coverage80", "coverage95", "by_source"}
FAILED = {"status": "failed(OOM)", "tokens_per_s_per_gpu": "", "mfu_percent": "",
          "peak_memory_gb": ""}
SERVED = {
    "backend": "vllm", "model_path": "Qwen/Qwen3-32B", "system": "h100_sxm", "precision": "fp8",
    "mode": "agg", "isl": "2000", "osl": "500", "gemm_quant_mode": "fp8", "moe_quant_mode": "fp8",
    "batch_size": "16", "tp_size": "2", "pp_size": "1", "attention_dp_size": "1",
    "moe_tp_size": "1", "moe_ep_size": "1", "silicon_ttft_ms": "200", "silicon_tpot_ms": "12",
    "concurrency": "16"}


def one(tmp_path, **change):
    """The row of one line of `LLAMA`, or the reason why there is none."""
    found, left = rows.throughput(tables.throughput(tmp_path / "t.csv", change))
    return found[0] if found else left[0].reason


def served(tmp_path, *changes):
    lines = [SERVED | {"id": f"s{number}"} | change for number, change in enumerate(changes)]
    return tables.write(tmp_path / "s.csv", lines)


def plain(kind, path, **regime):
    """The outcome's JSON, which must be strict."""
    found = validate(kind, path, Regime(**regime)).plain()
    json.dumps(found, allow_nan=False)
    return found


@pytest.mark.parametrize("date", ["May 2024", ";", "13/05/2024", "zzz", "n/a", "2099-12", "9999"])
def test_a_run_of_any_date_is_priced(tmp_path, date):
    path = tables.write(tmp_path / "r.csv", [RUN | {"date": date}], list(RUN))
    found, left = runs.predict(path)
    assert len(found) == 1 and not left


def test_a_run_is_of_its_year_wherever_the_cell_has_it(tmp_path):
    early, late = (runs.predict(tables.write(
        tmp_path / "r.csv", [RUN | {"date": date, "model": "mine", "params_total": "1.3e10"}],
        list(RUN)))[0][0] for date in ("2024", "in May 2024"))
    assert early.predicted == late.predicted


def test_a_run_that_states_no_peak_is_named_under_memory(tmp_path):
    path = tables.write(tmp_path / "s.csv", [tables.SWEEP, tables.SWEEP | {"peak_memory_gb": ""}])
    found = plain("memory", path)
    assert found["rows"] == 1
    assert [left["reason"] for left in found["unexpressed"]] == ["no peak memory measured"]
    told, left = memory.predict(rows.sweep(path)[0])
    assert len(told) + len(left) == 2


@pytest.mark.parametrize("count", [1, 5])
def test_rows_that_no_other_row_can_predict_are_named(tmp_path, count):
    found = plain("serving", served(tmp_path, *[{}] * count), folds=2)
    for name in ("ttft", "tpot"):
        assert found[name]["rows"] == 0 and len(found[name]["unexpressed"]) == count
        assert "no other measured row" in found[name]["unexpressed"][0]["reason"]


def test_rows_alike_to_those_that_calibrate_are_named(tmp_path):
    found = plain("serving", served(tmp_path, *[{}] * 25), calibrate=10)
    assert found["calibrated_on"] == 10
    for name in ("ttft", "tpot"):
        assert found[name]["rows"] == 0 and len(found[name]["unexpressed"]) == 15


@pytest.mark.parametrize("regime", [{}, {"folds": 3}, {"calibrate": 10}, {"calibrate": 30}])
def test_every_row_is_predicted_named_or_calibrates_once(tmp_path, regime):
    some = [{"silicon_tpot_ms": str(10 + number // 2), "silicon_ttft_ms": "" if number % 5 else
             "200"} for number in range(24)]
    few = [{"backend": "sglang"}, {"backend": "sglang", "silicon_ttft_ms": ""}]
    path = served(tmp_path, *some, *few, {"system": "?"})
    used = serving.judge(path, **regime).calibrated_on
    found = plain("serving", path, **regime)
    for name in ("ttft", "tpot"):
        assert found[name]["rows"] + len(found[name]["unexpressed"]) + used == 27


def test_memory_gives_the_promised_keys_of_any_table(tmp_path, capsys):
    percent = tables.MEMORY | {"unit_note": "PERCENT", "value_gib": "40",
                               "quantity": "activation memory relative to no-recompute"}
    mixed = tables.write(tmp_path / "m.csv", [percent, tables.MEMORY | {"unit_note": "GB"}])
    failed = tables.write(tmp_path / "f.csv", [tables.SWEEP | FAILED] * 2)
    for path, parts in ((mixed, {"percent", "gb_or_gib"}), (failed, {"feasibility"})):
        found = plain("memory", path)
        assert found.keys() >= SCORED | parts
        assert found["rows"] == 0 and found["macro_mape"] is None and found["by_source"] == {}
        print_outcome(validate("memory", path, Regime()))
        assert "median error" in capsys.readouterr().out


@pytest.mark.parametrize("software", ["llm-foundry v0.6", "NeMo 25.07", "torchtitan"])
@pytest.mark.parametrize("text", ["disabled", "without", "0", "not full", "off", "no", "None",
                                  "no full recompute", "without recomputation",
                                  "no activation checkpointing"])
def test_recompute_that_is_denied_is_none(tmp_path, software, text):
    row = one(tmp_path, software=software, recompute=text)
    assert row.recipe.recompute == "none"
    assert not any("recompute" in said for said in row.assumed)


@pytest.mark.parametrize(("text", "mode"), [("full", "full"), ("full, without offload", "full"),
                                            ("selective", "selective"), ("yes", "full")])
def test_recompute_that_is_said_is_kept(tmp_path, text, mode):
    assert one(tmp_path, recompute=text).recipe.recompute == mode


@pytest.mark.parametrize(("text", "replicas", "ranks", "what"), [
    ("no", 8, 1, "optimiser"), ("off", 8, 1, "optimiser"), ("zero 0", 8, 1, "optimiser"),
    ("zero 3", 1, 8, "parameters"), ("zero_3", 1, 8, "parameters"),
    ("ZeRO 2", 1, 8, "gradients"), ("zero_1", 1, 8, "optimiser"),
    ("_HYBRID_SHARD_ZERO2", 1, 8, "gradients"), ("HYBRID_SHARD", 1, 8, "parameters"),
    ("HSDP 2x4", 2, 4, "parameters"), ("HSDP 4 x 2", 4, 2, "parameters"),
    ("HYBRID_SHARD_ZERO2 2x4", 2, 4, "gradients"), ("HSDP 3x3", 1, 8, "parameters")])
def test_sharding_by_any_of_its_names(tmp_path, text, replicas, ranks, what):
    recipe = one(tmp_path, software="torchtitan", sharding=text).recipe
    assert (recipe.dp_replicate, recipe.dp_shard, recipe.shard) == (replicas, ranks, what)


@pytest.mark.parametrize("word", ["no", "none", "No", "NONE"])
@pytest.mark.parametrize("column", ["tp", "pp", "cp", "ep", "dp", "vp", "micro_batch"])
def test_no_degree_is_one(tmp_path, column, word):
    plain_, said = (one(tmp_path, **({"tp": "1", "dp": ""} | {column: text})).recipe
                    for text in ("", word))
    assert plain_ == said


@pytest.mark.parametrize("text", ["1e400", "-1e999", "50%", "50 %", "1e300", "9" * 400])
def test_what_is_no_count_is_never_another_one(text):
    with pytest.raises(CannotExpress, match=r"x is .* no count"):
        Cells({"x": text}).whole("x")


@pytest.mark.parametrize(("name", "plainly"), [
    ("DGX H100", "H100"), ("HGX H100", "H100"), ("DGX-A100", "A100"), ("NVIDIA DGX H100", "H100"),
    ("HGX B200", "B200"), ("DGX A100 40GB", "A100 40GB"), ("8x HGX H200", "H200")])
def test_a_node_is_known_by_its_accelerator(name, plainly):
    assert accelerator(Cells({}), name) == accelerator(Cells({}), plainly)


@pytest.mark.parametrize("name", ["A100/H100", "H100, H200", "8xA100 + 8xH100", "H100 and B200",
                                  "A100 40GB / A100 80GB", "MI250X+A100"])
def test_two_accelerators_are_not_taken_for_the_first(tmp_path, name):
    assert "names 2 kinds" in one(tmp_path, gpu=name)


@pytest.mark.parametrize("name", ["H100/H100", "A100-SXM-80GB", "H100 SXM5, 80GB", "GB200 NVL72",
                                  "GH200 96GB", "V100-SXM3-32GB", "H100 (not A100/H200)"])
def test_one_accelerator_is_not_taken_for_two(name):
    assert accelerator(Cells({}), name).memory_bytes


@pytest.mark.parametrize(("precision", "gpu", "said"), [
    ("NVFP4", "H100-SXM-80GB", "nvfp4 priced at the fp8 rate"),
    ("mxfp4", "A100-SXM-80GB", "nvfp4 priced at the bf16 rate"),
    ("NVFP4", "B200-SXM-180GB", ""), ("fp8", "H100-SXM-80GB", ""),
    ("fp8", "A100-SXM-80GB", "fp8 priced at the bf16 rate"), ("bf16", "A100-SXM-80GB", "")])
def test_a_rate_that_a_chip_lacks_is_said(tmp_path, precision, gpu, said):
    row = one(tmp_path, precision=precision, gpu=gpu)
    assert any((said or "priced at") in text for text in row.assumed) == bool(said)


def test_4_bit_weights_on_a_chip_without_their_rate_are_said(tmp_path):
    path = served(tmp_path, {"gemm_quant_mode": "nvfp4"}, {})
    low, usual = serving.predict(path)["tpot"][0]
    assert any("no fp4 rate" in text for text in low.assumed)
    assert not any("fp4" in text for text in usual.assumed)


ABSURD = ("1e308", "1e19", "1e12", "999999999999", "1e-300")


@pytest.mark.parametrize("column", ["params", "layers", "hidden", "vocab", "seq", "micro_batch",
                                    "global_batch_seqs", "gpus", "value_gib", "peak_memory_gb"])
@pytest.mark.parametrize("kind", ["memory", "sweep", "throughput"])
def test_absurd_cells_give_a_reason_and_never_nan(tmp_path, kind, column):
    base = {"memory": tables.MEMORY, "sweep": tables.SWEEP, "throughput": tables.LLAMA}[kind]
    path = tables.write(tmp_path / "t.csv", [base | {column: text} for text in ABSURD])
    for what in {"memory": ["memory"], "sweep": ["memory", "throughput"]}.get(kind, [kind]):
        found = plain(what, path)
        parts = [found, *(found[name] for name in ("percent", "gb_or_gib") if name in found)]
        assert sum(part["rows"] + len(part["unexpressed"]) for part in parts) == len(ABSURD)


def test_a_count_of_parameters_beyond_all_is_named(tmp_path):
    for text in ("1e308", "1e30"):
        assert "beyond anything" in one(tmp_path, params=text, layers="", hidden="", model="x")

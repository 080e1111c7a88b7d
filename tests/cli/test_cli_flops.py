"""`curbcut flops` as a person and as a script read it."""

from __future__ import annotations

import json

import pytest

from curbcut.cli.main import main
from curbcut.physics.flops import CONVENTIONS


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["flops", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("model", ["Llama-3-8B", "DeepSeek-V3", "gpt-oss-20b"])
def test_the_matmuls_and_scores_are_the_exact_count(model: str,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    said = asked(capsys, model, "--sequence", "4096")
    total = sum(one["flops_per_token"] for one in said["matmuls"])
    total += said["causal_scores_flops_per_token"]
    assert total == pytest.approx(said["flops_per_token"]["exact"], rel=1e-12)
    assert said["active_parameters"] <= said["parameters"]


def test_a_utilisation_is_translated_and_keeps_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    said = asked(capsys, "Llama-3-8B", "--sequence", "8192", "--mfu", "43%")
    assert said["mfu"]["6N+12Lhs"] == pytest.approx(0.43)
    ratio = said["flops_per_token"]["exact"] / said["flops_per_token"]["6N+12Lhs"]
    assert said["mfu"]["exact"] == pytest.approx(0.43 * ratio)
    assert asked(capsys, "Llama-3-8B", "--sequence", "8192", "--mfu", "0.43") == said


def test_without_a_sequence_the_models_own_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(capsys, "Llama-2-7B")["sequence_tokens"] == 4096


def test_the_table_names_every_convention(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flops", "Qwen3-0.6B", "--mfu", "30%", "--said", "exact"]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    assert all(name in lines for name in CONVENTIONS)
    assert lines["exact"].split()[-1] == "30.0%"


def test_the_rule_of_thumb_stands_beside_the_real_count(capsys: pytest.CaptureFixture[str]) -> None:
    said = asked(capsys, "Llama-3-8B", "--sequence", "8192")
    rule = said["rule_of_thumb"]
    assert rule["flops"] == pytest.approx(120 * said["parameters"] ** 2)
    assert rule["exact_flops"] == pytest.approx(said["flops_per_token"]["exact"] * rule["tokens"])
    assert asked(capsys, "DeepSeek-V3")["rule_of_thumb"]["sparsity"] > 10
    main(["flops", "DeepSeek-V3"])
    printed = capsys.readouterr().out
    assert "120 P^2 / K" in printed and "K = 17.9" in printed and "2404.08811" in printed
    main(["flops", "Llama-3-8B"])
    assert "/ K" not in capsys.readouterr().out


def test_every_format_has_the_same_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flops", "Llama-3-8B", "--format", "csv"]) == 0
    csv = capsys.readouterr().out
    exact = asked(capsys, "Llama-3-8B")["flops_per_token"]["exact"]
    line = next(line for line in csv.splitlines() if line.startswith("exact,"))
    assert float(line.split(",")[1]) == pytest.approx(exact / 1e9)
    assert main(["flops", "Llama-3-8B", "--format", "markdown"]) == 0
    assert "| exact" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "named"), [
    (["Lama-3-8B"], "Llama-3-8B"), (["Llama-3-8B", "--said", "6M"], "--said"),
    (["Llama-3-8B", "--mfu", "140%"], "--mfu"), (["Llama-3-8B", "--mfu", "nan"], "--mfu"),
    (["Llama-3-8B", "--sequence", "0"], "--sequence")])
def test_bad_options_are_named(options: list[str], named: str,
                               capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flops", *options]) == 2
    assert named in capsys.readouterr().err

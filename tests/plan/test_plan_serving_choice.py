from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.cli.main import main
from curbcut.errors import InputError
from curbcut.facts import serving_quality as facts
from curbcut.plan import serving_quality, serving_ways
from curbcut.plan.serving_choice import WORTH, Objective, choose
from curbcut.plan.serving_run import to_serve
from curbcut.spec.draft import Draft
from curbcut.spec.estimate import given as stated
from curbcut.spec.nouns import ServeJob
from plan.plan_samples import LARGE
from tiny import tiny_run

EIGHT = to_serve(Draft().with_raw({"model": {"preset": "qwen3-8b"}, "machine": {"name": "1xH100"}},
                                  "test", override=True))
TIGHT = Objective(ttft_seconds=2.0, tpot_seconds=0.05, requests_per_second=0.1)


def only(found, **job):
    [way] = [one for one in found.ways if one.run.recipe.precision == "bf16" and all(
        getattr(one.run.serve, name) == value for name, value in job.items())]
    return way


def test_what_nobody_measured_is_shown_and_never_chosen(monkeypatch):
    monkeypatch.setattr(facts, "_rows", lambda overlay: ())
    found = choose(LARGE, TIGHT)
    assert found.job.weight_precision == found.job.cache_precision == "same"
    narrow = only(found, weight_precision="int4", cache_precision="same")
    assert narrow.usd.value < found.chosen.usd.value and "never measured" in narrow.refused
    assert any("would be cheaper, but its loss" in line for line in found.reasons)


def rows(*known):
    return lambda overlay: tuple(facts.Loss(
        part=part, kind=kind, model="x", parameters=size, bits_per_byte=1.0, share=share,
        low=share / 2, high=2 * share, source="test", date="2026")
        for part, kind, size, share in known)


def test_the_cheapest_within_the_bar_of_quality_is_taken(monkeypatch):
    size, quick = EIGHT.model.parameters, replace(TIGHT, tpot_seconds=0.01)
    monkeypatch.setattr(facts, "_rows", rows(("weights", "int8", size, 0.001),
                                             ("weights", "int4", size, 0.03)))
    found = choose(EIGHT, quick)
    assert found.job.weight_precision == "int8"
    assert found.chosen.loss.value == pytest.approx(0.001)
    assert "may lose 6.0% of quality" in only(found, weight_precision="int4",
                                           cache_precision="same").refused
    loose = choose(EIGHT, replace(quick, most_loss=0.08))
    assert loose.job.weight_precision == "int4"
    assert loose.chosen.usd.value < found.chosen.usd.value


@settings(max_examples=12, deadline=None)
@given(st.floats(0.004, 0.2), st.floats(1.05, 4.0))
def test_a_looser_objective_never_costs_more(tpot, factor):
    tight, loose = (choose(LARGE, replace(TIGHT, tpot_seconds=each)).chosen
                    for each in (tpot, tpot * factor))
    if tight is not None:
        # a batch may stop a tenth short of the most, and plainer weights may cost 3% more
        assert loose.usd.value <= tight.usd.value / (1 - WORTH) / 0.9


@settings(max_examples=12, deadline=None)
@given(st.floats(0.01, 0.2), st.floats(0.05, 5.0), st.sampled_from([LARGE, tiny_run()]))
def test_what_is_chosen_meets_what_was_asked(tpot, ttft, run):
    asked = Objective(ttft_seconds=ttft, tpot_seconds=tpot, requests_per_second=0.01)
    found = choose(run, asked)
    if found.chosen is not None:
        way = found.chosen
        assert way.tpot.value <= tpot and way.ttft.value <= ttft
        assert way.memory_bytes <= run.machine.memory_bytes
        assert way.tokens_per_second.value >= 0.01 * run.serve.output_tokens
        assert found.job.max_batch == way.run.serve.max_batch >= 1
        assert way.tpot.low < way.tpot.value < way.tpot.high


def test_nothing_meets_the_impossible():
    found = choose(LARGE, replace(TIGHT, tpot_seconds=1e-6))
    assert found.chosen is None and found.run is LARGE
    assert "no way meets" in found.reasons[0] and "one answer alone takes" in found.reasons[0]
    with pytest.raises(InputError, match="no time at all"):
        choose(LARGE, replace(TIGHT, tpot_seconds=0.0))
    many = choose(LARGE, replace(TIGHT, requests_per_second=1e9))
    assert many.chosen is None and "requests a second" in many.reasons[0]


def test_quantising_that_saves_nothing_is_said(monkeypatch):
    """On a CPU whose kernels widen weights, large batches cost more in 8 bits than in bf16."""
    run = tiny_run()
    found = choose(run, Objective(ttft_seconds=30.0, tpot_seconds=5.0, requests_per_second=0.01))
    assert any("saves nothing here" in line and "weights" in line for line in found.warnings)


def test_drafts_are_tried_where_the_run_says_how_often_they_are_accepted():
    names = {way.name for way in choose(LARGE, TIGHT).ways}
    assert not any("drafted" in name for name in names)
    drafting = replace(LARGE, serve=replace(LARGE.serve, drafted_tokens=3, acceptance=0.9))
    drafted = {way.name for way in choose(drafting, TIGHT).ways}
    assert any("3 drafted" in name for name in drafted) and names < drafted


def test_an_unprobed_machine_is_served_by_no_promise():
    run = replace(tiny_run(), machine=replace(tiny_run().machine, measured_flops={}))
    found = choose(run, TIGHT)
    assert found.chosen is None and "no rate is known" in found.reasons[0]


def test_loss_between_and_beyond_measured_sizes(monkeypatch):
    monkeypatch.setattr(facts, "_rows", rows(("weights", "int4", 1e7, 0.04),
                                             ("weights", "int4", 1e9, 0.02),
                                             ("cache", "int8", 1e7, 0.001)))

    def lost(size, **job):
        class Sized:
            parameters = size
        return serving_quality.expected(Sized(), ServeJob(**job))

    int4 = {"weight_precision": "int4"}
    assert lost(1e7, **int4).value == pytest.approx(0.04)
    assert lost(1e8, **int4).value == pytest.approx(0.03)
    far, near = lost(1e11, **int4), lost(1e9, **int4)
    assert far.value == near.value == pytest.approx(0.02)
    assert far.high > 4 * near.high and "100 times beyond" in far.source
    both = lost(1e7, weight_precision="int4", cache_precision="int8")
    assert both.value == pytest.approx(0.041)
    assert lost(1e7, weight_precision="int8").value is None
    assert lost(1e7).value == 0 and lost(1e7) == stated(0.0, lost(1e7).source)


def test_the_table_of_a_model_too_large_to_train_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('[model]\npreset = "qwen3-8b"\n[machine]\nname = "1xH100"\n'
                                     "[serve]\ntpot_seconds = 0.05\n")
    assert main(["plan", "s.toml", "--serving"]) == 0
    said = capsys.readouterr().out
    assert "(taken)" in said and "Ways to serve" in said
    assert main(["plan", "s.toml", "--serving", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["met"] and plain["serve"]["tpot_seconds"] == 0.05
    assert {"tpot", "usd", "loss", "refused"} <= set(plain["ways"][0])
    (tmp_path / "s.toml").write_text('[machine]\nname = "1xH100"\n')
    assert main(["plan", "s.toml", "--serving"]) == 2
    assert "which model is served" in capsys.readouterr().err


def test_none_that_will_do_is_an_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('[model]\npreset = "qwen3-8b"\n[machine]\nname = "1xH100"\n'
                                     "[serve]\ntpot_seconds = 0.000001\n")
    assert main(["plan", "s.toml", "--serving"]) == 1
    assert "no way meets" in " ".join(capsys.readouterr().out.split())


def test_each_engine_has_the_ways_that_it_runs():
    for run, engine in ((EIGHT, "own"), (LARGE, None), (tiny_run(), None)):
        found = choose(run, TIGHT, engine=engine)
        assert found.engine == (engine or serving_ways.meant(run)[0])
        for way in found.ways:
            assert not serving_ways.not_run(way.run.serve, found.engine)
    kinds = {way.run.serve.weight_precision for way in choose(EIGHT, TIGHT, engine="vllm").ways}
    assert kinds == {"same", "fp8"}
    cut = replace(EIGHT, machine=LARGE.machine, serve=replace(EIGHT.serve, tensor_parallel=2))
    assert choose(cut, TIGHT).engine == "vllm"
    assert any("vLLM (serve.tensor_parallel = 2" in line for line in choose(cut, TIGHT).reasons)
    with pytest.raises(InputError, match=r"does not run serve\.tensor_parallel = 2"):
        choose(cut, TIGHT, engine="own")


@pytest.mark.parametrize("field", ["replicas", "prefill_replicas", "attention_parallel"])
def test_what_is_beyond_one_server_of_one_gpu_is_for_vllm(field):
    more = replace(LARGE, serve=replace(ServeJob(), **{field: 2}))
    assert serving_ways.meant(more)[0] == "vllm" and field in serving_ways.meant(more)[1]
    assert serving_ways.meant(replace(LARGE, serve=ServeJob())) == ("own", "one GPU")
    processor = replace(tiny_run(), serve=replace(ServeJob(), replicas=2))
    assert serving_ways.meant(processor)[0] == "own"


def test_what_nobody_measured_is_taken_where_no_bar_is_set(monkeypatch):
    monkeypatch.setattr(facts, "_rows", lambda overlay: ())
    barred = choose(EIGHT, TIGHT, engine="vllm")
    assert barred.job.weight_precision == barred.job.cache_precision == "same"
    assert any("its loss of quality was never measured" in line for line in barred.reasons)
    free = choose(EIGHT, replace(TIGHT, most_loss=math.inf), engine="vllm")
    assert free.job.weight_precision == "fp8"
    assert any("nobody measured its loss" in line for line in free.reasons)

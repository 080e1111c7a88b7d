from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from curbcut.cli.main import main
from curbcut.errors import InputError
from curbcut.launch import manifests, yaml_text
from plan.plan_samples import LARGE
from tiny import tiny_run

WORDS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=6), inner, max_size=3), max_leaves=12)
RUN = replace(LARGE, name="Big One", serve=replace(
    LARGE.serve, tensor_parallel=2, replicas=2, max_batch=64, max_tokens=4096, prompt_tokens=512,
    output_tokens=256))


@settings(max_examples=80, deadline=None)
@given(WORDS)
def test_what_is_written_is_read_back(value):
    assert yaml.safe_load(yaml_text.dumps(value, "a\nb: c")) == value


def objects(run, folder, kind="kubernetes", **more):
    [path] = manifests.write(run, kind, folder, **more)
    text = path.read_text()
    return text, list(yaml.safe_load_all(text))


def of_kind(found, kind):
    return [one for one in found if one["kind"] == kind]


def container(one):
    return one["spec"]["template"]["spec"]["containers"][0]


def after(words, flag):
    return words[words.index(flag) + 1]


def test_kubernetes_serves_the_job(tmp_path):
    _, found = objects(RUN, tmp_path)
    [servers] = of_kind(found, "StatefulSet")
    assert servers["spec"]["replicas"] == 2 and servers["metadata"]["name"] == "big-one"
    inside = container(servers)
    assert inside["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert after(inside["args"], "--tensor-parallel-size") == "2"
    assert after(inside["args"], "--max-num-seqs") == "64"
    assert after(inside["args"], "--max-model-len") == "4096"
    assert after(inside["args"], "--host") == "0.0.0.0"
    assert after(inside["args"], "--dtype") == "bfloat16"
    [scaler] = of_kind(found, "HorizontalPodAutoscaler")
    assert scaler["spec"]["minReplicas"] == 2 and scaler["spec"]["maxReplicas"] == 4
    labels = servers["spec"]["selector"]["matchLabels"]
    assert all(one["spec"]["selector"] == labels for one in of_kind(found, "Service"))
    assert servers["spec"]["template"]["metadata"]["labels"] == labels


def test_what_the_plan_promises_stands_in_comments(tmp_path):
    text, _ = objects(RUN, tmp_path)
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for word in ("time to first token:", "time a token:", "joules", "memory of an accelerator:"):
        assert word in comments
    assert " ms (" in comments and "not known" not in comments


@pytest.mark.parametrize("kind", manifests.KINDS)
def test_nothing_secret_is_inside(tmp_path, kind, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "sk-very-secret")
    text, _ = objects(RUN, tmp_path, kind)
    assert "sk-very-secret" not in text and "trust-remote-code" not in text
    if kind == "kubernetes":
        assert "secretKeyRef" in text


@pytest.mark.parametrize("kind", manifests.KINDS)
def test_prompts_read_apart(tmp_path, kind):
    run = replace(RUN, serve=replace(RUN.serve, replicas=1, prefill_replicas=2))
    _, found = objects(run, tmp_path, kind)
    if kind == "ray":
        [application] = found[0]["applications"]
        assert application["import_path"] == "ray.serve.llm:build_pd_openai_app"
        roles = [application["args"][name]["engine_kwargs"]["kv_transfer_config"]["kv_role"]
                 for name in ("prefill_config", "decode_config")]
        assert roles == ["kv_producer", "kv_consumer"]
        return
    if kind == "kubernetes":
        sets = {one["metadata"]["name"]: one for one in of_kind(found, "StatefulSet")}
        assert {name: one["spec"]["replicas"] for name, one in sets.items()} == {
            "big-one-prefill": 2, "big-one-decode": 1}
        said = {name: json.loads(after(container(one)["args"], "--kv-transfer-config"))["kv_role"]
                for name, one in sets.items()}
        assert said == {"big-one-prefill": "kv_producer", "big-one-decode": "kv_consumer"}
        [router] = of_kind(found, "Deployment")
        words = container(router)["args"]
        headless = {one["metadata"]["name"] for one in of_kind(found, "Service")
                    if one["spec"].get("clusterIP") == "None"}
        addresses = [word for word in words if word.startswith("http://")]
        assert len(addresses) == 3 and not of_kind(found, "HorizontalPodAutoscaler")
        assert {one.split(".")[1].split(":")[0] for one in addresses} == headless
        [public] = [one for one in of_kind(found, "Service")
                    if one["metadata"]["name"] == "big-one"]
        assert public["spec"]["selector"] == router["spec"]["selector"]["matchLabels"]
        return
    services = found[0]["services"]
    assert set(services) == {"prefill-0", "prefill-1", "decode-0", "router"}
    devices = [each for name, one in services.items() if name != "router" for each in
               one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]]
    assert sorted(devices) == ["0", "1", "2", "3", "4", "5"]
    assert all(port.startswith("127.0.0.1:") for port in services["router"]["ports"])


def test_ray_says_the_same_as_the_command_line(tmp_path):
    run = replace(RUN, serve=replace(RUN.serve, cache_precision="fp8", weight_precision="fp8",
                                     chunk_tokens=2048, drafted_tokens=3))
    _, [found] = objects(run, tmp_path, "ray", adapters=["law", "code"])
    [model] = found["applications"][0]["args"]["llm_configs"]
    said = model["engine_kwargs"]
    assert said["tensor_parallel_size"] == 2 and said["max_num_seqs"] == 64
    assert said["kv_cache_dtype"] == "fp8" and said["quantization"] == "fp8"
    assert said["max_num_batched_tokens"] == 2048 and said["enable_prefix_caching"] is True
    assert said["speculative_config"]["num_speculative_tokens"] == 3
    assert not {"host", "port", "served_model_name", "lora_modules"} & set(said)
    assert model["lora_config"]["max_num_adapters_per_replica"] == 2
    assert model["deployment_config"]["autoscaling_config"]["min_replicas"] == 2


@pytest.mark.parametrize(("run", "more", "word"), [
    (replace(RUN, serve=replace(RUN.serve, weight_precision="int4")), {}, "weight_precision"),
    (replace(RUN, serve=replace(RUN.serve, max_tokens=100)), {}, "max_tokens"),
    (replace(RUN, serve=replace(RUN.serve, tensor_parallel=64)), {}, "accelerators"),
    (replace(RUN, name="..."), {}, "makes no name"), (tiny_run(), {}, "--image"),
    (RUN, {"adapters": ["../x"]}, "adapter")])
def test_what_cannot_be_started_is_refused_before_anything_is_written(tmp_path, run, more, word):
    with pytest.raises(InputError, match=word):
        manifests.write(run, "kubernetes", tmp_path / "out", **more)
    assert not (tmp_path / "out").exists()


def test_the_verb(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "eight").mkdir(parents=True)
    (tmp_path / "runs" / "eight" / "run.toml").write_text(
        'name = "eight"\n[model]\npreset = "qwen3-8b"\n[machine]\nname = "8xH100"\n'
        "[serve]\nreplicas = 8\nmax_batch = 128\nmax_tokens = 8192\n")
    for kind in manifests.KINDS:
        assert main(["manifest", "eight", "--to", kind, "--out", "made"]) == 0
    assert capsys.readouterr().out.split() == [
        "made/kubernetes.yaml", "made/ray.yaml", "made/compose.yaml"]
    assert main(["manifest", "eigth", "--to", "ray"]) == 2
    assert "did you mean 'eight'" in capsys.readouterr().err


def test_what_the_plan_chooses_for_vllm_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "eight.toml").write_text(
        'name = "eight"\n[model]\npreset = "qwen3-8b"\n[machine]\nname = "1xH100"\n'
        '[serve]\nweight_precision = "int8"\nttft_seconds = 2.0\ntpot_seconds = 0.05\n')
    verb = ["manifest", "eight.toml", "--to", "kubernetes"]
    assert main(verb) == 2  # as the file says: vLLM has no such weights here
    assert "int8" in capsys.readouterr().err
    assert main([*verb, "--objective", "auto"]) == 0
    said = capsys.readouterr().err
    assert "by vLLM" in said and "never measured" in said  # fp8 would be cheaper
    assert "--quantization" not in (tmp_path / "kubernetes.yaml").read_text()
    assert main([*verb, "--objective", "loss=any"]) == 0
    assert "nobody measured its loss" in capsys.readouterr().err
    assert "fp8" in (tmp_path / "kubernetes.yaml").read_text()
    assert main([*verb, "--objective", "tpot=1us"]) == 2
    assert main([*verb, "--objective", "loss=200%"]) == 2

import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from curbcut.errors import DamagedFile, InputError
from curbcut.serve import methods
from curbcut.serve.books import book
from curbcut.serve.opening import Way
from curbcut.serve.server import name_of, running, serve, serving


def test_a_port_in_use_is_named_with_the_next_free_one(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError) as caught:
            serve(folder, port=port)
    assert f"port {port} is in use" in caught.value.what and caught.value.exit_code == 2
    offered = int(caught.value.mend.removeprefix("--port "))
    assert port < offered <= port + 100


def test_an_open_address_needs_keys_before_anything_is_read(tmp_path):
    with pytest.raises(InputError, match="curbcut keys add NAME"):
        serve(tmp_path / "absent", host="0.0.0.0")
    with pytest.raises(InputError, match="curbcut keys add NAME"), \
            serving(tmp_path, host="::"):
        pass


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("127.0.0.1", -1)])
def test_no_port(folder, host, port):
    with pytest.raises(InputError, match="no port"):
        serve(folder, host, port)


def test_an_address_of_another_machine(folder):
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(InputError):
            serve(folder, host, 0, verify={}.get)


def test_folders_that_cannot_be_served(folder, tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        serve(tmp_path, port=0)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        serve(tmp_path, port=0)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(DamagedFile):
        serve(tmp_path, port=0)
    with pytest.raises(InputError, match="max-batch"):
        serve(folder, port=0, max_batch=0)


def test_a_tokenizer_larger_than_the_model_is_refused(folder, tmp_path):
    from tokenizers import Tokenizer
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"word{i}" for i in range(50)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="310 tokens, the model 264"):
        serve(tmp_path, port=0)


def test_precision_can_be_chosen(folder):
    ask = {"model": "tiny", "prompt": "a", "max_tokens": 2}
    with serving(folder, dtype="bf16") as session:
        assert session.model == "tiny"
        assert httpx.post(f"{session.url}/v1/completions", json=ask).status_code == 200


def test_while_it_drains_new_requests_get_a_503_and_old_ones_end(folder):
    ask = {"model": "tiny", "prompt": "abc", "max_tokens": 120, "temperature": 0}
    with serving(folder) as session, httpx.stream(
            "POST", f"{session.url}/v1/completions", json=ask | {"stream": True}) as answer:
        lines = answer.iter_lines()
        next(lines)
        session.models.drain()
        late = httpx.post(f"{session.url}/v1/completions", json=ask)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert late.status_code == 503 and late.json()["error"]["code"] == "shutting_down"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_exits_cleanly(folder, number):
    program = ("import sys; from pathlib import Path; from curbcut.serve.server import serve\n"
               "stats = serve(Path(sys.argv[1]), port=0, "
               "on_ready=lambda s: print(s.url, flush=True))\n"
               "heavy = {'transformers', 'torch._dynamo', 'sympy', 'torchao'} & set(sys.modules)\n"
               "print(stats.finished, stats.cancelled, sorted(heavy), flush=True)")
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)],
                               stdout=subprocess.PIPE, text=True, env=os.environ)
    url = process.stdout.readline().strip()
    ask = {"model": "tiny", "prompt": "abc", "max_tokens": 120, "stream": True, "temperature": 0}
    with httpx.stream("POST", f"{url}/v1/completions", json=ask, timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(number)
        rest = [line for line in lines if line]
    assert rest[-1] == "data: [DONE]"
    assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"]
    assert process.wait(30) == 0
    assert process.stdout.read() == "1 0 []\n"      # nothing heavy was read either


def test_several_models_share_a_budget_and_the_first_is_there_at_once(folder, tmp_path):
    way = Way(max_batch=2)
    size = book(folder, way).bytes_
    models = {"first": (folder, way), "second": (folder, way)}

    def post(model):
        return httpx.post(f"{session.url}/v1/completions", timeout=30, json={
            "model": model, "prompt": "ab", "max_tokens": 3, "temperature": 0})

    with serving(models, budget_bytes=int(1.5 * size)) as session:
        assert session.model == "first" and list(session.models.stats()) == ["first"]
        listed = httpx.get(f"{session.url}/v1/models").json()["data"]
        assert [one["id"] for one in listed] == ["first", "second"]
        texts = [post(name).json()["choices"][0]["text"]
                 for name in ("first", "second", "second", "first")]
        assert len(set(texts)) == 1
        assert post("third").status_code == post("../first").status_code == 404
        assert session.stats().finished == 4
    with pytest.raises(InputError, match="more than"), serving(models, budget_bytes=size // 2):
        pass


def test_names_are_those_of_a_registry(folder, tmp_path):
    with pytest.raises(InputError, match="no name of a model"), serving(folder, name="../up"):
        pass
    assert name_of(tmp_path / "Qwen3 0.6B") == "qwen3-0.6b"
    assert name_of(tmp_path / "One" / "model") == "one"


def test_each_method_that_runs_is_there():
    from importlib import import_module
    for place in methods.RUNS.values():
        module, name = place.split(":")
        assert callable(getattr(import_module(module), name))


def test_a_running_server_is_its_url(folder):
    with running(folder, name="it") as url:
        assert httpx.get(f"{url}/v1/models").json()["data"][0]["id"] == "it"

"""OpenAI's client for Node against our server, where both are."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from curbcut.serve.server import serving
from strict import check
from without import hidden

SCRIPT = Path(__file__).parents[1] / "node" / "client.mjs"


@pytest.fixture(scope="module")
def modules():
    places = [os.environ.get("CURBCUT_NODE_MODULES"), SCRIPT.parents[3] / "node_modules"]
    for place in places:
        if place and (Path(place) / "openai" / "package.json").exists():
            return Path(place).resolve()
    pytest.skip("no `openai` package for node: set CURBCUT_NODE_MODULES")


@pytest.fixture(scope="module")
def said(modules, talker):
    """What the client got."""
    if hidden("node") or not shutil.which("node"):
        pytest.skip("no node on PATH")
    with serving(talker, name="talker", max_batch=4) as session:
        spaces = httpx.post(f"{session.url}/tokenize", json={"content": " \n\t\r"}).json()
        bias = json.dumps({str(token): -100 for token in spaces["tokens"]})
        done = subprocess.run(["node", str(SCRIPT), str(modules),
                               f"{session.url}/v1", bias],
                              capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_models(said):
    assert said["models"] == ["talker"] and said["model"] == "talker"


def test_answers(said):
    for name in ("completion", "chat", "response"):  # what the client itself adds
        said[name].pop("_request_id", None)
        said[name].pop("output_text", None)
    assert len(check(Completion, said["completion"])["choices"]) == 4
    chat = check(ChatCompletion, said["chat"])
    assert said["streamed"]["text"] == chat["choices"][0]["message"]["content"]
    assert said["streamed"]["usage"]["completion_tokens"] == chat["usage"]["completion_tokens"]
    response = check(Response, said["response"])
    assert response["output"][0]["content"][0]["text"] == said["streamed"]["text"]
    assert said["types"][0] == "response.created" and said["types"][-1] in (
        "response.completed", "response.incomplete")


def test_a_call(said):
    call = said["called"]["message"]["tool_calls"][0]["function"]
    assert call["name"] == "add" and json.loads(call["arguments"])["a"] in (1, 22)
    assert said["called"]["finish_reason"] == "tool_calls"


def test_the_rest(said):
    assert said["embedding"] == 32 and said["tokens"] == [256, 66]
    assert [(r["name"], r["status"], r["param"]) for r in said["refusals"]] == [
        ("NotFoundError", 404, "model"), ("BadRequestError", 400, "temperature"),
        ("BadRequestError", 400, "messages")]

"""A server that speaks OpenAI's API, and vLLM's besides: for tests of who talks to such servers.

In a test: `Fake()` on a thread. As a program it takes vLLM's arguments: see `main`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(body, count=None):
    """Tokens that depend on the prompt alone."""
    prompt = body.get("prompt") or [len(str(body.get("messages")))]
    start = sum(map(ord, prompt)) if isinstance(prompt, str) else sum(prompt)
    return [(start + i) % 97 for i in range(count or body["max_tokens"])]


def stream(body, *, ids=False, usage=True, finish="length"):
    """Chunks of a completion, a token each."""
    tokens = answer(body)
    chat = "messages" in body
    for place, token in enumerate(tokens):
        text = f"{token} "
        choice = {"index": 0, "finish_reason": finish if place == len(tokens) - 1 else None}
        choice |= {"delta": {"content": text}} if chat else {"text": text}
        if ids:
            choice["token_ids"] = [token]
        yield {"choices": [choice]}
    if usage:
        yield {"choices": [], "usage": {"prompt_tokens": len(body.get("prompt") or [1]),
                                        "completion_tokens": len(tokens),
                                        "prompt_tokens_details": {"cached_tokens": 1}}}


class Fake:
    """`say(path, body)` gives chunks to stream, a dict to answer with, or (status, dict)."""

    def __init__(self, owner="vllm", key="", say=None, port=0, models=None, extra=None):
        self.owner, self.key, self.seen, self.gone = owner, key, [], threading.Event()
        self.say = say or (lambda path, body: stream(body, ids=owner == "vllm"))
        self.models = models or [{"id": "m", "owned_by": owner, "max_model_len": 128}]
        self.paths = {"/health": {}, "/v1/models": {"data": self.models}} | (extra or {})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def _handler(fake):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def reply(self, status, content, **headers):
                data = json.dumps(content).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def allowed(self):
                if fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
                    self.reply(401, {"error": {"message": "no such key"}})
                    return False
                return True

            def do_GET(self):
                if not self.path.startswith("/health") and not self.allowed():
                    return
                found = fake.paths.get(self.path)
                self.reply(200 if found is not None else 404, found or {})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.allowed():
                    return
                fake.seen.append((self.path, body))
                said = fake.say(self.path, body)
                if isinstance(said, tuple):
                    self.reply(*said[:2], **(said[2] if len(said) > 2 else {}))
                elif isinstance(said, dict):
                    self.reply(200, said)
                else:
                    self.chunks(said)

            def chunks(self, said):
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                try:
                    for chunk in said:
                        line = chunk if isinstance(chunk, str) else json.dumps(chunk)
                        self.wfile.write(f"data: {line}\n\n".encode())
                        self.wfile.flush()
                    self.wfile.write(b"data: [DONE]\n\n")
                except OSError:
                    fake.gone.set()

        return Handler


def main(given):
    """`serve FOLDER --port N ...`: as vLLM, with a process of its own that outlives SIGTERM."""
    folder, port = given[1], int(given[given.index("--port") + 1])
    if "broken" in folder:
        print("loading\nRuntimeError: this model is broken", flush=True)
        sys.exit(3)
    child = subprocess.Popen([sys.executable, "-c", "import signal, time\nsignal.signal("
                              "signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"])
    with open(os.path.join(folder, "told.json"), "w") as file:
        json.dump({"arguments": given, "child": child.pid, "key": os.environ["VLLM_API_KEY"]}, file)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    name = given[given.index("--served-model-name") + 1]
    Fake(key=os.environ["VLLM_API_KEY"], port=port,
         models=[{"id": name, "owned_by": "vllm", "max_model_len": 128}])
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1:])

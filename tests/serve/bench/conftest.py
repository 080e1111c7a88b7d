"""A server of a few lines that speaks OpenAI's streams, so that a bench is tested on its own."""

import asyncio
import json
import threading

import pytest


class Fake:
    """What it was asked, and how it answers: a token every `pause` seconds."""

    def __init__(self):
        self.asked, self.refuses, self.usage, self.fails = [], (), True, 0
        self.pause, self.models, self.status = 0.001, ["fake"], 400

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = [int(line.split(":")[1]) for line in head.splitlines()
                          if line.lower().startswith("content-length")]
                body = json.loads(await reader.readexactly(length[0])) if length else None
                await self.answer(writer, head.split()[1], body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, writer, path, body):
        if path.endswith("/models"):
            return self.whole(writer, 200, {"data": [
                one if isinstance(one, dict) else {"id": one} for one in self.models]})
        self.asked.append((path, body))
        refused = [name for name in self.refuses if name in body]
        if refused or len(self.asked) in range(2, 2 + self.fails):
            return self.whole(writer, self.status, {"error": {"message": f"no {refused}"}})
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        tokens = body["max_tokens"]
        for n in range(tokens):
            await asyncio.sleep(self.pause)
            choice = {"text": f"w{n} "} if "prompt" in body else {"delta": {"content": f"w{n} "}}
            self.chunk(writer, {"choices": [choice]})
        if self.usage and body.get("stream_options"):
            prompt = body.get("prompt") or body["messages"][0]["content"]
            count = len(prompt) if isinstance(prompt, list) else 2 * len(prompt.split())
            self.chunk(writer, {"choices": [], "usage": {
                "prompt_tokens": count, "completion_tokens": tokens}})
        self.chunk(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    def chunk(self, writer, event):
        data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def whole(self, writer, status, content):
        data = json.dumps(content).encode()
        writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)


@pytest.fixture
def fake():
    """A running one, with its address as `url`."""
    server, ready = Fake(), threading.Event()
    loop = asyncio.new_event_loop()

    async def start():
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        ready.set()

    def run():
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    yield server
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)

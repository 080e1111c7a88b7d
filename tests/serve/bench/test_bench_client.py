"""The client against servers of a few lines that answer as slowly and oddly as they please."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from curbcut.serve.bench.client import Answer, Client, near, url
from curbcut.serve.engine.address import Address


def test_addresses():
    assert url(Address.of("http://[::1]:80/v1")) == "http://[::1]:80"
    assert url(Address.of("https://models.example/x/v1/")) == "https://models.example:443/x"
    assert near(Address.of("http://127.0.0.9")) and not near(Address.of("http://10.0.0.1"))


def asked(*answers, seconds=5.0, times=1):
    """What a client finds whose server writes these parts, a moment apart, to each request."""
    connections = []

    async def serve(reader, writer):
        connections.append(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for part in answers:
                    if part is None:
                        writer.close()
                        return
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0.002)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Client(Address.of(f"http://127.0.0.1:{port}", "secret"))
        found = [await client.get("/x", seconds) for _ in range(times)]
        client.close()
        server.close()
        return found, len(connections)
    return asyncio.run(run())


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(text):
    return f"{len(text):x}\r\n{text}\r\n".encode()


def test_events_have_the_times_at_which_they_came():
    [answer], _ = asked(HEAD, chunk("data: one\n\n"), chunk("data: tw"), chunk("o\n\n"),
                        chunk("data: [DONE]\n\n"), b"0\r\n\r\n")
    assert answer.status == 200 and not answer.error
    assert [data for _, data in answer.events()] == [b"one", b"two", b"[DONE]"]
    times = [when for when, _ in answer.events()]
    assert answer.began < times[0] < times[1] < times[2] <= answer.ended


def test_one_connection_serves_one_request_after_another():
    body = b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\nnone"
    found, connections = asked(body, times=3)
    assert [one.body() for one in found] == [b"none"] * 3 and connections == 1
    assert found[0].status == 404
    found, connections = asked(HEAD + chunk("data: x\n\n"), b"0\r\n", b"\r\n", times=2)
    assert [one.events()[0][1] for one in found] == [b"x", b"x"] and connections == 1


def test_a_server_that_closes_is_asked_anew():
    found, connections = asked(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"data: x\n", None,
                               times=2)
    assert [one.error for one in found] == ["", ""] and connections == 2
    assert found[0].events()[0][1] == b"x"


def test_an_answer_that_breaks_off_or_never_ends_is_an_error():
    [cut], _ = asked(HEAD, chunk("data: x\n\n"), None)
    assert "lost" in cut.error and cut.status == 200
    [slow], _ = asked(HEAD, chunk("data: x\n\n"), seconds=0.05)
    assert "no end" in slow.error

    async def nobody():
        return await Client(Address.of("http://127.0.0.1:9")).get("/")
    assert "no connection" in asyncio.run(nobody()).error


@given(st.lists(st.text("ab\n0: é", max_size=12), max_size=6), st.data())
def test_chunks_are_joined_however_the_network_cuts_them(texts, data):
    whole = b"".join(f"{len(t.encode()):x}\r\n".encode() + t.encode() + b"\r\n"
                     for t in texts if t) + b"0\r\n\r\n"
    parts, when = [], 0
    while whole:
        size = data.draw(st.integers(1, 9))
        parts.append((float(when := when + 1), whole[:size]))
        whole = whole[size:]
    assert Answer(parts=parts, chunked=True).body().decode() == "".join(texts)

"""Clients without manners keep nobody else out and leave nothing behind: S5, S6 of the matrix."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from curbcut.serve import sweep
from curbcut.serve.api import answers


def open_connections(target):
    """Connections that this process's server still holds."""
    return sum(one.status == "ESTABLISHED" and one.laddr.port == target.address[1]
               for one in psutil.Process().net_connections("tcp"))


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not come to be"
        time.sleep(0.02)


def test_heads_that_never_end_keep_nobody_out_and_are_closed(target, monkeypatch):
    monkeypatch.setattr(sweep, "HEADER_SECONDS", 1.0)
    wires = [target.connect() for _ in range(200)]
    try:
        for place, wire in enumerate(wires):
            wire.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX: a"[:place])
        assert target.post().status_code == 200
        for wire in wires[100:]:
            wire.send(b"b")  # a byte now and then is no head
        target.rest()
        until(lambda: open_connections(target) == 0)
    finally:
        for wire in wires:
            wire.close()
    assert target.post().status_code == 200


def test_who_stops_reading_is_dropped_and_others_go_on(target, monkeypatch):
    monkeypatch.setattr(answers, "WRITE_SECONDS", 0.3)
    monkeypatch.setattr(sweep, "HEADER_SECONDS", 1.0)
    body = {"model": "tiny", "prompt": "a", "max_tokens": 100, "n": 16, "logprobs": 5,
            "stream": True, "ignore_eos": True, "temperature": 2}
    cancelled = target.session.stats().cancelled
    with socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.connect(target.address)
        wire.sendall(target.request(body))
        assert wire.recv(12) == b"HTTP/1.1 200"
        assert target.post().status_code == 200
        target.at_rest()
        assert target.session.stats().cancelled > cancelled  # it was not answered to its end
        target.rest()
        until(lambda: open_connections(target) == 0)  # nor is it waited for
    assert target.uses()[-1].output_tokens < 16 * 100


def test_streams_that_are_left_in_the_middle_give_all_back(target, slow):
    def leave(place):
        with target.connect() as wire:
            wire.sendall(target.request({"model": "tiny", "prompt": "a", "max_tokens": 120,
                                         "n": 1 + place % 3, "stream": True, "ignore_eos": True,
                                         "temperature": 2}))
            wire.recv(1 << place % 12)
            if place % 2:  # rudely
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    before = len(target.uses())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(leave, range(40)))
    target.at_rest()
    left = target.uses()[before:]
    assert len(left) == 40 and {use.finish for use in left} <= {"cancelled", "length", "stop"}
    assert sum(use.finish == "cancelled" for use in left) > 30
    assert all(use.charged_nanousd == (use.prompt_tokens + use.output_tokens) * 10**6
               for use in left)


def test_bodies_that_stop_half_way_hold_nothing(target):
    whole = target.request({"model": "tiny", "prompt": "abc", "max_tokens": 4})
    before = len(target.uses())
    wires = []
    for cut in range(len(whole) - 40, len(whole), 2):
        wires.append(target.connect())
        wires[-1].sendall(whole[:cut])
    assert target.post().status_code == 200
    target.at_rest()
    for wire in wires:
        wire.close()
    assert len(target.uses()) == before + 1

"""Work done in copies of this process, so that it leaves nothing behind in this one.

Torch's threads do not live on in a process forked later: what is timed before ranks are forked is
timed here, in a process of its own.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from curbcut.errors import CurbcutError


def run(work: Callable[[int], Any], count: int = 1, timeout_seconds: float = 120.0) -> list[Any]:
    """What `work(rank)` returned (JSON-like values) in each of `count` forked processes.

    Raises CurbcutError with the first failure's last line, or when the time is over; no process is
    left then.
    """
    pipes = [os.pipe() for _ in range(count)]
    pids = [_fork(work, rank, pipes) for rank in range(count)]
    for _, write in pipes:
        os.close(write)
    try:
        told = _gathered([read for read, _ in pipes], time.monotonic() + timeout_seconds)
    finally:
        for pid in pids:
            _end(pid)
    for rank, text in enumerate(told):
        answer = json.loads(text) if text else {"failed": "it said nothing"}
        if "failed" in answer:
            raise CurbcutError(f"process {rank} of {count} failed: {answer['failed']}")
    return [json.loads(text)["value"] for text in told]


def _fork(work: Callable[[int], Any], rank: int, pipes: list[tuple[int, int]]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        try:
            answer = {"value": work(rank)}
        except BaseException:
            answer = {"failed": traceback.format_exc().strip().splitlines()[-1]}
        with os.fdopen(pipes[rank][1], "w") as out:
            json.dump(answer, out)
    finally:
        os._exit(0)


def _gathered(reads: list[int], until: float) -> list[str]:
    """All text of each pipe, up to its end or the time's."""
    texts = dict.fromkeys(reads, b"")
    with selectors.DefaultSelector() as ready:
        for read in reads:
            ready.register(read, selectors.EVENT_READ)
        while ready.get_map() and (left := until - time.monotonic()) > 0:
            for key, _ in ready.select(left):
                piece = os.read(key.fd, 65536)
                texts[key.fd] += piece
                if not piece:
                    ready.unregister(key.fd)
                elif len(texts[key.fd]) > 1 << 24:
                    raise CurbcutError("a forked process told more than 16 MiB")
    for read in reads:
        os.close(read)
    return [texts[read].decode() for read in reads]


def _end(pid: int) -> None:
    found, _ = os.waitpid(pid, os.WNOHANG)
    if found:
        return
    time.sleep(0.05)
    found, _ = os.waitpid(pid, os.WNOHANG)
    if not found:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

"""One load after another on a server, each after a warm-up."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from curbcut.errors import CurbcutError, InputError, UnknownName
from curbcut.serve.bench.client import Answer, Client, url
from curbcut.serve.bench.lengths import WORDS, Asking, Question
from curbcut.serve.bench.load import Closed, Load, Open
from curbcut.serve.bench.result import Objective, Result, Sample, read_json, result, sample
from curbcut.serve.engine.address import Address
from curbcut.spec.estimate import Estimate

Api = Literal["completions", "chat"]
NONE = Objective()
ANSWER_SECONDS = 600.0
"""An answer may take so long."""
TRIED_WORDS = 100
"""Most words of the prompt by which a server without a tokenizer here shows what a token is."""
_OPTIONAL = ("ignore_eos", "stream_options")
"""Fields that not every server knows; one that refuses them is asked without."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is asked of a server, and how long."""

    asking: Asking
    loads: tuple[Load, ...]
    requests: int = 0
    """Requests of each load; 0: as many as come in `seconds`."""
    seconds: float = 0.0
    """No more requests after so many; 0: until `requests` are asked."""
    warmup: int = 2
    """Requests before each load that count for nothing."""
    api: Api = "completions"
    temperature: float = 0.0
    objective: Objective = NONE
    fields: frozenset[str] = frozenset(_OPTIONAL)
    """Optional fields that are asked with."""


@dataclass(frozen=True)
class Found:
    """What a bench found."""

    model: str
    results: tuple[Result, ...]
    notes: tuple[str, ...]
    """What differs from what was asked."""


Metered = Callable[[float], Estimate]
"""Joules since it was made, of which the server was busy for so many seconds."""


def drive(where: Address, bench: Bench, *, model: str = "",
          count: Callable[[str], int] | None = None, meter: Callable[[], Metered] | None = None,
          on_result: Callable[[Result], None] | None = None) -> Found:
    """Asks the server at `where` all that `bench` says.

    `count` counts the tokens of a text where the server does not; `meter` starts to count joules.
    Raises InputError for a server that cannot be reached or does not do what is asked, UnknownName
    for a model that it does not have.
    """
    return asyncio.run(_drive(where, bench, model, count, meter, on_result))


async def _drive(where: Address, bench: Bench, model: str,
                 count: Callable[[str], int] | None, meter: Callable[[], Metered] | None,
                 on_result: Callable[[Result], None] | None) -> Found:
    async with _client(where) as client:
        model = await _model(client, model)
        bench, notes = await _tried(client, bench, model)
        results = []
        for number, load in enumerate(bench.loads):
            part = str(number)
            await _warm(client, bench, model, part)
            stop = meter() if meter else None
            asked = await _asked(client, bench, model, load, part)
            samples = _samples(asked, count)
            joules = stop(result("", samples, NONE).busy_seconds) if stop else None
            found = result(str(load), samples, bench.objective, joules)
            results.append(found)
            if on_result is not None:
                on_result(found)
    return Found(model, tuple(results), notes)


Asked = tuple[float, Question, Answer]
"""When it was due, what was asked, what came."""


def _samples(asked: list[Asked], count: Callable[[str], int] | None) -> list[Sample]:
    return [sample(answer, due, len(question.prompt) if isinstance(question.prompt, tuple) else 0,
                   count) for due, question, answer in asked]


@asynccontextmanager
async def _client(where: Address) -> AsyncIterator[Client]:
    client = Client(where)
    try:
        yield client
    finally:
        client.close()


async def _model(client: Client, wanted: str) -> str:
    """The model to ask: the one that is wanted, or the only one there is (but adapters of it)."""
    answer = await client.get("/v1/models")
    place = url(client.where)
    if answer.error or answer.status != 200:
        raise _unreachable(answer, place, "/v1/models")
    listed = [one for one in read_json(answer.body()).get("data") or () if isinstance(one, dict)]
    known = [str(one.get("id")) for one in listed]
    if wanted:
        if wanted not in known:
            raise UnknownName("model", wanted, known, where=place)
        return wanted
    whole = [str(one.get("id")) for one in listed if not one.get("parent")]  # adapters have one
    if len(whole) != 1:
        raise InputError(f"serves {len(known)} models", where=place,
                         mend=f"--as one of: {', '.join(known[:12])}" if known
                         else "look whether it has loaded one")
    return whole[0]


def _unreachable(answer: Answer, place: str, path: str) -> CurbcutError:
    if not answer.status:
        return InputError(f"does not answer: {answer.error}", where=place,
                          mend="look whether the server runs, and at host and port")
    mend = {400: "ask for less, or otherwise", 401: "--key SECRET", 403: "--key SECRET",
            404: "--api chat, or another address"}.get(answer.status, "look at the server's log")
    said = read_json(answer.body()).get("error")
    why = said.get("message") if isinstance(said, dict) else said
    return InputError(f"{path} answers {answer.status}{f': {why}' if why else ''}", where=place,
                      mend=mend)


async def _tried(client: Client, bench: Bench, model: str) -> tuple[Bench, tuple[str, ...]]:
    """One request, by which the server shows which fields it knows and how long its tokens are."""
    notes: list[str] = []
    asking = bench.asking
    words = max(4, min(TRIED_WORDS, int(asking.mean_tokens[0] / 4)))
    question = (replace(asking.question(0, "try"), output_tokens=2) if asking.pool
                else Question(" ".join(WORDS[:words]), 2))
    while True:
        answer = await client.ask(_request(client, bench, model, question), ANSWER_SECONDS)
        if not answer.error and answer.status == 200:
            break
        refused = answer.body().decode(errors="replace")
        named = [name for name in bench.fields if name in refused]
        if answer.status not in (400, 422) or not named:
            raise _unreachable(answer, url(client.where), f"/v1/{bench.api}")
        bench = replace(bench, fields=bench.fields - {named[0]})
        notes.append({"ignore_eos": "the server knows no ignore_eos: answers may end early",
                      "stream_options": "the server counts no tokens in a stream"}[named[0]])
    found = sample(answer, answer.began, 0, None)
    if found.error:
        raise InputError(f"its first answer failed: {found.error}", where=url(client.where),
                         mend="look at the server's log")
    if not asking.pool and found.prompt_tokens:
        bench = replace(bench, asking=replace(
            asking, words_a_token=words / found.prompt_tokens))
        notes.append(f"prompts are text, by {found.prompt_tokens / words:.2f} tokens a word "
                     "of the first one")
    return bench, tuple(notes)


def _request(client: Client, bench: Bench, model: str, question: Question) -> bytes:
    body: dict[str, Any] = {"model": model, "max_tokens": question.output_tokens,
                            "temperature": bench.temperature, "stream": True}
    optional: Mapping[str, Any] = {"ignore_eos": True, "stream_options": {"include_usage": True}}
    body |= {name: value for name, value in optional.items() if name in bench.fields}
    if bench.api == "chat":
        assert isinstance(question.prompt, str)
        body["messages"] = [{"role": "user", "content": question.prompt}]
        return client.request("/v1/chat/completions", body)
    body["prompt"] = question.prompt
    return client.request("/v1/completions", body)


async def _warm(client: Client, bench: Bench, model: str, part: str) -> None:
    questions = [bench.asking.question(n, f"warm {part}") for n in range(bench.warmup)]
    await asyncio.gather(*(client.ask(_request(client, bench, model, one), ANSWER_SECONDS)
                           for one in questions))


async def _asked(client: Client, bench: Bench, model: str, load: Load, part: str) -> list[Asked]:
    """All requests of a load, each with its answer."""
    def prepared(number: int) -> tuple[Question, bytes]:
        question = bench.asking.question(number, part)
        return question, _request(client, bench, model, question)

    if isinstance(load, Closed):
        return await _closed(client, bench, load, prepared)
    return await _open(client, bench, load, prepared)


Prepared = Callable[[int], tuple[Question, bytes]]


async def _closed(client: Client, bench: Bench, load: Closed, prepared: Prepared) -> list[Asked]:
    """Each user asks, waits for the answer, and asks again."""
    asked: list[Asked] = []
    numbers = itertools.count()
    begin = time.perf_counter()

    async def user(joins: float) -> None:
        await asyncio.sleep(joins)
        while not bench.seconds or time.perf_counter() - begin < bench.seconds:
            number = next(numbers)
            if bench.requests and number >= bench.requests:
                return
            question, request = prepared(number)
            due = time.perf_counter()
            asked.append((due, question, await client.ask(request, ANSWER_SECONDS)))
    await asyncio.gather(*map(user, load.joins(bench.seconds)))
    return asked


async def _open(client: Client, bench: Bench, load: Open, prepared: Prepared) -> list[Asked]:
    """Requests come when they come, and are prepared before any does."""
    seconds = bench.seconds or float("inf")
    due = load.arrivals(bench.asking.seed, seconds, bench.requests or None)
    ready = [(when, *prepared(number)) for number, when in enumerate(due)]
    if bench.asking.trace:  # its own times, as far as it has them
        ready = [(question.seconds if question.seconds is not None else when, question, request)
                 for when, question, request in ready]
        ready = sorted(one for one in ready if one[0] <= seconds)
    begin = time.perf_counter() + 0.01

    async def one(when: float, question: Question, request: bytes) -> Asked:
        await asyncio.sleep(begin + when - time.perf_counter())
        return begin + when, question, await client.ask(request, ANSWER_SECONDS)
    if not ready:
        raise InputError("no request comes in that time", where="--seconds",
                         mend="more seconds, or a higher --rate")
    return list(await asyncio.gather(*(one(*each) for each in ready)))

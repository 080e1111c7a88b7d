"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from curbcut.serve.api import shapes
from curbcut.serve.api.answers import EventStream, Gathered, begun, counted, gathered, guarded
from curbcut.serve.api.asking import encoded, questions, readied
from curbcut.serve.api.door import read
from curbcut.serve.api.flow import Flow
from curbcut.serve.api.house import Borrowed, House, caller_of
from curbcut.serve.api.odds import Legacy, Spelling
from curbcut.serve.engine.interface import Sampling
from curbcut.serve.gateway.completion import Completion, completion
from curbcut.serve.gateway.completion import Prompt as Asked

Tokens = tuple[int, ...]


async def completions(house: House, request: Request) -> Response:
    """Goes on with texts."""
    ask = completion(await read(request, house.limits), house.limits)
    async with AsyncExitStack() as stack:
        borrowed = await stack.enter_async_context(house.borrow(request, ask.model))
        prompts: list[Asked] = [
            await encoded(borrowed, prompt, ask.add_special, "prompt")
            if borrowed.vocabulary is not None or not isinstance(prompt, str) else prompt
            for prompt in ask.prompts]
        asked = questions(borrowed, ask, prompts, ask.best_of, house.limits, "prompt",
                          caller_of(request), _sampling(borrowed, ask),
                          _elsewhere(borrowed, ask))
        head = shapes.Head("completion", borrowed.name, borrowed.fingerprint)
        headers = {"X-Request-Id": head.id}
        told = _Telling(borrowed, ask, [question.prompt for question in asked[::ask.best_of]])
        await readied(borrowed, asked)
        flow = await house.begin(request, borrowed, asked, each=ask.best_of, stream=ask.stream,
                                 priority=ask.priority)
        if ask.stream:
            events = _events(flow, head, told)
            events = events if borrowed.vocabulary else await begun(events)
            return EventStream(guarded(events, lambda r: shapes.event(r.body)),
                               stack.pop_all().aclose, headers)
        answers = await gathered(flow, len(asked))
        choices = [told.choice(index, answers[place])
                   for index, place in enumerate(_best(answers, ask))]
        counts = counted(flow, ask.max_tokens == 0)
        return JSONResponse(head.part(choices, chunk=False) | {"usage": counts}, headers=headers)


def _elsewhere(borrowed: Borrowed, ask: Completion) -> dict[str, Any]:
    """What an engine elsewhere is told beside the prompt: only it can spell the prompt's tokens."""
    if borrowed.vocabulary is not None or not ask.echo or ask.sampling.logprobs is None:
        return {}
    return {"echo": True} | ({"max_tokens": 0} if ask.max_tokens == 0 else {})


def _sampling(borrowed: Borrowed, ask: Completion) -> Sampling:
    sampling = ask.sampling
    if ask.echo and sampling.logprobs is not None and borrowed.vocabulary is not None:
        sampling = replace(sampling, prompt_logprobs=max(sampling.logprobs,
                                                         sampling.prompt_logprobs or 0))
    if ask.best_of > ask.n and sampling.logprobs is None:
        sampling = replace(sampling, logprobs=0)
    return sampling


def _best(answers: Sequence[Gathered], ask: Completion) -> list[int]:
    """Of each prompt's answers the `n` likeliest ones, by the mean of their tokens."""
    best: list[int] = []
    for start in range(0, len(answers), ask.best_of):
        group = sorted(range(start, start + ask.best_of),
                       key=lambda place: -answers[place].mean_logprob) \
            if ask.best_of > ask.n else list(range(start, start + ask.best_of))
        best += group[:ask.n]
    return best


class _Telling:
    """How the answers of one request are told."""

    def __init__(self, borrowed: Borrowed, ask: Completion, prompts: Sequence[Any]) -> None:
        self._vocabulary, self._ask, self._prompts = borrowed.vocabulary, ask, prompts
        self._spelling = Spelling(borrowed.vocabulary, ask.tokens_as_ids)
        self._legacy: dict[int, Legacy] = {}
        self._given = ask.prompts
        self._echoes = bool(_elsewhere(borrowed, ask))
        self.plain = ask.sampling.logprobs is None and not ask.return_ids \
            and ask.sampling.prompt_logprobs is None and ask.max_tokens != 0
        """Whether there is nothing but text to tell."""

    def choice(self, index: int, answer: Gathered, *, begins: bool = True) -> dict[str, Any]:
        """One answer, or a piece of it; `begins` says whether it is the first piece."""
        ask, prompt = self._ask, self._prompts[index // self._ask.n]
        hidden = ask.max_tokens == 0 and not self._echoes
        if hidden:  # one token was made, for an engine makes at least one: nobody asked for it
            answer = replace(answer, texts=[], ids=[], odds=[], stopped_by=None,
                             finish=answer.finish and "length")
        echo = begins and ask.echo
        logprobs = None
        if ask.sampling.logprobs is not None:
            legacy = self._legacy.setdefault(index, Legacy(self._spelling))
            tokens = prompt if echo and isinstance(prompt, tuple) else ()
            odds = [*(answer.prompt_odds if tokens else ()), *answer.odds]
            logprobs = legacy.add(odds, tokens, answer.spelt)
        text = (self._echoed(index // ask.n) if echo and not self._echoes else "") + answer.text
        choice = shapes.completion_choice(index, text, answer.finish, logprobs)
        if answer.stopped_by is not None:
            choice["stop_reason"] = answer.stopped_by
        if ask.return_ids:
            choice["token_ids"] = answer.ids
            if begins:
                choice["prompt_token_ids"] = list(prompt) if isinstance(prompt, tuple) else None
        if ask.sampling.prompt_logprobs is not None and begins:
            choice["prompt_logprobs"] = self._spelling.prompt(answer.prompt_odds)
        return choice

    def _echoed(self, place: int) -> str:
        given, tokens = self._given[place], self._prompts[place]
        if isinstance(given, str) and self._ask.truncate is None:
            return given
        if self._vocabulary is None:
            return ""
        return self._vocabulary.decode(list(tokens), special=self._ask.sampling.special_text)


async def _events(flow: Flow, head: shapes.Head, told: _Telling) -> AsyncGenerator[str, None]:
    ask = told._ask
    events = shapes.Events(head, ask.include_usage)
    begun: set[int] = set()
    async with aclosing(flow.deltas()) as batches:
        async for deltas in batches:
            written = []
            for index, delta in deltas:
                begins = index not in begun
                begun.add(index)
                if told.plain and not delta.finish and not (begins and ask.echo) \
                        and not ask.running_usage:
                    if delta.text:
                        written.append(events.text(index, delta.text))
                    continue
                piece = Gathered()
                piece.add(delta)
                if not begins and not (delta.text or delta.finish or delta.ids or piece.spelt):
                    continue
                counts = counted(flow) if ask.running_usage and ask.include_usage else None
                written.append(events.choice(told.choice(index, piece, begins=begins), counts))
            if written:
                yield "".join(written)
    closing = events.counts(counted(flow, ask.max_tokens == 0)) if ask.include_usage else ""
    yield closing + shapes.event("[DONE]")

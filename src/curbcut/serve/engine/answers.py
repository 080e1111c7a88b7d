"""From tokens to what a listener hears: text, where an answer ends, and all that a delta tells."""

from __future__ import annotations

from collections.abc import Container

from curbcut.serve.engine.interface import Delta, Finish
from curbcut.serve.engine.request import Request


def say(request: Request, token: int,
        ends: Container[int]) -> tuple[str, Finish | None, str | int | None]:
    """The text of an answer's newest token, how the answer ends there if it does, and by which
    stop text or stop token. `ends` are the model's own end tokens.
    """
    sampling, text = request.sampling, request.text
    may_stop = request.answered > sampling.min_tokens
    own = token in sampling.stop_tokens
    if may_stop and (own or (token in ends and not sampling.ignore_end)):
        said = text.add(token, may_stop=False) if sampling.include_stop else ""
        said += text.finish()
        return said, "stop", token if own else text.stopped
    said = text.add(token, may_stop=may_stop)
    full = request.answered >= sampling.max_tokens
    if full:
        said += text.finish()
    if text.stopped is not None:
        return said, "stop", text.stopped
    return said, "length" if full else None, None


def delta_of(request: Request, text: str, finish: Finish | None = None,
             stopped_by: str | int | None = None) -> Delta:
    """All that came since the last delta, with `text`; the request counts it as told."""
    ids = tuple(request.tokens[request.prompt_tokens + request.told:])
    first, request.told = not request.told, request.answered
    odds, request.odds = tuple(request.odds), []
    prompt_odds = tuple(request.prompt_odds) if first and ids else ()
    return Delta(text, request.told, finish, odds, prompt_odds, ids, request.cached,
                 request.prompt_tokens, stopped_by)

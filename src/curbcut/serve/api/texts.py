"""POST /v1/embeddings, /tokenize, /detokenize, .../input_tokens: what is made of texts without an
answer.
"""

from __future__ import annotations

import asyncio
import base64
import time
from array import array
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from curbcut.serve.api.asking import conversed, encoded
from curbcut.serve.api.door import read
from curbcut.serve.api.house import Borrowed, House, caller_of
from curbcut.serve.api.uses import Use
from curbcut.serve.engine.interface import Busy, Closed, Unfit
from curbcut.serve.gateway.chat import Chat, chat
from curbcut.serve.gateway.embeddings import embeddings
from curbcut.serve.gateway.gate import Spent
from curbcut.serve.gateway.limits import check_known, room_for_answer
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.gateway.responses import respond
from curbcut.serve.gateway.tokens import detokenise, tokenise


async def embed(house: House, request: Request) -> Response:
    """A vector for each text."""
    ask = embeddings(await read(request, house.limits), house.limits)
    async with house.borrow(request, ask.model) as borrowed:
        prompts = [await encoded(borrowed, one, ask.add_special, "input") for one in ask.inputs]
        for prompt in prompts:
            room_for_answer(prompt, 1, borrowed.engine.context_tokens + 1, house.limits, "input")
        started, count = time.perf_counter(), sum(map(len, prompts))
        let_in = await house.let_in(request, borrowed, count)
        try:
            vectors = await _vectors(borrowed, prompts)
            width = len(vectors[0])
            if ask.dimensions not in (None, width):
                raise Refused(400, f"The vectors of {borrowed.name!r} have {width} dimensions, and "
                                   "are not cut: a cut vector of this model means nothing.",
                              param="dimensions", code="invalid_value")
        except BaseException:
            if let_in is not None:
                let_in.release()
            raise
        spent = Spent(prompt_tokens=count, output_tokens=0, cached_tokens=0, finish="stop",
                      seconds=time.perf_counter() - started)
        taken = await let_in.settled(spent) if let_in is not None else None
        caller = caller_of(request)
        house.tell(Use(key=caller.key if caller else None, model=borrowed.name,
                       prompt_tokens=count, output_tokens=0, finish="stop", seconds=spent.seconds,
                       adapter=borrowed.adapter, caller=caller, taken=taken))
    data = [{"object": "embedding", "index": index,
             "embedding": _packed(vector) if ask.base64 else vector}
            for index, vector in enumerate(vectors)]
    return JSONResponse({"object": "list", "data": data, "model": borrowed.name,
                         "usage": {"prompt_tokens": count, "total_tokens": count}})


async def _vectors(borrowed: Borrowed, prompts: list[tuple[int, ...]]) -> list[list[float]]:
    try:
        return await asyncio.to_thread(borrowed.engine.embed, prompts)
    except Busy as busy:
        raise Refused(429, f"The server is busy ({busy}): come again in a moment.",
                      code="queue_full", retry_after_seconds=1) from None
    except Closed:
        raise Refused(503, "The server is shutting down.", code="shutting_down") from None
    except (Unfit, NotImplementedError) as unfit:
        raise Refused(400, f"{borrowed.name!r} makes no vectors: {unfit}", param="model",
                      code="unsupported_model") from None


def _packed(vector: list[float]) -> str:
    """32-bit floats, lowest byte first, as base64."""
    numbers = array("f", vector)
    if array("H", [1]).tobytes()[0] == 0:
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()


async def tokenise_text(house: House, request: Request) -> Response:
    """The tokens of a text or a chat."""
    ask = tokenise(await read(request, house.limits), house.limits)
    async with house.borrow(request, ask.model) as borrowed:
        vocabulary = borrowed.needs_vocabulary()
        tokens = list(await encoded(borrowed, ask.prompt, ask.add_special, "prompt")
                      if isinstance(ask.prompt, str)
                      else await conversed(borrowed, ask.prompt, ask.add_special))
        answer: dict[str, Any] = {"count": len(tokens), "tokens": tokens,
                                  "max_model_len": borrowed.engine.context_tokens,
                                  "token_strs": None}
        if ask.with_texts:
            answer["token_strs"] = [vocabulary.decode([token], special=True) for token in tokens]
        if ask.pieces:
            texts = answer.pop("token_strs")
            answer["tokens"] = [{"id": token, "piece": _piece(text, vocabulary.bytes_of(token))}
                                for token, text in zip(tokens, texts, strict=True)]
    return JSONResponse(answer)


async def count_chat(house: House, request: Request) -> Response:
    """How many tokens the prompt of a chat has."""
    return await _count(house, request, chat(await read(request, house.limits), house.limits))


async def count_response(house: House, request: Request) -> Response:
    """How many tokens the prompt of a response has."""
    asked = respond(await read(request, house.limits), house.limits)
    return await _count(house, request, asked.chat)


async def _count(house: House, request: Request, ask: Chat) -> Response:
    async with house.borrow(request, ask.model) as borrowed:
        borrowed.needs_vocabulary()
        tokens = await conversed(borrowed, ask.conversation, ask.add_special)
    return JSONResponse({"object": "response.input_tokens", "input_tokens": len(tokens)})


def _piece(text: str, raw: bytes | None) -> str | list[int]:
    """A token's text, or its bytes where they are no whole character."""
    if raw is None:
        return text
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


async def detokenise_tokens(house: House, request: Request) -> Response:
    """The text of tokens, special ones included."""
    ask = detokenise(await read(request, house.limits), house.limits)
    async with house.borrow(request, ask.model) as borrowed:
        check_known(ask.tokens, borrowed.engine.vocab, "tokens")
        text = borrowed.needs_vocabulary().decode(list(ask.tokens), special=True)
    return JSONResponse({"prompt": text, "content": text})

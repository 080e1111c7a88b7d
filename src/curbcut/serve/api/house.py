"""What all routes share: the models, the limits, and the way from a request to an engine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from starlette.requests import ClientDisconnect, Request

from curbcut import __version__
from curbcut.errors import CurbcutError
from curbcut.ledger.access import Caller
from curbcut.serve.api.flow import Asker, Crossing, Flow, gone
from curbcut.serve.api.uses import Use, Uses
from curbcut.serve.engine.chat import Prompter
from curbcut.serve.engine.interface import Asked, Closed, Engine
from curbcut.serve.engine.models import Models, NoRoom, Served, UnknownModel
from curbcut.serve.engine.text import Vocabulary
from curbcut.serve.gateway.gate import Gate, Pass, Room
from curbcut.serve.gateway.limits import Limits, most_tokens
from curbcut.serve.gateway.quotas import may_ask
from curbcut.serve.gateway.refusal import Refused
from curbcut.serve.metrics import Metrics


@dataclass(frozen=True)
class Borrowed:
    """An engine for as long as one request takes, and how it goes about it."""

    name: str
    """What the model is called."""
    engine: Engine
    adapter: str
    prompter: Prompter | None
    """None where only the engine knows the tokens of a text."""
    fingerprint: str

    @property
    def vocabulary(self) -> Vocabulary | None:
        """Text to tokens and back."""
        return self.engine.vocabulary

    def needs_vocabulary(self) -> Vocabulary:
        """The vocabulary; raises Refused (400) where only the engine knows it."""
        if self.vocabulary is None:
            raise Refused(400, f"The tokenizer of {self.name!r} is not here.", param="model",
                          code="unsupported_model")
        return self.vocabulary


@dataclass
class House:
    """One server."""

    models: Models
    limits: Limits
    uses: Uses
    metrics: Metrics
    gate: Gate | None = None
    """What requests of keys pass; None where no keys are needed."""
    managed: bool = False
    """Whether access is managed over HTTP too."""
    _prompters: WeakKeyDictionary[Engine, Prompter] = field(default_factory=WeakKeyDictionary)
    _crossing: Crossing | None = None

    @contextlib.asynccontextmanager
    async def borrow(self, request: Request, name: str | None) -> AsyncIterator[Borrowed]:
        """The engine of a model for one request; None asks for the only one. Raises Refused (400,
        404, 429, 503).
        """
        caller = caller_of(request)
        self._count_request(request, caller)
        if name is None:
            own = [served.name for served in self.served(caller) if not served.parent]
            if len(own) != 1:
                raise Refused(400, f"You must provide model: this server has {_shown(own)}.",
                              param="model", code="missing_required_parameter")
            name = own[0]
        if not may_ask(caller, name):
            raise self.not_found(name, caller)
        if caller is not None and caller.lacks_licence(name):
            raise Refused(403, f"The licence of {name!r} was not accepted for this key: a new key "
                               "takes the text that is in force.", param="model",
                          code="licence_not_accepted", retry=False)
        async with AsyncExitStack() as stack:
            try:
                leased = await stack.enter_async_context(self.models.lease(name))
            except UnknownModel:
                raise self.not_found(name, caller) from None
            except NoRoom as full:
                raise Refused(503, f"The model cannot be loaded now: {full}", code="no_room",
                              retry_after_seconds=5) from None
            except Closed:
                raise Refused(503, "The server is shutting down.", code="shutting_down") from None
            except CurbcutError as error:
                raise Refused(503, f"The model cannot be loaded: {error}",
                              code="model_not_loaded") from None
            engine = leased.engine
            yield Borrowed(name, engine, leased.adapter, self._prompter(engine),
                           fingerprint(name, engine))

    def check_room(self, caller: Caller | None) -> None:
        """Raises Refused (429) where no model's engine has room for one more that waits."""
        if self.gate is not None and caller is not None:
            self.gate.admission.check_room(caller, (
                served.name for served in self.models.names() if not served.parent))

    def served(self, caller: Caller | None) -> list[Served]:
        """The names that a caller may ask."""
        return [served for served in self.models.names() if may_ask(caller, served.name)]

    def not_found(self, name: str, caller: Caller | None) -> Refused:
        """The refusal of a name that no model has, or none that the caller may know of."""
        known = _shown([served.name for served in self.served(caller)]) or "none for this key"
        return Refused(404, f"The model {name[:100]!r} does not exist; this server has {known}.",
                       param="model", code="model_not_found")

    def tell(self, use: Use) -> None:
        """Counts a request that has ended, and hands it to who wants to know; does not wait."""
        self.metrics.ended(use.model, finish=use.finish, seconds=use.seconds,
                           ttft_seconds=use.ttft_seconds, answer_tokens=use.output_tokens)
        if use.caller is not None and use.taken is not None:
            self.metrics.settled(use.caller, use.model, use.taken)
        self.uses.tell(use)

    def crossing(self) -> Crossing:
        """The way from engines' threads to this event loop."""
        if self._crossing is None:
            self._crossing = Crossing()
        return self._crossing

    async def begin(self, request: Request, borrowed: Borrowed, asked: Sequence[Asked], *,
                    each: int = 1, stream: bool = False, priority: int = 0) -> Flow:
        """Takes questions in, `each` of every prompt; raises Refused."""
        caller, still = caller_of(request), request.scope.get("curbcut.still")
        asker = Asker(caller, borrowed.name, borrowed.adapter, stream, each,
                      still and still.check)
        context = borrowed.engine.context_tokens
        watch = asyncio.create_task(gone(request.receive))
        try:
            let_in = await self._enter(request, watch, Room(
                model=borrowed.name, answers=len(asked), priority=priority,
                prompt_tokens=sum(most_tokens(one, context) for one in asked[::each]),
                answer_tokens=sum(one.sampling.max_tokens for one in asked)))
            flow = Flow(borrowed.engine, self.tell, asker, asked, let_in)
            await flow.start(self.crossing(), watch)
        except BaseException:
            watch.cancel()
            raise
        return flow

    async def let_in(self, request: Request, borrowed: Borrowed, prompt_tokens: int) -> Pass | None:
        """A request without an answer (embeddings) passes the gate; None where there is none."""
        watch = asyncio.create_task(gone(request.receive))
        try:
            return await self._enter(request, watch, Room(
                model=borrowed.name, prompt_tokens=prompt_tokens, answer_tokens=0))
        finally:
            watch.cancel()

    async def _enter(self, request: Request, watch: asyncio.Task[None], room: Room) -> Pass | None:
        """Passes the gate, unless the client leaves before its turn (ClientDisconnect)."""
        caller = caller_of(request)
        if self.gate is None or caller is None:
            return None
        entering = asyncio.create_task(self.gate.enter(caller, room))
        try:
            await asyncio.wait({entering, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not entering.done():
                raise ClientDisconnect
        except BaseException:
            entering.cancel()
            entering.add_done_callback(_let_out)
            raise
        try:
            return entering.result()
        finally:
            request.scope["curbcut.headers"].update(self.gate.quotas.headers(caller))

    def _count_request(self, request: Request, caller: Caller | None) -> None:
        if self.gate is not None and caller is not None:
            try:
                self.gate.quotas.request(caller)
            finally:
                request.scope["curbcut.headers"].update(self.gate.quotas.headers(caller))

    def _prompter(self, engine: Engine) -> Prompter | None:
        if engine.vocabulary is None:
            return None
        found = self._prompters.get(engine)
        if found is None:
            found = self._prompters[engine] = Prompter(engine.vocabulary)
        return found


def _let_out(entering: asyncio.Task[Pass]) -> None:
    """Of a request that nobody waits for any more."""
    if not entering.cancelled() and entering.exception() is None:
        entering.result().release()


def caller_of(request: Request) -> Caller | None:
    """Who asks; None where no keys are needed."""
    caller: Caller | None = request.scope.get("curbcut.caller")
    return caller


def fingerprint(name: str, engine: Engine) -> str:
    """The same for the same model, engine and version."""
    told = f"{name} {engine.context_tokens} {engine.vocab} {type(engine).__name__} {__version__}"
    return f"b{hashlib.blake2s(told.encode(), digest_size=6).hexdigest()}"


def _shown(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown

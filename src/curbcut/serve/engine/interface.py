"""What the rooms above know of an engine: any engine that keeps this contract will do.

Ours runs in this process (`local`); another one may be a program beside it (`vllm`) or an address
somewhere (`remote`). An answer is one request: whoever wants n answers asks n times, and the cache
of prompts makes the n-1 others cheap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from curbcut.serve.engine.text import Vocabulary

Finish = Literal["stop", "length", "cancelled", "failed"]
Message = Mapping[str, Any]
"""One message of a chat in OpenAI's shape (`role`, `content`, `tool_calls`, ...)."""


@dataclass(frozen=True)
class Grammar:
    """What an answer's text must be; checked before the request is taken in."""

    kind: Literal["json", "json_schema", "regex", "choice", "lark"]
    source: str = ""
    """The schema (JSON), the expression, the choices (a JSON list of texts), the grammar."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the tokens of one answer are chosen, and where it ends.

    Order: logit_bias, penalties, grammar, then temperature, top_k, top_p, min_p.
    """

    max_tokens: int
    """Most tokens of the answer."""
    min_tokens: int = 0
    """No end token and no stop text before so many."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability are drawn from."""
    top_k: int = 0
    """Only so many likeliest tokens are drawn from; 0 for all."""
    min_p: float = 0.0
    """Only tokens at least this share as likely as the likeliest one are drawn from."""
    presence_penalty: float = 0.0
    """Taken from the logit of each token that the answer has already."""
    frequency_penalty: float = 0.0
    """Taken from the logit of a token for each time that the answer has it already."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens of prompt and answer (CTRL,
    arXiv:1909.05858)."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to logits, by token."""
    seed: int | None = None
    """Same seed, prompt and weights, same answer; None draws a seed."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these texts."""
    stop_tokens: tuple[int, ...] = ()
    """The answer ends at one of these tokens, besides the model's own end tokens."""
    include_stop: bool = False
    """Whether the stop text is part of the answer."""
    ignore_end: bool = False
    """Whether the model's end tokens end nothing."""
    special_text: bool = False
    """Whether special tokens have their text in the answer."""
    logprobs: int | None = None
    """So many likeliest tokens are told with each token's own log-probability; None for none."""
    prompt_logprobs: int | None = None
    """The same of the prompt's tokens."""
    grammar: Grammar | None = None


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request."""

    prompt: tuple[int, ...] | str | tuple[Message, ...]
    """Tokens; where the engine has no vocabulary here, text or messages as they came."""
    sampling: Sampling
    adapter: str = ""
    """Name of the LoRA adapter to answer with; "" for the model itself."""
    salt: str = ""
    """Prompts are remembered among requests of equal salt only, so that nobody learns from the
    clock what others asked."""
    priority: int = 0
    """Lower goes first; equals go in the order in which they came."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request that an engine elsewhere understands (tools of a chat)."""


@dataclass(frozen=True)
class TokenOdds:
    """One token with its log-probability, under the model as it is (before temperature)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()
    """The likeliest tokens there, best first."""


@dataclass(frozen=True)
class Delta:
    """A piece of an answer. The last one, and only it, has a `finish`."""

    text: str
    tokens: int
    """Tokens of the answer so far, those of a stop text and an end token included."""
    finish: Finish | None = None
    odds: tuple[TokenOdds, ...] = ()
    """Of the tokens since the last delta, where they were asked for."""
    prompt_odds: tuple[TokenOdds | None, ...] = ()
    """With the first delta, of the prompt's tokens where asked for; the first has none."""
    ids: tuple[int, ...] = ()
    """Tokens since the last delta."""
    cached_tokens: int = 0
    """Prompt tokens whose keys and values were remembered."""
    prompt_tokens: int = 0
    """Tokens of the prompt, once they are known (at the latest with the finish)."""
    stopped_by: str | int | None = None
    """With a finish "stop": the stop text or stop token that was met, None for an end token."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What an engine elsewhere said beside text (calls of tools)."""


@dataclass(frozen=True)
class StepRecord:
    """One step of an engine: all that was computed together, and for whom."""

    seconds: float
    prefill: Mapping[int, int]
    """Prompt tokens computed, by ticket."""
    decode: Mapping[int, int]
    """Answer tokens given, by ticket."""
    used_pages: int = 0
    """Pages of the cache held after the step."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What an engine has done since it started; all counts only grow."""

    requests: int = 0
    finished: int = 0
    cancelled: int = 0
    failed: int = 0
    refused: int = 0
    preempted: int = 0
    """Times that a running request gave its pages up, to be computed again."""
    prompt_tokens: int = 0
    """Prompt tokens of answers that have begun, remembered ones included."""
    cached_tokens: int = 0
    """Of these, those that were remembered."""
    answer_tokens: int = 0
    steps: int = 0
    decode_steps: int = 0
    """Steps in which at least one answer went on."""
    decode_tokens: int = 0
    """Answer tokens but the first of each answer, which the reading of its prompt gives."""
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    """Of the drafted ones, those that the model agreed to."""
    prefill_seconds: float = 0.0
    """Of each step, the share of its new tokens that were of prompts."""
    decode_seconds: float = 0.0
    first_tokens: int = 0
    """Answers that have begun."""
    first_token_seconds: float = 0.0
    """From each request's acceptance to its first token, added up."""
    next_token_seconds: float = 0.0
    """From each answer's first token to its newest one, added up (of `decode_tokens`)."""
    weights_bytes: int = 0
    """Size of the weights; does not grow."""
    cache_bytes: int = 0
    """Size of the cache, used or not; does not grow."""
    pages: int = 0
    """Pages of the cache; does not grow."""
    used_pages: int = 0
    """Pages that running requests hold now."""
    remembered_pages: int = 0
    """Pages that nobody holds and whose prompts are still known."""
    running: int = 0
    waiting: int = 0
    resting: int = 0
    """Replicas that failed lately, or are gone, and are passed over now."""


class Busy(Exception):
    """The queue is full; nothing was taken in."""


class Closed(Exception):
    """The engine is shutting down or has failed for good."""


class Unfit(Exception):
    """The engine does not take this request as it is (template, grammar, adapter); says why."""


Deliver = Callable[[Delta], None]
"""Called on the engine's thread, once for each delta, in order; must not block."""
OnStep = Callable[[StepRecord], None]
"""Called on the engine's thread after each step; must not block."""


class Engine(Protocol):
    """Takes requests from any thread."""

    context_tokens: int
    """Longest prompt plus answer."""
    vocab: int
    """Tokens are numbers below this."""
    vocabulary: Vocabulary | None
    """Text to tokens and back; None where only the engine itself knows (an address elsewhere)."""
    adapters: Mapping[str, str]
    """LoRA adapters by name, and where they came from."""

    def submit(self, asked: Asked, deliver: Deliver) -> int:
        """Takes a request in and returns its ticket; raises Busy, Closed or Unfit.

        A prompt of tokens is not empty, holds known tokens only, and with `max_tokens` fits the
        context.
        """
        ...

    def cancel(self, ticket: int) -> None:
        """Ends a request, if it still runs, and frees its pages before the next step."""
        ...

    def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """A vector of length 1 for each prompt: the mean of its last hidden states. Waits; raises
        Closed, or Unfit for an engine that has none.
        """
        ...

    def stats(self) -> Stats:
        """Counts so far."""
        ...

    def drain(self) -> None:
        """Takes no more requests; those taken in go on."""
        ...

    def close(self) -> None:
        """Ends what runs (as cancelled) and the engine's thread. May be called twice."""
        ...

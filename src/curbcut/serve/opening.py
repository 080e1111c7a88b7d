"""From a model's folder, or the address of a server, and how it is to be served, to an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from curbcut.errors import InputError, MissingExtra, UnknownName

if TYPE_CHECKING:
    from curbcut.serve.engine.interface import Engine, OnStep
    from curbcut.serve.engine.local import Draft
    from curbcut.serve.engine.runner import Runner
    from curbcut.serve.engine.text import Vocabulary
    from curbcut.spec.nouns import ServeJob

Dtype = Literal["auto", "fp32", "bf16"]
ENGINES = ("own", "transformers", "vllm")
"""Besides the address of a server."""
MOST_DRAFTED = 64


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a model is served; of the rest, each engine has its own idea."""

    engine: str = "own"
    """One of `ENGINES`, or the addresses of servers of one model, with spaces between."""
    dtype: Dtype = "auto"
    """Precision of the weights in memory; "auto" as they are stored."""
    weights: str = "same"
    """What they are stored in: as `ServeJob.weight_precision`."""
    cache: str = "same"
    """The same of keys and values."""
    max_batch: int = 8
    """Requests decoded together."""
    max_waiting: int = 64
    """Requests that may queue."""
    cache_tokens: int | None = None
    """Positions of the cache; None: `max_batch` whole contexts."""
    context_tokens: int | None = None
    """Longest prompt plus answer; None: the model's own."""
    step_tokens: int = 0
    """New tokens of a step at most, as `ServeJob.chunk_tokens`; 0: as suits the device."""
    draft: str = ""
    """Tokens guessed a step from the text itself ("4"), or the folder of a small model that
    guesses; "" for none."""
    adapters: Mapping[str, Path] = field(default_factory=dict)
    """LoRA adapters by name."""
    name: str = ""
    """What a server elsewhere calls the model; "" where it has only one."""
    key: str = ""
    """That server's API key."""

    @classmethod
    def of(cls, job: ServeJob) -> Way:
        """What a run's job says of it."""
        return cls(max_batch=job.max_batch, weights=job.weight_precision,
                   cache=job.cache_precision, step_tokens=job.chunk_tokens,
                   draft=str(job.drafted_tokens) if job.drafted_tokens else "")


def open_engine(folder: Path | None, way: Way, on_step: OnStep | None = None) -> Engine:
    """The engine that serves a folder in this way; close it. `folder` None is for a server
    elsewhere.

    Raises InputError for what cannot be together, MissingExtra where a part is not installed,
    DamagedFile for files that are unsound.
    """
    if way.max_batch < 1:
        raise InputError(f"{way.max_batch} requests at once are none", where="--max-batch",
                         mend="give at least 1")
    try:
        if "://" in way.engine:
            return _elsewhere(way)
        if folder is None:
            raise InputError("needs the folder of a model", where=f"--engine {way.engine}",
                             mend="name a run or a folder")
        if way.engine == "vllm":
            return _vllm(folder, way)
        if way.engine not in ENGINES:
            raise UnknownName("engine", way.engine, ENGINES, where="--engine")
        refuse_long_context(folder, way)
        return _local(folder, way, on_step)
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "serve") from None


def refuse_long_context(folder: Path, way: Way) -> None:
    """Raises InputError for more than the model was made for, before any weight is read."""
    from curbcut.model.parts import CONFIG
    from curbcut.model.weights import read_json

    most = read_json(folder / CONFIG).get("max_position_embeddings")
    if way.context_tokens and isinstance(most, int) and 0 < most < way.context_tokens:
        raise InputError(f"the model reads {most} tokens at most, not {way.context_tokens}",
                         where="--context", mend=f"nearest: {most}")


def _local(folder: Path, way: Way, on_step: OnStep | None) -> Engine:
    """Ours, on our network or on transformers'."""
    from curbcut.serve.engine import text
    from curbcut.serve.engine.local import LocalEngine

    runner = _runner(folder, way)
    vocabulary = text.load(folder)
    if vocabulary.size > runner.vocab:
        raise InputError(f"the tokenizer has {vocabulary.size} tokens, the model {runner.vocab}",
                         where=str(folder), mend="use the tokenizer that the model was trained on")
    return LocalEngine(runner, vocabulary, max_batch=way.max_batch, max_waiting=way.max_waiting,
                       adapters=_adapters(runner, way), step_tokens=way.step_tokens,
                       draft=_draft(vocabulary, runner.vocab, way), on_step=on_step)


def _adapters(runner: Runner, way: Way) -> Mapping[str, str]:
    """Loads the adapters; raises InputError for a runner that takes none."""
    if not way.adapters:
        return {}
    from curbcut.serve.engine.adapters import put
    from curbcut.serve.engine.runner import TorchRunner

    if not isinstance(runner, TorchRunner):
        raise InputError("adapters only come with shapes that Curbcut's own engine runs",
                         where="--adapter", mend="merge the adapter into the model's weights, or "
                         "serve with --engine vllm")
    return put(runner, way.adapters)


def _runner(folder: Path, way: Way) -> Runner:
    import torch

    from curbcut.serve.engine.loading import load_runner

    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16}[way.dtype]
    if way.engine == "own":
        return load_runner(folder, sequences=way.max_batch, cache_tokens=way.cache_tokens,
                           kind=way.weights, cache=way.cache, dtype=wanted, device=device,
                           context_tokens=way.context_tokens)
    from curbcut.model.parts import CONFIG
    from curbcut.model.weights import read_json
    from curbcut.serve.engine import transformers_runner as other

    _only_own(way)
    longest = other.context_of(read_json(folder / CONFIG))
    longest = min(way.context_tokens or longest, longest)
    return other.load(folder, way.cache_tokens or way.max_batch * longest, dtype=wanted,
                      device=device, context_tokens=longest)


def _draft(vocabulary: Vocabulary, vocab: int, way: Way) -> Draft | None:
    """Whoever guesses tokens ahead: the text itself, or a small model. Raises InputError."""
    if not way.draft or way.draft == "0":
        return None
    from curbcut.serve.engine.speculation import Lookup, Speculator

    if way.draft.isdigit():
        most = int(way.draft)
        if most > MOST_DRAFTED:
            raise InputError(f"{most} tokens guessed a step are more than any text allows",
                             where="--draft", mend=f"nearest: {MOST_DRAFTED}")
        return Speculator(Lookup(), most=most)
    folder = Path(way.draft)
    if not (folder / "config.json").is_file():
        raise InputError(f"{way.draft!r} is neither a number of tokens nor the folder of a model",
                         where="--draft", mend="--draft 4 guesses from the text itself")
    import torch

    from curbcut.serve.engine.drafting import of_folder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Speculator(of_folder(folder, vocabulary, vocab, sequences=way.max_batch,
                                device=device))


def _only_own(way: Way) -> None:
    """Raises InputError for what only our own network does."""
    for name, value, usual in (("--weights", way.weights, "same"), ("--cache", way.cache, "same")):
        if value != usual:
            raise InputError(f"only Curbcut's own engine keeps this as {value}",
                             where=f"{name} with --engine {way.engine}",
                             mend=f"leave {name} out, or serve with --engine own")


def _elsewhere(way: Way) -> Engine:
    """Servers at addresses, as one; what is said of weights is said there."""
    from curbcut.serve.engine.remote import RemoteEngine
    from curbcut.serve.engine.replicas import Replicas

    _only_own(way)
    urls = list(dict.fromkeys(way.engine.split()))
    engines: dict[str, Engine] = {url: RemoteEngine(
        url, way.name, key=way.key, context_tokens=way.context_tokens or 0,
        most=way.max_batch + way.max_waiting) for url in urls}
    return engines[urls[0]] if len(urls) == 1 else Replicas(engines)


def _vllm(folder: Path, way: Way) -> Engine:
    from curbcut.serve.engine import text
    from curbcut.serve.engine.vllm import Options, VllmEngine

    _only_own(way)
    return VllmEngine(folder, text.load(folder), Options(
        max_batch=way.max_batch, context_tokens=way.context_tokens or 0, adapters=way.adapters,
        dtype={"auto": "", "fp32": "float32", "bf16": "bfloat16"}[way.dtype]))

"""Every way to spread a run, and the usual ones together, against one process.

Each layout trains a tiny model in fp32 over gloo on forked ranks. One row says how far its losses
and its gradients are from those of one process at most (relative to the largest element of each
gradient), and what is seen to change where the method's function becomes the identity. Then a run
that was trained on two ranks is exported, and other programs read it.

    python benchmarks/equality.py [--only WORD] [--steps 10] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")
TESTS = Path(__file__).resolve().parent.parent / "tests"
BOUND = 1e-5
"""Largest relative difference of a loss or a gradient that still counts as equal."""
DENSE = {"layers": 4, "heads": 4, "kv_heads": 4, "head_size": 8, "tied_embeddings": False}
SPARSE = DENSE | {"experts": 4, "experts_per_token": 2, "expert_ffn": 24, "shared_experts": 1,
                  "dense_layers": 1}
QWEN3_MOE = SPARSE | {"shared_experts": 0, "qk_norm": True}
"""Of the sparse ones transformers knows those without shared experts."""
PARALLEL = "curbcut.train.parallel."


@dataclass(frozen=True)
class Method:
    """One layout, and the functions that make it what it is."""

    name: str
    recipe: Mapping[str, Any]
    by: tuple[str, ...]
    """Functions of `train.parallel` that are taken away to see what then fails."""
    model: Mapping[str, Any] = field(default_factory=lambda: DENSE)


def _dense(name: str, by: str, **recipe: Any) -> Method:
    return Method(name, recipe, tuple(by.split()))


METHODS = (
    _dense("DDP 2", "replicated.weights", dp_replicate=2),
    _dense("DDP 4", "replicated.weights", dp_replicate=4),
    _dense("ZeRO-1", "zero1.weights", dp_shard=2, shard="optimiser"),
    _dense("ZeRO-2", "sharded.apply", dp_shard=2, shard="gradients"),
    _dense("ZeRO-3 (FSDP2) 2", "sharded.apply", dp_shard=2),
    _dense("ZeRO-3 (FSDP2) 4", "sharded.apply", dp_shard=4),
    _dense("HSDP 2 x 2", "sharded.apply", dp_replicate=2, dp_shard=2),
    _dense("TP 2", "tensor.apply", tp=2),
    _dense("TP 4", "tensor.apply", tp=4),
    _dense("TP 2 + SP", "tensor.apply", tp=2, sequence_parallel=True),
    _dense("PP 2, GPipe", "pipeline.apply", pp=2, pipeline="gpipe"),
    _dense("PP 2, 1F1B", "pipeline.apply", pp=2),
    _dense("PP 4, 1F1B", "pipeline.apply", pp=4),
    _dense("PP 2, interleaved", "pipeline.apply", pp=2, pipeline="interleaved", virtual_stages=2),
    _dense("PP 2, zero-bubble", "pipeline.apply", pp=2, pipeline="zero-bubble"),
    _dense("PP 2, DualPipeV", "pipeline.apply", pp=2, pipeline="dualpipev"),
    _dense("CP 2, ring", "context.apply", cp=2),
    _dense("CP 4, ring", "context.apply", cp=4),
    _dense("CP 2, Ulysses", "context.apply", cp=2, context="ulysses"),
    Method("EP 2", {"dp_shard": 2, "ep": 2}, ("experts.apply",), SPARSE),
    Method("EP 4", {"dp_shard": 4, "ep": 4}, ("experts.apply",), SPARSE),
    Method("EP 2 x FSDP 2", {"dp_shard": 4, "ep": 2}, ("experts.apply",), SPARSE),
    Method("EP 2 x PP 2", {"dp_shard": 2, "ep": 2, "pp": 2}, ("experts.apply",), SPARSE),
    _dense("FSDP 2 x TP 2", "sharded.apply", dp_shard=2, tp=2),
    _dense("FSDP 2 x TP 2 + SP", "tensor.apply", dp_shard=2, tp=2, sequence_parallel=True),
    _dense("FSDP 2 x PP 2", "sharded.apply", dp_shard=2, pp=2),
    _dense("TP 2 x PP 2", "tensor.apply", tp=2, pp=2),
    _dense("DDP 2 x PP 2", "replicated.weights", dp_replicate=2, pp=2),
    _dense("FSDP 2 x ring 2", "context.apply", dp_shard=2, cp=2),
    _dense("ring 2 x TP 2", "context.apply", cp=2, tp=2),
    _dense("recompute, selective", "recompute.apply", recompute="selective", dp_shard=2),
    _dense("recompute, full", "recompute.apply", recompute="full", dp_shard=2),
    _dense("compiled blocks, FSDP 2", "compiled.apply", compile=True, dp_shard=2),
    _dense("compiled blocks, TP 2", "compiled.apply", compile=True, tp=2),
)


@dataclass(frozen=True)
class Row:
    """What one layout came to."""

    name: str
    ranks: int
    steps: int
    loss_difference: float
    gradient_difference: float
    without_it: str
    """What is seen where its function is the identity; "" for nothing, which is a failure."""
    seconds: float

    @property
    def good(self) -> bool:
        """Whether it is equal to one process and missed where it is absent."""
        return max(self.loss_difference, self.gradient_difference) <= BOUND and \
            self.without_it != ""


def run_of(method: Method, steps: int) -> Any:
    """A tiny run of the layout; all have the same batches, so few have the same single process."""
    from tiny import tiny_run

    # Adam's first steps are of one size however small a gradient: a high rate would show rounding.
    common = {"micro_batch": 1, "global_batch": 8, "learning_rate": 1e-4, "balance_loss": 0.05,
              "recompute": "none"}
    return tiny_run(steps=steps, model=dict(method.model), recipe=common | dict(method.recipe))


def differences(many: Any, one: Any) -> tuple[float, float]:
    """Largest relative difference of losses and of gradients of all steps of two traces."""
    loss = max(abs(a / b - 1) for a, b in zip(many.losses, one.losses, strict=True))
    worst = 0.0
    for ours, theirs in zip(many.gradients, one.gradients, strict=True):
        for name, wanted in theirs.items():
            if name not in ours:
                return loss, float("inf")
            worst = max(worst, float(abs(ours[name] - wanted).max()
                                     / max(abs(wanted).max(), 1e-3)))
    return loss, worst


def fingerprint(session: Any) -> dict[str, float]:
    """What a warm step of this rank shows: elements it holds, bytes it keeps, messages it sends."""
    import torch

    from curbcut.train.loop import take_step
    from curbcut.train.norm import local
    from measured import Collectives

    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(local(tensor.detach()).nbytes)
        return tensor

    with Collectives() as counted, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        take_step(session)
    modules = list(session.model.modules())
    return {"elements held": sum(local(one.detach()).numel() for one in session.model.parameters()),
            "collectives": sum(counted.calls.values()), "bytes kept": sum(kept),
            "compiled blocks": sum(one._compiled_call_impl is not None for one in modules)}


def _watched(place: Any, run: Any, corpus: Any, steps: int) -> tuple[Any, dict[str, float]]:
    """What some steps came to, and what one more shows."""
    import ranks

    session: list[Any] = []
    found = ranks._trace(place, run, corpus, steps, session.append)
    object.__delattr__(session[0].updater, "step")  # from here on nobody gathers gradients
    return (found if place.main else None), fingerprint(session[0])


def watched(run: Any, corpus: Any, steps: int) -> tuple[Any, dict[str, float]]:
    """The trace of rank 0, and what the last rank shows."""
    import ranks

    told = ranks.spawn(_watched, run.recipe, run, corpus, steps)
    return told[0][0], told[-1][1]


def taken_away(method: Method) -> ExitStack:
    """Its functions are the identity while this is open."""
    from curbcut.train import precision

    stack = ExitStack()
    for one in method.by:
        def identity(model: Any, world: Any, recipe: Any, one: str = one) -> Any:
            whole = one.endswith(".weights")
            return precision.split_weights(model, recipe.precision) if whole else model

        stack.enter_context(mock.patch(PARALLEL + one, identity))
    return stack


def without(method: Method, run: Any, corpus: Any, one: Any, there: Mapping[str, float]) -> str:
    """What is seen in a step where the method does nothing; "" for nothing."""
    with taken_away(method):
        try:
            found, absent = watched(run, corpus, 1)
        except AssertionError as error:
            return "no step: " + str(error).strip().splitlines()[-1].partition(":")[0]
    loss, gradient = differences(found, one)
    if max(loss, gradient) > BOUND:
        return f"gradients off by {gradient:.0%}" if gradient < 100 else "gradients of others"
    return ", ".join(f"{name} {there[name]:,.0f} -> {absent[name]:,.0f}"
                     for name in there if there[name] != absent[name])


class Alone:
    """Traces of one process, one for each model: layouts do not change what is trained."""

    def __init__(self, corpus: Any) -> None:
        self.corpus, self.kept = corpus, dict[str, Any]()

    def trace(self, run: Any) -> Any:
        """Of the same training as `run`."""
        import ranks

        plain = ranks.alone(run)
        plain = replace(plain, recipe=replace(plain.recipe, shard="parameters", pipeline="1f1b",
                                              context="ring"))
        if (key := repr(plain)) not in self.kept:
            self.kept[key] = ranks.trace(plain, self.corpus, run.steps)
        return self.kept[key]


def row(method: Method, steps: int, corpus: Any, alone: Alone, quick: bool) -> Row:
    """Trains one layout and looks what is missed without it."""
    run, begin = run_of(method, steps), time.perf_counter()
    one = alone.trace(run)
    try:
        many, there = watched(run, corpus, steps)
        loss, gradient = differences(many, one)
    except AssertionError as error:
        print(f"{method.name}: {error}", file=sys.stderr)
        loss, gradient, there = float("inf"), float("inf"), {}
    first = replace(one, losses=one.losses[:1], gradients=one.gradients[:1])
    missed = "not looked at" if quick else without(method, run, corpus, first, there)
    return Row(method.name, run.recipe.ranks, steps, loss, gradient, missed,
               time.perf_counter() - begin)


def _trained(place: Any, run: Any, corpus: Any, folder: Path) -> str:
    """A whole run on these ranks; where its exported model is."""
    from rich.console import Console

    from curbcut.spec import Account, Resolved, modelled
    from curbcut.train import folder as folders
    from curbcut.train.start import train_run

    promise = Account(seconds={"total": modelled(10.0, 2, "benchmark")})
    if place.main:
        folders.claim(folder, Resolved(run, {}), promise)
    place.barrier()
    done = train_run(Resolved(run, {}), promise, corpus, folder, Console(quiet=True), world=place)
    return str(done.model_folder)


def exported(corpus: Any, folder: Path) -> list[dict[str, Any]]:
    """Models of runs on two ranks as other programs read them: one line a model and program."""
    import ranks
    from tiny import tiny_run

    models = {}
    for name, model, recipe in (("FSDP 2", DENSE, {"dp_shard": 2}), ("TP 2", DENSE, {"tp": 2}),
                                ("EP 2", QWEN3_MOE, {"dp_shard": 2, "ep": 2})):
        run = tiny_run(steps=4, model=model, recipe=recipe | {"micro_batch": 1})
        models[name] = ranks.spawn(_trained, run.recipe, run, corpus, folder / name)[0]
    # All are trained before any is read: a fork wants a parent without threads of tensors.
    return [{"trained on": name, "read by": reader, "said": by(where)}
            for name, where in models.items() for reader, by in READERS.items()]


def _transformers(where: str) -> str:
    import torch
    from transformers import AutoModelForCausalLM

    from curbcut.model.weights import load

    tokens = torch.arange(2, 34)[None]
    with torch.no_grad():
        ours = load(Path(where))[0].eval()
        mine = ours.logits(ours(tokens))
        theirs = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32).eval()(tokens)
    return f"logits differ by at most {float((mine - theirs.logits).abs().max()):.1e}"


def _vllm(where: str) -> str:
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    engine = LLM(where, dtype="float32", enforce_eager=True, max_model_len=64)
    answer = engine.generate([{"prompt_token_ids": list(range(2, 34))}],
                             SamplingParams(max_tokens=1, prompt_logprobs=0))
    import torch

    from curbcut.model.weights import load

    model, _ = load(Path(where))
    with torch.no_grad():
        scores = model.logits(model(torch.arange(2, 34)[None]))[0].log_softmax(-1)
    worst = max(abs(said[token].logprob - float(scores[at, token]))
                for at, (token, said) in enumerate(zip(range(3, 34), answer[0].prompt_logprobs[1:],
                                                       strict=True)))
    return f"log-probabilities differ by at most {worst:.1e}"


def _or_skipped(package: str, by: Callable[[str], str]) -> Callable[[str], str]:
    def read(where: str) -> str:
        if importlib.util.find_spec(package) is None:
            return f"skipped: {package} is not installed"
        return by(where)

    return read


READERS = {"transformers": _or_skipped("transformers", _transformers),
           "vllm": _or_skipped("vllm", _vllm)}


def prepared(folder: Path) -> Any:
    """The tests' tiny text as tokens."""
    from curbcut.data import prepare
    from curbcut.spec import TrainJob
    from tiny import tiny_text

    text = folder / "text"
    text.mkdir()
    for i, document in enumerate(tiny_text()):
        (text / f"{i:03}.py").write_text(document)
    return prepare(TrainJob(tokens=1000, text=str(text), validation_fraction=0.1), 300,
                   folder / "data")


def tabled(one: Row) -> str:
    """One line of the table."""
    return (f"{one.name:<24} {one.ranks:>5} {one.steps:>5} {one.loss_difference:>8.1e} "
            f"{one.gradient_difference:>9.1e} {one.seconds:>5.1f} s  "
            f"{'' if one.good else 'NOT GOOD: '}{one.without_it or 'nothing'}")


def main() -> int:
    """Prints the table; 1 where a layout is not equal or not missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="layouts whose name holds this")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="equality alone")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not (TESTS / "ranks.py").exists():
        print(f"skipped: the forked ranks are the tests', and {TESTS} is not here")
        return 0
    sys.path.insert(0, str(TESTS))
    from curbcut.train.parallel import compiled

    compiled.BACKEND = "aot_eager"  # no compiler is needed to see what becomes of gradients
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["CURBCUT_HOME"] = temporary
        corpus = prepared(folder)
        alone, begin, rows = Alone(corpus), time.perf_counter(), list[Row]()
        print(f"{'layout':<24} ranks steps {'loss':>8} {'gradients':>9} {'time':>7}  "
              "where its function is the identity")
        for method in METHODS:
            if args.only.lower() in method.name.lower():
                rows.append(row(method, args.steps, corpus, alone, args.quick))
                print(tabled(rows[-1]), flush=True)
        good = sum(one.good for one in rows)
        print(f"{good} of {len(rows)} equal one process within {BOUND:g} in "
              f"{time.perf_counter() - begin:.0f} s")
        models = [] if args.quick else exported(corpus, folder)
        for one in models:
            print(f"model trained on {one['trained on']}, read by {one['read by']}: {one['said']}")
    if args.json:
        args.json.write_text(json.dumps(
            {"layouts": [asdict(one) | {"good": one.good} for one in rows], "models": models},
            indent=1))
    return int(good < len(rows))


if __name__ == "__main__":
    sys.exit(main())

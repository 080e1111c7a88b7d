"""Training tokens/s on one machine: Curbcut's loop against named peers on the same shape and data.

Peers: transformers' Trainer in bf16, eager and compiled (the better one counts), and a plain fp32
loop in the manner of nanoGPT (eager, unfused AdamW, whole logits). Each hold is a process of its
own; holds are interleaved so that a slow minute of the machine hits all alike. Figures are medians
over steps after the warm-up, then over holds.

    python benchmarks/train_throughput.py [--shape 30m|4m] [--holds 3] [--steps 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPES = {
    # trainers' usual small reference: d 384, 10 layers, vocabulary of 32,000, tied
    "30m": {"layers": 10, "width": 384, "heads": 6, "kv_heads": 6, "head_size": 64, "ffn": 1024,
            "vocab": 32000, "context_tokens": 512},
    "4m": {"layers": 4, "width": 256, "heads": 4, "kv_heads": 4, "head_size": 64, "ffn": 704,
           "vocab": 4096, "context_tokens": 512},
}
SEQUENCE, GLOBAL_BATCH = 512, 8
WARMUP_STEPS = 2


def tokens_of(vocab: int, steps: int) -> Any:
    """The same pseudo-text for all: int64 [steps, batch, sequence + 1], Zipf-like."""
    import numpy as np

    chance = np.random.default_rng(0)
    ranks = chance.zipf(1.2, size=(steps, GLOBAL_BATCH, SEQUENCE + 1))
    return np.minimum(ranks - 1, vocab - 1).astype(np.int64)


def curbcut(shape: dict[str, int], steps: int, micro: int) -> list[float]:
    """Curbcut's own step, as `curbcut train` takes it."""
    import torch

    from curbcut.meter.clock import SystemClock
    from curbcut.spec import Account, Machine, ModelShape, Recipe, Run, TrainJob
    from curbcut.train import optimiser
    from curbcut.train.allocator import keep_large_blocks
    from curbcut.train.loop import take_step
    from curbcut.train.parallel.build import build
    from curbcut.train.session import Session
    from curbcut.train.world import World

    recipe = Recipe(sequence_tokens=SEQUENCE, micro_batch=micro, global_batch=GLOBAL_BATCH,
                    precision="bf16", attention="math", learning_rate=1e-3)
    machine = Machine(name="here", accelerator="cpu", kind="cpu", memory_bytes=1,
                      memory_bytes_per_second={}, peak_flops={})
    run = Run(name="bench", model=ModelShape(**shape), machine=machine, recipe=recipe,
              train=TrainJob(tokens=steps * recipe.step_tokens))
    data = tokens_of(shape["vocab"], steps)

    class Held:
        def batch(self, step: int, rank: int = 0, ranks: int = 1) -> tuple[Any, Any]:
            return data[step, :, :-1], data[step, :, 1:].copy()

    keep_large_blocks()  # as `open_session` does
    world = World(device=torch.device("cpu"))
    model, weights, passes = build(run, world)
    session = Session(run, Path(), None, Held(), model, weights,  # type: ignore[arg-type]
                      optimiser.updater(weights.masters, recipe), passes, world,
                      SystemClock(), Account())
    return [take_step(session).seconds for _ in range(steps)]


def _hugging_face(shape: dict[str, int]) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(
        vocab_size=shape["vocab"], hidden_size=shape["width"], intermediate_size=shape["ffn"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"], head_dim=shape["head_size"],
        max_position_embeddings=SEQUENCE, tie_word_embeddings=True, use_cache=False))


def trainer(shape: dict[str, int], steps: int, micro: int, *, compiled: bool) -> list[float]:
    """transformers' Trainer, bf16."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    data = torch.from_numpy(tokens_of(shape["vocab"], steps)[:, :, :-1]).flatten(0, 1)
    taken: list[float] = []

    class Stopwatch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_a: Any, **_k: Any) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_a: Any, **_k: Any) -> None:
            taken.append(time.perf_counter() - self.start)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=micro, max_steps=steps, bf16=True, use_cpu=True,
            gradient_accumulation_steps=GLOBAL_BATCH // micro, torch_compile=compiled,
            learning_rate=1e-3, logging_steps=10**6, save_strategy="no", report_to=[],
            dataloader_num_workers=0, disable_tqdm=True)
        rows = [{"input_ids": row, "labels": row} for row in data]
        Trainer(_hugging_face(shape), arguments, train_dataset=rows,
                callbacks=[Stopwatch()]).train()
    return taken


def plain_fp32(shape: dict[str, int], steps: int, micro: int) -> list[float]:
    """A plain fp32 loop: eager, torch's own AdamW, whole logits."""
    import torch

    model = _hugging_face(shape).train()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    taken = []
    for batch in torch.from_numpy(tokens_of(shape["vocab"], steps)[:, :, :-1]):
        start = time.perf_counter()
        for part in batch.split(micro):
            (model(input_ids=part, labels=part).loss * (len(part) / len(batch))).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad(set_to_none=True)
        taken.append(time.perf_counter() - start)
    return taken


CONTENDERS: dict[str, Callable[[dict[str, int], int, int], list[float]]] = {
    "curbcut bf16": curbcut,
    "Trainer bf16 eager": lambda s, n, m: trainer(s, n, m, compiled=False),
    "Trainer bf16 compiled": lambda s, n, m: trainer(s, n, m, compiled=True),
    "plain fp32 loop": plain_fp32,
}


def hold(name: str, shape: str, steps: int, micro: int) -> dict[str, float]:
    """One contender in a process of its own: median tokens/s, and its peak memory."""
    command = [sys.executable, __file__, "--worker", name, "--shape", shape, "--steps", str(steps),
               "--micro", str(micro)]
    out = subprocess.run(command, capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(f"{name}: {out.stderr[-2000:]}")
    found = json.loads(out.stdout.splitlines()[-1])
    steady = statistics.median(found["seconds"][WARMUP_STEPS:])
    return {"tokens_per_second": GLOBAL_BATCH * SEQUENCE / steady,
            "first_step_seconds": found["seconds"][0], "peak_gib": found["peak_bytes"] / 2**30}


def work(name: str, shape: str, steps: int, micro: int) -> None:
    from curbcut.meter.memory import peak_bytes

    seconds = CONTENDERS[name](SHAPES[shape], steps, micro)
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="30m")
    parser.add_argument("--holds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--micro", type=int, default=4)
    parser.add_argument("--only", action="append", choices=CONTENDERS)
    parser.add_argument("--worker", choices=CONTENDERS)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.worker:
        work(args.worker, args.shape, args.steps, args.micro)
        return
    names = args.only or list(CONTENDERS)
    holds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(args.holds):
        for name in names:
            holds[name].append(hold(name, args.shape, args.steps, args.micro))
            print(f"hold {turn + 1} {name}: {holds[name][-1]['tokens_per_second']:,.0f} tok/s",
                  file=sys.stderr)
    table = {name: {key: statistics.median(h[key] for h in found) for key in found[0]}
             for name, found in holds.items()}
    ours = table[names[0]]["tokens_per_second"]
    print(f"{'':24}{'tok/s':>9}{'ours is':>10}{'first step':>12}{'peak GiB':>10}")
    for name, row in table.items():
        print(f"{name:24}{row['tokens_per_second']:>9,.0f}{ours / row['tokens_per_second']:>9.2f}x"
              f"{row['first_step_seconds']:>10.1f} s{row['peak_gib']:>10.2f}")
    if args.json:
        args.json.write_text(json.dumps({"shape": args.shape, "holds": holds, "median": table},
                                        indent=1))


if __name__ == "__main__":
    main()

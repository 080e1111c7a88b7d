"""Training tokens/s of a mixture of experts against a dense model of equal active size.

8 experts of half the dense inner width, 2 a token: the same matmul work, 4 times the parameters of
the feed-forwards, and the router, the sorting and smaller matmuls on top. Steps of both take turns,
so that a slow minute of the machine hits both alike; figures are medians after the warm-up.

    python benchmarks/experts_throughput.py [--steps 10] [--threads 2] [--width 256] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

SEQUENCE, BATCH, WARMUP_STEPS = 512, 8, 2


def session_of(shape: Any, micro: int) -> Any:
    """A session on random tokens, as `train_throughput` makes it."""
    import torch

    from curbcut.meter.clock import SystemClock
    from curbcut.spec import Account, Machine, Recipe, Run, TrainJob
    from curbcut.train import optimiser
    from curbcut.train.parallel.build import build
    from curbcut.train.session import Session
    from curbcut.train.world import World

    recipe = Recipe(sequence_tokens=SEQUENCE, micro_batch=micro, global_batch=BATCH,
                    precision="bf16", attention="math", learning_rate=1e-3)
    machine = Machine(name="here", accelerator="cpu", kind="cpu", memory_bytes=1,
                      memory_bytes_per_second={}, peak_flops={})
    run = Run(name="bench", model=shape, machine=machine, recipe=recipe,
              train=TrainJob(tokens=100 * recipe.step_tokens))
    source = torch.Generator().manual_seed(0)

    class Held:
        def batch(self, step: int, rank: int = 0, ranks: int = 1) -> tuple[Any, Any]:
            drawn = torch.randint(shape.vocab, (BATCH, SEQUENCE + 1), generator=source).numpy()
            return drawn[:, :-1].copy(), drawn[:, 1:].copy()

    world = World(device=torch.device("cpu"))
    model, weights, passes = build(run, world)
    return Session(run, Path(), None, Held(), model, weights,  # type: ignore[arg-type]
                   optimiser.updater(weights.masters, recipe), passes, world, SystemClock(),
                   Account())


def main() -> None:
    """Prints one line a model."""
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--steps", type=int, default=10)
    ask.add_argument("--threads", type=int, default=2)
    ask.add_argument("--width", type=int, default=256)
    ask.add_argument("--json", type=Path)
    said = ask.parse_args()
    import torch

    from curbcut.spec import ModelShape
    from curbcut.train.allocator import keep_large_blocks
    from curbcut.train.loop import take_step

    torch.set_num_threads(said.threads)
    keep_large_blocks()
    width = said.width
    dense = ModelShape(layers=4, width=width, heads=width // 64, kv_heads=width // 64,
                       head_size=64, ffn=11 * width // 4, vocab=4096, context_tokens=SEQUENCE,
                       qk_norm=True)
    sparse = replace(dense, experts=8, experts_per_token=2, expert_ffn=dense.ffn // 2)
    sessions = {"dense": session_of(dense, 4), "8 experts, top 2": session_of(sparse, 4)}
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(said.steps + WARMUP_STEPS):
        for name, session in sessions.items():
            seconds[name].append(take_step(session).seconds)
    found = {}
    for name, session in sessions.items():
        middle = statistics.median(seconds[name][WARMUP_STEPS:])
        shape = session.run.model
        found[name] = BATCH * SEQUENCE / middle
        print(f"{name:18} {shape.parameters / 1e6:6.1f} M parameters, "
              f"{shape.active_parameters / 1e6:5.1f} M active: {found[name]:8.0f} tokens/s")
    if said.json:
        said.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

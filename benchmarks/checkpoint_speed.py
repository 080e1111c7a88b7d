"""What a checkpoint costs: seconds and stall of saves, at once and in the background; of loading.

    python benchmarks/checkpoint_speed.py [--megabytes 360] [--folder DIR] [--repeats 5]

Tensors are those of a run: fp32 masters and two moments. Sync: training waits for all of it. Async:
it waits for a copy in memory; the rest runs beside training, here beside nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from curbcut.train import checkpoint
from curbcut.train.world import World


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    """Prints medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=360, help="360: a model of 30M")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    rows = args.megabytes * 10**6 // (60 * 4 * 4096)
    tensors = {f"{kind}.{layer}": torch.randn(rows, 4096) for layer in range(20)
               for kind in ("master", "exp_avg", "exp_avg_sq")}
    size = sum(t.numel() * t.element_size() for t in tensors.values()) / 1e6
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        for repeat in range(args.repeats + 1):
            found = one(Path(place), tensors, repeat)
            if repeat:  # the first one allocates
                for name, seconds in found.items():
                    figures.setdefault(name, []).append(seconds)
    for name, seconds in figures.items():
        rate = size / median(seconds)
        print(f"{name:34s} {median(seconds):7.3f} s  {rate:8,.0f} MB/s  of {size:,.0f} MB")


def one(place: Path, tensors: dict[str, torch.Tensor], step: int) -> dict[str, float]:
    """Seconds of each way to save, and of loading."""
    run, found = "0" * 64, {}
    saver = checkpoint.Saver(place / "sync", run, 1, World())
    progress = checkpoint.Progress(step, step)
    found["save at once (all of it stall)"] = timed(lambda: saver.save(progress, tensors))
    behind = SAVERS.setdefault(place, checkpoint.Saver(place / "async", run, 1, World()))
    begin = time.perf_counter()
    writing = behind.begin(progress, tensors, background=True)
    found["save in the background: stall"] = time.perf_counter() - begin
    assert writing.thread is not None
    writing.thread.join()
    found["save in the background: end"] = timed(lambda: behind.commit(writing))
    found["save in the background: in all"] = time.perf_counter() - begin
    data = [t.numpy().data.cast("B") for t in tensors.values()]
    found["sha256 once (of a save: in + out)"] = timed(
        lambda: [hashlib.sha256(part).digest() for part in data])

    def load() -> None:
        stored = checkpoint.newest(place / "sync", run)
        assert stored is not None
        for name in stored.names:
            stored.read(name, (0, 0), stored.size(name))

    found["verify and load"] = timed(load)
    return found


SAVERS: dict[Path, checkpoint.Saver] = {}
"""One a folder: staging memory is kept from save to save."""


if __name__ == "__main__":
    main()

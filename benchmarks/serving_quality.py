"""What fewer bits of weights, keys and values cost in quality, beside what they save.

Each kind of weights and of cache serves the same model: held-out text is scored through the
serving network (teacher forcing, over its pages, in pieces as prompts are read), and answers are
decoded 1, 8 and 16 together. Kinds take turns, what is shown are medians; energy is modelled:
seconds times the watts that this machine is taken to draw at work.

    python benchmarks/serving_quality.py --model FOLDER --data FOLDER [--tokens 32768]
        [--weights same,int8,...] [--caches same,int8] [--repeats 5] [--json FILE]
    python benchmarks/serving_quality.py --rates [--weights same,int8,...] [--json FILE]

Without repeats (0), quality alone.

`--data` is a prepared text (`runs/.data/KEY`), whose held-out split the model has not seen. Bits a
byte of a kind are paired with those of "same" window by window: `low` and `high` of the rise are
its mean less and plus two standard errors over the windows.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

WINDOW, PIECE, ROWS = 256, 64, 8
"""Tokens of a window, tokens of it a step, and windows a step."""
COMPARED = 2048
"""Tokens whose whole distributions are compared."""
PROMPT, STEPS = 128, 24
BATCHES = (1, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rates", action="store_true", help="matrices alone, by number of rows")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--weights", default="same,int8,int8-dynamic,int4")
    parser.add_argument("--caches", default="same,int8")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.rates:
        return show_rates(arguments.weights.split(","), arguments.json)
    if not arguments.model or not arguments.data:
        parser.error("--model and --data are needed")
    ways = [(kind, cache) for cache in arguments.caches.split(",")
            for kind in arguments.weights.split(",")]
    if ways[0] != ("same", "same"):
        sys.exit('the first of --weights and of --caches is "same": what others are held against')
    found = measured(arguments.model, arguments.data, ways, arguments.tokens, arguments.repeats)
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


def measured(folder: Path, data: Path, ways: list[tuple[str, str]], tokens: int,
             repeats: int) -> dict[str, Any]:
    """Quality, speed and size of each way of serving the model of a folder."""
    import torch

    from curbcut.data import Corpus
    from curbcut.meter import detect
    from curbcut.meter.here import cpu_watts
    from curbcut.model import weights
    from curbcut.serve.engine.runner import TorchRunner

    corpus = Corpus.open(data)
    watts = cpu_watts(detect.machine())["typical"]
    model, shape = weights.load(folder)
    runners = {way: TorchRunner(model.requires_grad_(False), 2 * max(BATCHES) * WINDOW,
                                kind=way[0], cache=way[1]) for way in ways}
    plain, rows, odds = None, [], None
    for way, runner in runners.items():
        bits, odds_here = scored(runner, corpus, tokens)
        plain, odds = (bits, odds_here) if plain is None else (plain, odds)
        rows.append({"weights": way[0], "cache": way[1],
                     "weights_bytes": runner.weights_bytes, "cache_bytes": runner.cache_bytes,
                     **compared(bits, plain), "kl_nats": divergence(odds, odds_here)})
        print(f"{way}: {rows[-1]['bits_per_byte']:.4f} bits a byte", file=sys.stderr, flush=True)
    for batch in BATCHES if repeats else ():
        taken: dict[tuple[str, str], list[float]] = {way: [] for way in ways}
        for _ in range(repeats):
            for way, runner in runners.items():
                taken[way].append(decode_seconds(runner, batch))
        for row, way in zip(rows, ways, strict=True):
            each = statistics.median(taken[way]) / batch
            row[f"tokens_per_second_{batch}"] = 1 / each
            row[f"joules_per_token_{batch}"] = watts * each
    return {"parameters": shape.parameters, "dtype": str(runners[ways[0]].network.dtype),
            "threads": torch.get_num_threads(), "torch": torch.__version__, "watts": watts,
            "windows": len(plain or ()), "ways": rows}


def scored(runner: Any, corpus: Any, tokens: int) -> tuple[list[tuple[float, int]], Any]:
    """Bits and bytes of each window of held-out text, and log-odds of its first tokens."""
    import torch

    text = corpus.tokens("validation").astype("int64")
    sizes = corpus.token_bytes()
    count = min(tokens, len(text) - 1) // WINDOW
    step = (len(text) - 1) // count
    starts = [place * step for place in range(count)]
    bits, kept = [], []
    for first in range(0, count, ROWS):
        inside = [text[start: start + WINDOW + 1].tolist() for start in starts[first: first + ROWS]]
        parts = []
        for at in range(0, WINDOW, PIECE):
            pieces = [piece(runner, place, one[:-1], at, PIECE) for place, one in enumerate(inside)]
            parts.append(runner.run(pieces).view(len(inside), PIECE, -1).log_softmax(-1))
        logs = torch.cat(parts, 1)
        told = torch.tensor([one[1:] for one in inside])
        nats = -logs.gather(2, told[..., None]).double().sum((1, 2))
        bits += [(float(one) / math.log(2), int(sizes[row.numpy()].sum()))
                 for one, row in zip(nats, told, strict=True)]
        if first == 0:
            kept = logs.flatten(0, 1)[:COMPARED]
    return bits, kept


def piece(runner: Any, row: int, tokens: list[int], start: int, count: int) -> Any:
    """`count` tokens of a row from `start`, whose pages are a block of the cache for each row."""
    from curbcut.serve.engine.request import Piece

    pages = 2 * WINDOW // runner.page_tokens
    request: Any = SimpleNamespace(tokens=tokens, drafts=[], asked=SimpleNamespace(adapter=""),
                                   pages=list(range(row * pages, (row + 1) * pages)))
    return Piece(request, start, count, count)


def compared(bits: list[tuple[float, int]], plain: list[tuple[float, int]]) -> dict[str, float]:
    """Bits a byte, and their rise over the plain ones as a share, with its interval."""
    total, base = sum(one for one, _ in bits), sum(one for one, _ in plain)
    each = [one - other for (one, _), (other, _) in zip(bits, plain, strict=True)]
    error = statistics.stdev(each) * math.sqrt(len(each)) if len(each) > 1 else 0.0
    return {"bits_per_byte": total / sum(size for _, size in bits),
            "share": total / base - 1, "low": (total - 2 * error) / base - 1,
            "high": (total + 2 * error) / base - 1}


def divergence(plain: Any, other: Any) -> float:
    """Mean KL divergence of the plain distributions from the others, in nats a token."""
    return float((plain.exp() * (plain - other)).sum(-1).double().mean())


def decode_seconds(runner: Any, batch: int) -> float:
    """Seconds of a step that gives `batch` answers one token each: the median of `STEPS`."""
    rows = [[7 + row] * (PROMPT + STEPS) for row in range(batch)]
    runner.run([piece(runner, row, tokens, 0, PROMPT) for row, tokens in enumerate(rows)])
    taken = []
    for at in range(PROMPT, PROMPT + STEPS):
        pieces = [piece(runner, row, tokens, at, 1) for row, tokens in enumerate(rows)]
        start = time.perf_counter()
        runner.run(pieces).argmax(-1).tolist()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def show(found: dict[str, Any]) -> None:
    """The table."""
    batches = [batch for batch in BATCHES if f"tokens_per_second_{batch}" in found["ways"][0]]
    print(f"{found['parameters'] / 1e6:.1f}M parameters, {found['dtype']}, {found['threads']} "
          f"threads, torch {found['torch']}; {found['windows']} windows of {WINDOW} tokens; energy "
          f"modelled at {found['watts']:.1f} W")
    print(f"{'weights':14}{'cache':7}{'MB':>6}{'cache MB':>9}{'bits/byte':>10}{'rise':>8}{'KL':>9}"
          + "".join(f"{f'tok/s {b}':>10}{'mJ/tok':>8}" for b in batches))
    for row in found["ways"]:
        print(f"{row['weights']:14}{row['cache']:7}{row['weights_bytes'] / 1e6:>6.1f}"
              f"{row['cache_bytes'] / 1e6:>9.1f}{row['bits_per_byte']:>10.4f}"
              f"{row['share']:>8.2%}{row['kl_nats']:>9.5f}"
              + "".join(f"{row[f'tokens_per_second_{b}']:>10,.0f}"
                        f"{1e3 * row[f'joules_per_token_{b}']:>8.2f}" for b in batches))


def show_rates(kinds: list[str], file: Path | None) -> None:
    """Billions of parameters a second that rows are multiplied by, by kind and number of rows."""
    from curbcut.serve.engine.rates import rates

    rows = (1, 2, 4, 8, 16, 32, 64, 256)
    print(f"{'G parameters/s':14}" + "".join(f"{count:>7}" for count in rows))
    found = {}
    for kind in kinds:
        found[kind] = rates(kind, rows)
        print(f"{kind:14}" + "".join(f"{one / 1e9:>7.1f}" for one in found[kind].values()),
              flush=True)
    if file:
        file.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

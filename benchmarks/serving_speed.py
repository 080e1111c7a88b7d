"""Tokens/s of serving on this machine: Curbcut's engine against named peers, interleaved.

Engines are processes of their own that stay up and are asked in turn, so that a slow minute of the
machine hits all alike; what is shown are medians of the repeats. Weights are random, prompts are
distinct and ragged (192 to 320 tokens), answers have 33 tokens:

    prefill    prompt tokens / seconds until each answer has its first token
    decode     batch * 32 / (seconds of 33 tokens - seconds of 1 token, of prompts as long)

GB/s are those of the weights that a decode step reads, GFLOP/s those of a prompt's matmuls without
the head; "of ceiling" is their share of what a plain matrix-vector product and a matmul of
2048 x 2048 reach here at that precision in the same run.

    python benchmarks/serving_speed.py [--shapes m30,m120] [--ours bf16:same,...] [--repeats 3]
        [--vllm PYTHON] [--llama FOLDER] [--json FILE]

Peers: transformers' generate (always), vLLM where PYTHON has it, llama.cpp where FOLDER has
llama-batched-bench (which draws no samples; its figures count in both columns).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 64, "heads": 2, "kv_heads": 1, "head_size": 32, "ffn": 128,
             "vocab": 1024},
    "m30": {"layers": 8, "width": 512, "heads": 8, "kv_heads": 4, "head_size": 64, "ffn": 1536,
            "vocab": 8192},
    "m120": {"layers": 12, "width": 896, "heads": 14, "kv_heads": 2, "head_size": 64,
             "ffn": 2432, "vocab": 8192},
}
CONTEXT, ANSWER = 512, 33
CLASSES = {"bf16": "bf16", "fp32": "fp32", "int8": "8 bit", "int4": "4 bit", "Q8_0": "8 bit",
           "Q4_0": "4 bit", "BF16": "bf16", "F32": "fp32"}
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
Generate = Callable[[list[list[int]], int, bool], None]
"""Answers prompts with exactly so many tokens each, greedily or drawn (0.8, nucleus 0.95)."""


def build(name: str, folder: Path) -> None:
    """A folder with random bf16 weights and a tokenizer trained on the standard library."""
    import torch

    from curbcut.data.tokenizer import train
    from curbcut.model import weights
    from curbcut.model.decoder import Decoder
    from curbcut.spec import ModelShape

    shape = ModelShape(**SHAPES[name], context_tokens=CONTEXT, tied_embeddings=False)
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    tokenizer = train((path.read_bytes() for path in sources), shape.vocab)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder.parent / "tokenizer.json"))
    weights.save(Decoder(shape).to(torch.bfloat16), shape, folder,
                 folder.parent / "tokenizer.json")


# -- engines, each in a process of its own ------------------------------------------------------

def curbcut(folder: Path, dtype: str, kind: str, threads: int) -> Generate:
    """The bare engine, asked as the gateway asks it."""
    import threading

    import torch

    from curbcut.serve.engine import text
    from curbcut.serve.engine.interface import Asked, Delta, Sampling
    from curbcut.serve.engine.loading import load_runner
    from curbcut.serve.engine.local import LocalEngine

    torch.set_num_threads(threads)
    runner = load_runner(folder, sequences=16, dtype=getattr(torch, dtype), kind=kind)
    engine = LocalEngine(runner, text.load(folder), max_batch=16, step_tokens=512)

    def generate(prompts: list[list[int]], tokens: int, greedy: bool) -> None:
        left, done = threading.Semaphore(0), []

        def hear(delta: Delta) -> None:
            if delta.finish is not None:
                done.append((delta.finish, delta.tokens))
                left.release()
        sampling = Sampling(max_tokens=tokens, ignore_end=True, temperature=0 if greedy else 0.8,
                            top_p=1 if greedy else 0.95)
        for prompt in prompts:
            engine.submit(Asked(prompt=tuple(prompt), sampling=sampling), hear)
        for _ in prompts:
            left.acquire()
        assert done == [("length", tokens)] * len(prompts), done
    return generate


def transformers(folder: Path, dtype: str, kind: str, threads: int) -> Generate:
    """transformers' generate, eager, prompts padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))

    def generate(prompts: list[list[int]], tokens: int, greedy: bool) -> None:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(one)) + one for one in prompts])
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
        drawn = {} if greedy else {"temperature": 0.8, "top_p": 0.95, "top_k": 0}
        out = model.generate(ids, attention_mask=mask, max_new_tokens=tokens, pad_token_id=0,
                             min_new_tokens=tokens, do_sample=not greedy, **drawn)
        assert out.shape[1] == longest + tokens
    return generate


def vllm(folder: Path, dtype: str, kind: str, threads: int) -> Generate:
    """vLLM in this process, compiled, without its cache of prompts."""
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                   "VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}",
                   "VLLM_LOGGING_LEVEL": "ERROR"}
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    engine = LLM(model=str(folder), dtype=dtype, max_model_len=CONTEXT, max_num_seqs=16,
                 enable_prefix_caching=False)

    def generate(prompts: list[list[int]], tokens: int, greedy: bool) -> None:
        how = SamplingParams(max_tokens=tokens, min_tokens=tokens, ignore_eos=True,
                             temperature=0 if greedy else 0.8, top_p=1 if greedy else 0.95)
        engine.generate([{"prompt_token_ids": one} for one in prompts], how, use_tqdm=False)
    return generate


ENGINES = {"curbcut": curbcut, "transformers": transformers, "vllm": vllm}


def serve_child(engine: str, folder: Path, dtype: str, kind: str, threads: int) -> None:
    """Answers orders, one JSON line each, with the seconds that they took."""
    generate = ENGINES[engine](folder, dtype, kind, threads)
    generate([[1, 2, 3, 4]], 1, True)
    print("@0", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        start = time.perf_counter()
        generate(order["prompts"], order["tokens"], order["greedy"])
        print(f"@{time.perf_counter() - start}", flush=True)


class Child:
    """An engine's process as the parent sees it."""

    def __init__(self, python: str, engine: str, folder: Path, precision: str, kind: str,
                 threads: int) -> None:
        self.engine, self.kind = engine, kind
        self.precision = CLASSES[kind.split("-")[0] if kind != "same" else precision]
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [python, __file__, "--child", engine, str(folder), DTYPES[precision], kind,
             str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)})
        self._answer()
        self.start_seconds = time.perf_counter() - start

    @property
    def name(self) -> str:
        return f"{self.engine} {self.kind}" if self.kind != "same" else self.engine

    def _answer(self) -> float:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("@"):
                return float(line[1:])
        raise RuntimeError(f"{self.engine} ended with {self.process.wait()}")

    def seconds(self, prompts: list[list[int]], tokens: int, greedy: bool) -> float:
        """Of one order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"prompts": prompts, "tokens": tokens,
                                             "greedy": greedy}) + "\n")
        self.process.stdin.flush()
        return self._answer()


# -- measuring ----------------------------------------------------------------------------------

def ceilings(precision: str, threads: int) -> tuple[float, float]:
    """Bytes/s of a matrix-vector product, FLOP/s of a matmul; best of several."""
    import torch

    from curbcut.serve.engine.matrices import KINDS

    torch.set_num_threads(threads)
    dtype = getattr(torch, DTYPES.get(precision, "bfloat16"))

    def fastest(work: Callable[[], object], times: int) -> float:
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    with torch.inference_mode():
        parts = [torch.randn(4096, 2048).to(dtype) for _ in range(8)]
        packed = [KINDS["same"](part, None) for part in parts]
        row = torch.randn(1, 2048).to(dtype)
        read = fastest(lambda: [one(row) for one in packed], 12)
        square = torch.randn(2048, 2048).to(dtype)
        weight = KINDS["same"](square, None)
        return (sum(part.nbytes for part in parts) / read,
                2 * 2048 ** 3 / fastest(lambda: weight(square), 6))


def prompts_of(batch: int, vocab: int, chance: random.Random) -> list[list[int]]:
    """Distinct ragged prompts: lengths are spread evenly around 256, so that all are as long."""
    lengths = [256] if batch == 1 else [192 + round(128 * i / (batch - 1)) for i in range(batch)]
    return [[chance.randrange(3, vocab) for _ in range(length)] for length in lengths]


def measure(children: list[Child], batches: list[int], repeats: int, vocab: int,
            log: Callable[[str], None]) -> list[dict[str, Any]]:
    """Rows of (engine, batch, greedy): medians of prefill and decode tokens/s."""
    chance = random.Random(0)
    rows = []
    for batch in batches:
        for greedy in (True, False):
            found: dict[str, list[tuple[float, float]]] = {}
            for repeat in range(repeats + 1):  # the first warms up
                for child in children:
                    prompts = prompts_of(batch, vocab, chance)
                    first = child.seconds(prompts, 1, greedy)
                    again = prompts_of(batch, vocab, chance)
                    more = child.seconds(again, ANSWER, greedy) - first
                    if repeat:
                        found.setdefault(child.name + child.precision, []).append(
                            (sum(map(len, prompts)) / first, batch * (ANSWER - 1) / more))
            for child in children:
                prefill, decode = (statistics.median(column) for column in
                                   zip(*found[child.name + child.precision], strict=True))
                rows.append({"engine": child.name, "class": child.precision, "batch": batch,
                             "greedy": greedy, "prefill": prefill, "decode": decode})
            log(f"batch {batch}, {'greedy' if greedy else 'drawn'}: done")
    return rows


def llama(bench: Path, gguf: Path, kind: str, batches: list[int],
          threads: int) -> Iterator[dict[str, Any]]:
    """Rows of llama.cpp's own benchmark."""
    found = subprocess.run(
        [bench, "-m", gguf, "-c", str(16 * CONTEXT), "-npp", "256", "-ntg", str(ANSWER - 1), "-npl",
         ",".join(map(str, batches)), "-t", str(threads), "-tb", str(threads), "-b", "2048",
         "-ub", "512", "--output-format", "jsonl"], capture_output=True, text=True, check=True)
    for line in found.stdout.splitlines():
        if line.startswith("{"):
            one = json.loads(line)
            for greedy in (True, False):
                yield {"engine": f"llama.cpp {kind}", "class": CLASSES[kind], "batch": one["pl"],
                       "greedy": greedy, "prefill": one["speed_pp"], "decode": one["speed_tg"]}


# -- telling ------------------------------------------------------------------------------------

def judge(rows: list[dict[str, Any]], name: str,
          limits: dict[str, tuple[float, float]]) -> None:
    """Adds to each row of ours its ratios to peers, and all rows' GB/s, GFLOP/s and shares."""
    shape = SHAPES[name]
    inner = shape["head_size"] * (2 * shape["heads"] + 2 * shape["kv_heads"])
    blocks = shape["layers"] * shape["width"] * (inner + 3 * shape["ffn"])
    read = blocks + shape["width"] * shape["vocab"]
    width = {"fp32": 4.0, "bf16": 2.0, "8 bit": 8.5 / 8, "4 bit": 4.5 / 8}
    for row in rows:
        bandwidth, flops = limits[row["class"] if row["class"] == "fp32" else "bf16"]
        row["bytes_per_second"] = row["decode"] / row["batch"] * read * width[row["class"]]
        row["flops"] = row["prefill"] * 2 * blocks
        row["decode_share"] = row["bytes_per_second"] / bandwidth
        row["prefill_share"] = row["flops"] / flops
        if not row["engine"].startswith("curbcut"):
            continue
        peers = [one for one in rows if not one["engine"].startswith("curbcut")
                 and all(one[key] == row[key] for key in ("class", "batch", "greedy"))]
        for what in ("prefill", "decode"):
            for peer in peers:
                row[f"{what}_over_{peer['engine'].split()[0]}"] = row[what] / peer[what]
            best = max(peers, key=lambda one: one[what], default=None)
            row[f"{what}_best"] = "" if best is None else (
                f"{row[what] / best[what]:.2f} {best['engine']}")


def show(rows: list[dict[str, Any]]) -> None:
    """One line a row."""
    print(f"{'engine':<24}{'class':<7}{'batch':>5} {'':<7}{'prefill':>8}{'GFLOP/s':>9}{'share':>7}"
          f"{'decode':>8}{'GB/s':>7}{'share':>7}   prefill, decode over the best peer")
    for row in rows:
        print(f"{row['engine']:<24}{row['class']:<7}{row['batch']:>5} "
              f"{'greedy' if row['greedy'] else 'drawn':<7}{row['prefill']:>8,.0f}"
              f"{row['flops'] / 1e9:>9,.0f}{row['prefill_share']:>7.0%}{row['decode']:>8,.0f}"
              f"{row['bytes_per_second'] / 1e9:>7.1f}{row['decode_share']:>7.0%}   "
              f"{row.get('prefill_best', '')}   {row.get('decode_best', '')}")


def bench(name: str, args: argparse.Namespace, home: Path) -> dict[str, Any]:
    """All engines on one shape."""
    def log(line: str) -> None:
        print(f"[{name}] {line}", file=sys.stderr, flush=True)

    folder = home / name / "model"
    build(name, folder)
    ours = [one.split(":") for one in args.ours.split(",")]
    precisions = sorted({precision for precision, _ in ours})
    wanted = [(sys.executable, "curbcut", *one) for one in ours]
    wanted += [(sys.executable, "transformers", one, "same") for one in precisions]
    if args.vllm:
        wanted += [(args.vllm, "vllm", "bf16", "same")]
    else:
        log("vLLM is skipped: no --vllm PYTHON")
    children = []
    for python, engine, precision, kind in wanted:
        children.append(Child(python, engine, folder, precision, kind, args.threads))
        log(f"{children[-1].name} {precision}: first token {children[-1].start_seconds:.1f} s "
            "after its process began")
    limits = {one: ceilings(one, args.threads) for one in {*precisions, "bf16"}}
    batches = [int(one) for one in args.batches.split(",")]
    try:
        rows = measure(children, batches, args.repeats, SHAPES[name]["vocab"], log)
    finally:
        for child in children:
            child.process.kill()
            child.process.wait()
    program = Path(args.llama, "llama-batched-bench") if args.llama else None
    if program is None or not program.exists():
        log("llama.cpp is skipped: no --llama FOLDER that has llama-batched-bench")
    else:
        from curbcut.model import gguf
        for kind, written in (("BF16", "bf16"), ("F32", "f32"), ("Q8_0", "q8_0"),
                              ("Q4_0", "q4_0")):
            if CLASSES[kind] in {row["class"] for row in rows}:
                gguf.write(folder, home / name / f"{kind}.gguf", written)
                rows += llama(program, home / name / f"{kind}.gguf", kind, batches, args.threads)
    judge(rows, name, limits)
    print(f"\n{name}, {args.threads} threads; ceilings: " + "; ".join(
        f"{one} {bandwidth / 1e9:.1f} GB/s, {flops / 1e9:,.0f} GFLOP/s"
        for one, (bandwidth, flops) in limits.items()))
    show(rows)
    return {"shape": name, "rows": rows, "ceilings": limits,
            "start_seconds": {f"{child.name} {child.precision}": child.start_seconds
                              for child in children}}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        engine, folder, dtype, kind, threads = sys.argv[2:]
        serve_child(engine, Path(folder), dtype, kind, int(threads))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="m30")
    parser.add_argument("--ours", default="bf16:same,fp32:same",
                        help="precision:kind of matrices.KINDS, with commas between")
    parser.add_argument("--batches", default="1,8,16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vllm", help="a Python that has vLLM")
    parser.add_argument("--llama", help="the folder of llama.cpp's programs")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = [bench(name, args, Path(home)) for name in args.shapes.split(",")]
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

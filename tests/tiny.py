"""A tiny text, machine and run for the tests of whatever plans, trains or serves."""

from __future__ import annotations

from pathlib import Path

from curbcut.spec import Machine, ModelShape, Recipe, Run, TrainJob

WORDS = ("def", "return", "if", "else", "for", "in", "range", "print", "self", "None", "x", "y")


def tiny_text(documents: int = 60) -> list[str]:
    """Documents with enough pattern in them for a tiny model to learn something."""
    lines = []
    for i in range(documents):
        body = "\n".join(f"    {WORDS[(i + j) % 12]} = {WORDS[(i * j + 3) % 12]}({j})"
                         for j in range(20 + i % 7))
        lines.append(f"def function_{i}(x):\n{body}\n    return x\n")
    return lines


MODEL_TOML = """[model]
layers = 2
width = 32
heads = 2
kv_heads = 1
head_size = 16
ffn = 64
vocab = 300
context_tokens = 128
"""
"""The model of a run file that trains on `write_documents`."""


def write_documents(folder: Path, documents: int = 60) -> Path:
    """`tiny_text` as files of a folder, which is made where there is none."""
    folder.mkdir(exist_ok=True)
    for i, document in enumerate(tiny_text(documents)):
        (folder / f"{i:03}.py").write_text(document)
    return folder


def tiny_machine(**changes) -> Machine:
    plain = {
        "name": "here", "accelerator": "test CPU", "kind": "cpu", "memory_bytes": 4 * 2**30,
        "memory_bytes_per_second": {"measured": 1e10}, "peak_flops": {},
        "measured_flops": {"fp32": 1e12, "bf16": 2e12}, "cores": 2,
        "watts": {"low": 5.0, "typical": 10.0, "high": 20.0},
    }
    return Machine(**(plain | changes))


def tiny_run(name: str = "tiny", *, steps: int = 6, model=None, recipe=None, **changes) -> Run:
    shape = {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "head_size": 16, "ffn": 64,
             "vocab": 300, "context_tokens": 64}
    how = {"sequence_tokens": 32, "micro_batch": 2, "global_batch": 4, "precision": "fp32",
           "learning_rate": 3e-3, "attention": "math", "checkpoint_every_steps": 2,
           "evaluate_every_steps": 100}
    settled = Recipe(**(how | (recipe or {})))
    plain = {
        "name": name, "seed": 1, "model": ModelShape(**(shape | (model or {}))),
        "machine": tiny_machine(), "recipe": settled,
        "train": TrainJob(tokens=steps * settled.step_tokens, text="tiny"),
    }
    return Run(**(plain | changes))

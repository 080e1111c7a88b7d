"""The core of the engine can be read in an evening, and stays so."""

from pathlib import Path

import curbcut.serve.engine as engine

CORE = ("request", "pages", "scheduler", "cache", "network", "matrices", "runner", "sampler",
        "answers", "local")
"""What takes a request from its tokens to its answer's. Whatever can be left out without changing
that (grammars, guesses, adapters, quantised weights, counts, embeddings...) is not part of it."""


def test_the_core_has_1500_lines_at_most():
    folder = Path(next(iter(engine.__path__)))
    lines = {name: len((folder / f"{name}.py").read_text(encoding="utf-8").splitlines())
             for name in CORE}
    assert sum(lines.values()) <= 1500, lines

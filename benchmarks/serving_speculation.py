"""What guessing ahead gains: tokens a step, how many guesses are right, and tokens a second, by who
guesses, by temperature and by how many answers go on together, on two tasks:

    text   goes on with held-out text that neither model has seen
    copy   the prompt has a piece of such text, and the beginning of the same piece again

    python benchmarks/serving_speculation.py --model FOLDER --data FOLDER [--draft FOLDER ...]
        [--tokens 64] [--always 4] [--repeats 5] [--threads 2] [--json FILE]

Who guesses: the text itself (lookup) and each small model, first as the engine decides how far
and whether at all, then so many tokens (`--always`) at each step, whether they pay or not: the
last columns of its acceptance say what the model is worth, the first ones what a user gets. Engines
take turns, medians of the repeats are shown. Answers with and without guesses must be the same
in fp32; in bf16 near ties may turn with the number of rows of a step, so it is only counted how
many tokens are the same.

`--data` is a prepared text (`runs/.data/KEY`). Prompts are remembered by the model's own cache, as
a chat's are; a small model reads each anew.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROMPT, COPIED = 96, 112
"""Tokens of a text to go on with, and of a piece to be repeated."""
ALONE = 2
"""Answers, one after another, where one goes on alone."""
HEATS, BATCHES, TASKS = (0.0, 0.8), (1, 8), ("text", "copy")


class Always:
    """Guesses so many tokens for all, at each step."""

    def __init__(self, drafter: Any, count: int) -> None:
        self.drafter, self.count, self.seen = drafter, count, set[int]()

    def __call__(self, requests: Sequence[Any], record: Any) -> None:
        tickets = {one.ticket for one in requests}
        for ticket in self.seen - tickets:
            self.drafter.forget(ticket)
        self.seen = tickets
        most = [min(self.count, one.sampling.max_tokens - one.answered - 1) for one in requests]
        asked = [(one, count) for one, count in zip(requests, most, strict=True) if count > 0]
        found = self.drafter.draft([one for one, _ in asked], [count for _, count in asked])
        for (one, _), guessed in zip(asked, found, strict=True):
            one.drafts[:] = guessed or []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--draft", type=Path, action="append", default=[])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--always", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    asked = prompts(args.data)
    engines = opened(args.model, args.draft, args.always)
    rows: list[dict[str, Any]] = []
    print(f"{args.model.name}, answers of {args.tokens} tokens, {args.threads} threads, torch "
          f"{torch.__version__}\n{'task':6}{'batch':>6}{'heat':>6}  {'who guesses':24}"
          f"{'tok/step':>9}{'right':>7}{'guesses':>9}{'tok/s':>9}{'ratio':>7}{'same':>7}")
    for task in TASKS:
        for batch in BATCHES:
            for heat in HEATS:
                cell = {"task": task, "batch": batch, "temperature": heat}
                rows += [cell | row for row in measured(
                    engines, asked[task], batch, heat, args.tokens, args.repeats)]
                show(rows[-len(engines):])
    for engine in engines.values():
        engine.close()
    found = {"model": args.model.name, "drafts": [one.name for one in args.draft],
             "tokens": args.tokens, "always": args.always, "threads": args.threads,
             "torch": torch.__version__, "rows": rows}
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


def prompts(data: Path) -> dict[str, list[list[int]]]:
    """Prompts of each task, of pieces of held-out text that lie apart."""
    from curbcut.data import Corpus

    text = Corpus.open(data).tokens("validation").astype("int64")
    count, size = max(*BATCHES, ALONE), max(PROMPT, COPIED)
    pieces = [text[start: start + size].tolist() for start in
              range(size, len(text) - size, (len(text) - 2 * size) // count)][:count]
    return {"text": [piece[:PROMPT] for piece in pieces],
            "copy": [piece[:COPIED] + piece[:16] for piece in pieces]}


def opened(folder: Path, drafts: Sequence[Path], always: int) -> dict[str, Any]:
    """Engines by who guesses."""
    import torch

    from curbcut.serve.engine import text
    from curbcut.serve.engine.drafting import of_folder
    from curbcut.serve.engine.loading import load_runner
    from curbcut.serve.engine.local import LocalEngine
    from curbcut.serve.engine.speculation import Lookup, Speculator

    device = "cuda" if torch.cuda.is_available() else "cpu"
    vocabulary = text.load(folder)

    def engine(draft: Any) -> Any:
        runner = load_runner(folder, sequences=max(BATCHES), device=device)
        return LocalEngine(runner, vocabulary, max_batch=max(BATCHES), draft=draft)

    def small(path: Path) -> Any:
        return of_folder(path, vocabulary, sequences=max(BATCHES), device=device)

    found = {"nobody": engine(None), "lookup": engine(Speculator(Lookup())),
             f"lookup, always {always}": engine(Always(Lookup(), always))}
    for path in drafts:
        found[path.name] = engine(Speculator(small(path)))
        found[f"{path.name}, always {always}"] = engine(Always(small(path), always))
    return found


def measured(engines: dict[str, Any], asked: Sequence[list[int]], batch: int, heat: float,
             tokens: int, repeats: int) -> list[dict[str, Any]]:
    """A row for each engine."""
    groups = [asked[:batch]] if batch > 1 else [[one] for one in asked[:ALONE]]
    plain: list[list[int]] = []
    rows: dict[str, dict[str, Any]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(-1, repeats):  # the first turn warms up, and is not counted
        for name, engine in engines.items():
            before, start = engine.stats(), time.perf_counter()
            said = [ids for group in groups for ids in answers(engine, group, heat, tokens)]
            took, after = time.perf_counter() - start, engine.stats()
            if turn < 0:
                plain = plain or said
                rows[name] = {"who": name, "drafted": 0, "accepted": 0, "tokens": 0,
                              "same": _same(plain, said)}
                continue
            row = rows[name]
            seconds[name].append(took)
            row["drafted"] += after.drafted_tokens - before.drafted_tokens
            row["accepted"] += after.accepted_tokens - before.accepted_tokens
            row["tokens"] += after.decode_tokens - before.decode_tokens
    count = tokens * sum(map(len, groups))
    base = statistics.median(seconds["nobody"])
    for name, row in rows.items():
        took, given = statistics.median(seconds[name]), row.pop("tokens")
        row["tokens_per_second"] = count / took
        row["ratio"] = base / took
        row["acceptance"] = row["accepted"] / row["drafted"] if row["drafted"] else None
        row["tokens_per_step"] = given / (given - row["accepted"])
    return list(rows.values())


def answers(engine: Any, asked: Sequence[list[int]], heat: float, tokens: int) -> list[list[int]]:
    """Tokens of the answers to all of `asked` at once."""
    from curbcut.serve.engine.interface import Asked, Delta, Sampling

    boxes: list[queue.SimpleQueue[Delta]] = []
    for seed, prompt in enumerate(asked):
        boxes.append(queue.SimpleQueue())
        sampling = Sampling(max_tokens=tokens, temperature=heat, seed=seed, ignore_end=True)
        engine.submit(Asked(prompt=tuple(prompt), sampling=sampling), boxes[-1].put)
    found = []
    for box in boxes:
        ids: list[int] = []
        while True:
            delta = box.get()
            ids += delta.ids
            if delta.finish:
                break
        assert delta.finish == "length", delta
        found.append(ids)
    return found


def _same(plain: Sequence[Sequence[int]], said: Sequence[Sequence[int]]) -> float:
    """Share of the answers' tokens up to the first one that differs."""
    total = same = 0
    for one, other in zip(plain, said, strict=True):
        total += len(one)
        same += next((at for at, pair in enumerate(zip(one, other, strict=True))
                      if pair[0] != pair[1]), len(one))
    return same / total


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Rows of the table."""
    for row in rows:
        right = "-" if row["acceptance"] is None else f"{row['acceptance']:.0%}"
        print(f"{row['task']:6}{row['batch']:>6}{row['temperature']:>6}  {row['who']:24}"
              f"{row['tokens_per_step']:>9.2f}{right:>7}{row['drafted']:>9,}"
              f"{row['tokens_per_second']:>9,.0f}{row['ratio']:>7.2f}{row['same']:>7.0%}",
              flush=True)


if __name__ == "__main__":
    main()

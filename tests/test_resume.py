"""Killed anywhere, a run ends with the weights of an unbroken one, bit for bit (CPU, fp32)."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys

import pytest

from curbcut.spec import Resolved
from curbcut.train import folder
from tiny import tiny_run

SCRIPT = """
import sys, time
from pathlib import Path
from rich.console import Console
from curbcut.data import Corpus
from curbcut.train import folder
from curbcut.train.session import Silent
from curbcut.train.start import train_run

class Slow(Silent):
    def after_step(self, session, report):
        print(report.step, flush=True)
        time.sleep({pause})

place = Path({place!r})
resolved, forecast = folder.read_plan(place)
done = train_run(resolved, forecast, Corpus.open(Path({corpus!r})), place, Console(quiet=True),
                 extra_observers=(Slow(),))
sys.exit(75 if done.stop.resumable else 0)
"""


def claim(place, corpus, **changes):
    from curbcut.spec import Account, modelled

    run = tiny_run(place.name, steps=24, recipe={"checkpoint_every_steps": 3, **changes})
    promise = Account(seconds={"total": modelled(10.0, 2, "test")})
    folder.claim(place, Resolved(run, {}), promise)
    return place


def start(place, corpus, pause=0.0):
    script = SCRIPT.format(place=str(place), corpus=str(corpus.folder), pause=pause)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True,
                            env=environment)


def final(place):
    newest = max((place / "checkpoints").glob("step-*"))
    return (newest.name,
            hashlib.sha256((newest / "rank-00000.safetensors").read_bytes()).hexdigest(),
            hashlib.sha256((place / "model/model.safetensors").read_bytes()).hexdigest())


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "optimiser"), [
    ("fp32", "adamw"), ("bf16", "adamw"), ("bf16", "muon")])
def test_killed_three_times_ends_with_the_same_weights(tmp_path, tiny_corpus, precision, optimiser):
    recipe = {"precision": precision, "optimiser": optimiser}
    unbroken = claim(tmp_path / "unbroken", tiny_corpus, **recipe)
    assert start(unbroken, tiny_corpus).wait(timeout=120) == 0
    broken = claim(tmp_path / "broken", tiny_corpus, **recipe)
    for kill_at in (5, 11, 20):
        process = start(broken, tiny_corpus, pause=0.02)
        for line in process.stdout:
            if int(line) >= kill_at:
                process.send_signal(signal.SIGKILL)
                break
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert start(broken, tiny_corpus).wait(timeout=120) == 0
    assert final(broken) == final(unbroken)
    steps = [json.loads(line)["body"]["step"]
             for path in sorted((broken / "metrics").glob("*.jsonl"))
             for line in path.read_text().splitlines() if '"kind":"start"' in line]
    assert sorted(steps)[0] == 0
    assert sorted(steps)[-1] >= 18


@pytest.mark.slow
def test_sigterm_saves_and_leaves_with_the_resumable_code(tmp_path, tiny_corpus):
    place = claim(tmp_path / "asked", tiny_corpus)
    process = start(place, tiny_corpus, pause=0.05)
    for line in process.stdout:
        if int(line) >= 4:
            process.terminate()
            break
    assert process.wait(timeout=60) == 75
    account = json.loads((place / "account.json").read_text())
    assert account["resumable"] is True
    assert start(place, tiny_corpus).wait(timeout=120) == 0
    unbroken = claim(tmp_path / "unbroken", tiny_corpus)
    assert start(unbroken, tiny_corpus).wait(timeout=120) == 0
    assert final(place) == final(unbroken)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(tmp_path, tiny_corpus):
    place = claim(tmp_path / "damaged", tiny_corpus)
    process = start(place, tiny_corpus, pause=0.05)
    for line in process.stdout:
        if int(line) >= 8:
            process.kill()
            break
    process.wait(timeout=60)
    newest = max((place / "checkpoints").glob("step-*"))
    victim = newest / "rank-00000.safetensors"
    data = bytearray(victim.read_bytes())
    data[-5] ^= 4
    victim.write_bytes(data)
    assert start(place, tiny_corpus).wait(timeout=120) == 0
    record = "".join(p.read_text() for p in (place / "metrics").glob("*.jsonl"))
    assert "damaged checkpoint" in record
    assert newest.name in record


@pytest.mark.slow
def test_two_trainers_on_one_folder(tmp_path, tiny_corpus):
    place = claim(tmp_path / "shared", tiny_corpus)
    first = start(place, tiny_corpus, pause=300.0)  # at work whenever the second one comes
    assert first.stdout.readline()
    script = SCRIPT.format(place=str(place), corpus=str(tiny_corpus.folder), pause=0)
    second = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    first.kill()
    first.wait()
    assert "RunBusy" in second.stderr

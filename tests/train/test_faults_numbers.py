"""Bad numbers and slow disks: a step that is not sound moves nothing, and no disk slows a step."""

from __future__ import annotations

import json
import math
import shutil
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from curbcut.data import Corpus
from curbcut.data.batches import Batches
from curbcut.errors import CurbcutError, DamagedFile, InputError
from curbcut.ledger.inbox import Writer
from curbcut.train import attempts, checkpoint, loop
from curbcut.train.observers.attempt import Attempt
from curbcut.train.observers.attribution import Attribution
from curbcut.train.observers.checkpointer import Checkpointer
from curbcut.train.observers.recorder import Recorder
from curbcut.train.session import Silent
from tiny import tiny_run


class Bad:
    """The real passes, with `spoil(session, loss)` after those of one step."""

    def __init__(self, session, step, spoil):
        self.session, self.step, self.spoil, self.real = session, step, spoil, session.passes

    def gradients(self, inputs, targets):
        loss = self.real.gradients(inputs, targets)
        return self.spoil(self.session, loss) if self.session.step == self.step else loss

    def nats(self, inputs, targets):
        return self.real.nats(inputs, targets)


def spoil_gradient(value):
    def spoil(session, loss):
        next(iter(session.weights.masters.values())).grad.view(-1)[3] = value
        return loss
    return spoil


class Weights(Silent):
    def __init__(self):
        self.kept = []

    def after_step(self, session, report):
        flat = torch.cat([p.detach().flatten() for p in session.weights.masters.values()])
        self.kept.append((report, flat.clone()))


@pytest.mark.parametrize(("spoil", "what"), [
    (lambda session, loss: math.nan, "the loss is not finite"),
    (lambda session, loss: math.inf, "the loss is not finite"),
    (spoil_gradient(math.nan), "the gradient is not finite"),
    (spoil_gradient(math.inf), "the gradient is not finite")],
    ids=["nan loss", "inf loss", "nan gradient", "inf gradient"])
def test_a_step_that_is_not_finite_moves_nothing_and_is_recorded(opened, tmp_path, spoil, what):
    session, seen = opened(tiny_run(steps=8)), Weights()
    session.passes = Bad(session, 4, spoil)
    writer = Writer(tmp_path, "tiny", "train")
    loop.train(session, [Attribution(), seen, Recorder(writer)])
    (_, before), (report, after), (_, later) = seen.kept[3:6]
    assert report.trouble == what
    assert not report.applied
    assert torch.equal(before, after)
    assert not torch.equal(after, later)
    assert torch.isfinite(later).all()
    assert session.seconds["skipped"] > 0
    lines = [json.loads(line) for line in writer.path.read_text().splitlines()]
    trouble = [line["body"] for line in lines if line["kind"] == "trouble"]
    assert trouble == [{"step": 5, "what": what, "applied": False}]


@pytest.mark.parametrize("policy", ["skip", "record", "stop"])
def test_a_spike_of_ten_times_follows_the_recipe(opened, policy):
    session, seen = opened(tiny_run(steps=60, recipe={"on_spike": policy})), Weights()
    session.recent_losses.extend([5.0] * 50)
    session.passes = Bad(session, 3, lambda session, loss: 50.0)
    if policy == "stop":
        with pytest.raises(CurbcutError, match="recent median"):
            loop.train(session, [seen])
        assert len(seen.kept) == 3
        return
    session.run = tiny_run(steps=5, recipe={"on_spike": policy})
    loop.train(session, [seen])
    report, _ = seen.kept[3]
    assert "recent median" in report.trouble
    assert report.applied == (policy == "record")
    assert 50.0 not in session.recent_losses


def test_a_model_with_fewer_entries_than_the_tokenizer_is_refused_before_it_is_built(opened):
    with pytest.raises(InputError) as told:
        opened(tiny_run(model={"vocab": 260}))
    assert told.value.where == "model.vocab"
    assert "300 entries and the model 260" in told.value.what


def test_a_token_beyond_the_vocabulary_ends_the_run_with_one_clear_error(
        opened, tiny_corpus, tmp_path):
    folder = shutil.copytree(tiny_corpus.folder, tmp_path / "text")
    tokens = np.fromfile(folder / "train.bin", tiny_corpus.manifest["dtype"])
    tokens[tokens.size // 2] = 300
    tokens.tofile(folder / "train.bin")
    session, seen = opened(tiny_run(steps=200)), Weights()
    session.batches = Batches(Corpus.open(folder), 32, 4, 1)
    root = tmp_path / "checkpoints"
    with pytest.raises(DamagedFile) as told:
        loop.train(session, [seen, Checkpointer(root, lambda *_: None, print)])
    assert f"token {tokens.size // 2:,} is 300, and the tokenizer has 300" in told.value.what
    assert told.value.where.endswith("train.bin")
    assert told.value.exit_code == 2
    assert all(torch.isfinite(weights).all() for _, weights in seen.kept)
    # The last good checkpoint stays.
    kept = checkpoint.complete(root)
    assert int(kept[-1].name.removeprefix("step-")) == 2 * (len(seen.kept) // 2)


def test_a_text_that_fills_no_batch_is_refused_by_name(tiny_corpus):
    with pytest.raises(InputError, match="a sequence needs") as told:
        Batches(tiny_corpus, tiny_corpus.train_tokens, 4, 1)
    assert told.value.where == "train.text"


def test_a_batch_of_nothing_is_refused(tiny_corpus):
    with pytest.raises(InputError, match="at least one sequence"):
        Batches(tiny_corpus, 32, 0, 1)
    with pytest.raises(InputError, match="cannot be shared by 3 ranks"):
        Batches(tiny_corpus, 32, 4, 1).batch(0, 0, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_weights_that_are_not_finite_move_nothing_and_end_the_run(opened, tmp_path, value):
    """A flipped bit in a weight makes every step after it unsound: the checkpoint before stays."""
    class Flip(Silent):
        def after_step(self, session, report):
            if report.step == 5:
                with torch.no_grad():
                    next(iter(session.weights.masters.values())).view(-1)[7] = value

    root, seen = tmp_path / "checkpoints", Weights()
    session = opened(tiny_run(steps=60, recipe={"keep_checkpoints": 1}))
    with pytest.raises(CurbcutError, match="diverged: 20 steps in a row"):
        loop.train(session, [seen, Flip(), Checkpointer(root, lambda *_: None, print)])
    assert [report.applied for report, _ in seen.kept] == [True] * 5 + [False] * 20
    kept, = checkpoint.complete(root)
    assert kept.name.endswith("0004")
    whole = torch.cat([one.flatten() for one in load_file(
        kept / "rank-00000.safetensors").values()])
    assert torch.isfinite(whole.float()).all()


def test_an_endless_trouble_stops_the_run_as_diverged(opened, monkeypatch):
    monkeypatch.setattr(loop, "agreed_loss_and_norm", lambda session, loss: (math.nan, 1.0))
    with pytest.raises(CurbcutError, match="diverged"):
        loop.train(opened(tiny_run(steps=100)), [])


def test_a_disk_that_hangs_holds_up_no_step_and_loses_nothing(opened, tmp_path, monkeypatch):
    gate, writer = threading.Event(), Writer(tmp_path, "tiny", "train")
    real = writer.write

    def slow(kind, body=None):
        gate.wait()  # nothing is written until all steps are done
        return real(kind, body)

    monkeypatch.setattr(writer, "write", slow)

    class Open(Silent):
        def finish(self, session):
            assert session.step == 30
            assert writer.path.read_text() == ""
            gate.set()

    loop.train(opened(tiny_run(steps=30)), [Recorder(writer, every_steps=1), Open()])
    lines = [json.loads(line) for line in writer.path.read_text().splitlines()]
    assert [line["body"]["step"] for line in lines if line["kind"] == "step"] == list(range(1, 31))
    assert [line["kind"] for line in lines][-1] == "end"


def test_a_disk_that_hangs_holds_up_no_step_for_the_accounts_either(
        opened, tmp_path, monkeypatch):
    gate, real, written = threading.Event(), attempts.write, []

    def slow(folder, left):
        gate.wait()
        written.append(left.step)
        real(folder, left)

    monkeypatch.setattr(attempts, "write", slow)

    class Open(Silent):
        def finish(self, session):
            assert session.step == 30
            assert not written
            gate.set()

    loop.train(opened(tiny_run(steps=30)), [Open(), Attempt(tmp_path, every_seconds=0.0)])
    # While one waits for the disk, no further ones pile up; the last one is that of the end.
    assert written[-1] == 30
    assert len(written) <= 3
    assert attempts.read(tmp_path).ended


def test_a_long_run_writes_a_bounded_record(opened, tmp_path):
    recorder = Recorder(Writer(tmp_path, "tiny", "train"))
    session = opened(tiny_run(steps=4))
    session.run = tiny_run(steps=2_000_000)
    recorder.start(session)
    assert session.run.steps / recorder.every_steps <= 20_000
    recorder.close()

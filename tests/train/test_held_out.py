from __future__ import annotations

import pytest

from curbcut.evaluate.bits import evaluate
from curbcut.meter.clock import SystemClock
from curbcut.spec import Account
from curbcut.train.held_out import final_stride, held_out
from curbcut.train.session import Stop, open_session
from ranks import alone, spawn
from tiny import tiny_run


def both(world, corpus, run, folder):
    """The glance and the last look of one layout, and the model's own score where it is whole."""
    session = open_session(run, folder, corpus, SystemClock(), Account(), world=world)
    session.model.eval()
    glance = held_out(session)
    session.stop = Stop("ended")
    last = held_out(session)
    tokens = run.recipe.sequence_tokens
    own = (evaluate(session.model, corpus, tokens, stride=final_stride(tokens)).nats_per_token
           if world.alone else None)
    return glance.nats_per_token, last.nats_per_token, last.tokens, last.bytes_, own


@pytest.mark.parametrize("layout", [{"dp_replicate": 2}, {"dp_shard": 2}, {"tp": 2}, {"cp": 2},
                                    {"pp": 2}], ids=str)
def test_every_layout_finds_what_one_process_finds(tiny_corpus, tmp_path, layout):
    run = tiny_run(model={"layers": 2, "kv_heads": 2}, recipe=layout)
    many = spawn(both, run.recipe, tiny_corpus, run, tmp_path)
    one, = spawn(both, alone(run).recipe, tiny_corpus, alone(run), tmp_path)
    assert one[1] == pytest.approx(one[4], rel=1e-6)
    for found in many:
        assert found[:2] == pytest.approx(one[:2], rel=1e-6)
        assert found[2:4] == one[2:4] == (tiny_corpus.validation_tokens,
                                          tiny_corpus.validation_bytes)

"""What ranks do in which order, against the bubble that the plan prices."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
from torch.distributed.pipelining import PipelineStage
from torch.distributed.pipelining.schedules import PipelineScheduleSingle, _PipelineScheduleRuntime

from curbcut.physics.pipeline import bubble_share
from curbcut.train.parallel.schedules import order
from curbcut.train.parallel.stages import holders
from tiny import tiny_run

RECIPE = tiny_run().recipe
SECONDS = {"F": 1.0, "I": 1.0, "W": 1.0, "B": 2.0}
"""Forward, gradients of inputs, of weights, both: as the plan takes them."""


def recipe(kind: str, pp: int, count: int):
    return replace(RECIPE, pp=pp, pipeline=kind, micro_batch=1, global_batch=count,
                   virtual_stages=2 if kind == "interleaved" else 1)


def done(how) -> list[list[list[tuple[str, int, int]]]]:
    """What each rank does, (what, stage, micro-batch), in groups whose results leave together."""
    return [_done(how, rank) for rank in range(how.pp)]


def _done(how, rank):
    held, seen = holders(how), []
    made = []
    for index in (i for i, holder in enumerate(held) if holder == rank):
        stage = mock.create_autospec(PipelineStage, instance=True)
        stage.group_rank, stage.group_size, stage.submod = rank, how.pp, None
        stage.num_stages, stage.stage_index = len(held), index
        stage.is_first, stage.is_last = index == 0, index == len(held) - 1
        for ops in ("fwd_recv", "fwd_send", "bwd_recv", "bwd_send"):
            getattr(stage, f"get_{ops}_ops").return_value = []

        def backward(i, loss=None, full_backward=True, last_backward=False, index=index):
            seen.append(("B" if full_backward else "I", index, i))

        stage.forward_one_chunk.side_effect = (
            lambda i, *_, index=index, **__: seen.append(("F", index, i)))
        stage.backward_one_chunk.side_effect = backward
        stage.backward_weight_one_chunk.side_effect = (
            lambda i, *_, index=index, **__: seen.append(("W", index, i)))
        made.append(stage)
    kind = order(how)
    schedule = kind(made[0] if issubclass(kind, PipelineScheduleSingle) else made, how.accumulation)
    schedule._initialize_stage = schedule._initialize_stages = lambda *_, **__: None
    schedule._step_microbatches()
    return _grouped(seen, schedule, rank)


def _grouped(seen, schedule, rank):
    """A forward pass that overlaps with a backward one hands its result on when both are done."""
    groups, rest = [], iter(seen)
    if not isinstance(schedule, _PipelineScheduleRuntime):
        return [[one] for one in seen]
    for action in schedule.pipeline_order[rank]:
        if action is not None:
            groups.append([next(rest) for _ in action.sub_actions or (action,)])
    assert not list(rest)
    return groups


def seconds(ranks, last: int, pieces: int) -> float:
    """Time of the step when each rank does its list as soon as it has what that needs."""
    at, free, ready = [0] * len(ranks), [0.0] * len(ranks), {}

    def attempt(rank) -> bool:
        now, made = free[rank], {}
        for what, stage, i in ranks[rank][at[rank]]:
            needs = {"F": [("F", stage - 1, i)] * (stage > 0), "W": [("B", stage, i)]}.get(
                what, [("F", stage, i)] + [("B", stage + 1, i)] * (stage < last))
            if any(need not in ready | made for need in needs):
                return False
            now = max([now, *((ready | made)[need] for need in needs)]) + SECONDS[what] / pieces
            made[{"I": "B"}.get(what, what), stage, i] = now
        ready.update(dict.fromkeys(made, now))
        free[rank], at[rank] = now, at[rank] + 1
        return True

    while any(at[rank] < len(ranks[rank]) and attempt(rank) for rank in range(len(ranks))):
        pass
    assert all(done == len(one) for done, one in zip(at, ranks, strict=True)), "ranks wait for ever"
    return max(free)


@pytest.mark.parametrize(("pp", "count"), [(2, 4), (2, 6), (4, 8), (4, 16)])
@pytest.mark.parametrize("kind", ["gpipe", "1f1b", "interleaved", "zero-bubble", "dualpipev"])
def test_the_bubble_is_the_one_that_is_priced(kind, pp, count):
    how = recipe(kind, pp, count)
    stages = len(holders(how))
    idle = seconds(done(how), stages - 1, stages // pp) - 3.0 * count
    assert idle == pytest.approx(3.0 * (pp - 1) * bubble_share(how), rel=1e-6)


@pytest.mark.parametrize("kind", ["gpipe", "1f1b", "interleaved", "zero-bubble", "dualpipev"])
def test_each_micro_batch_passes_each_stage_once_each_way(kind):
    how = recipe(kind, 2, 4)
    for rank, groups in enumerate(done(how)):
        seen = [one for group in groups for one in group]
        mine = [stage for stage, holder in enumerate(holders(how)) if holder == rank]
        every = sorted((stage, i) for stage in mine for i in range(4))
        assert sorted((stage, i) for what, stage, i in seen if what == "F") == every
        assert sorted((stage, i) for what, stage, i in seen if what in "BW") == every


def test_1f1b_takes_fewer_micro_batches_than_stages_as_gpipe_does():
    how = recipe("1f1b", 4, 2)
    assert seconds(done(how), 3, 1) == seconds(done(replace(how, pipeline="gpipe")), 3, 1)

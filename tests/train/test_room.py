from __future__ import annotations

import pytest
import torch

from curbcut.errors import InputError
from curbcut.train.room import levers, or_levers
from tiny import tiny_run


@pytest.mark.parametrize("error", [
    MemoryError(), OSError(12, "Cannot allocate memory"), torch.OutOfMemoryError("CUDA"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 1 bytes")], ids=repr)
def test_every_kind_of_no_memory_is_one_message_with_three_levers(error):
    with pytest.raises(InputError) as told, or_levers(tiny_run()):
        raise error
    assert "memory ran out; the plan is" in told.value.what
    assert told.value.mend.count("; or ") == 2


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a bug"), or_levers(tiny_run()):
        raise RuntimeError("a bug")


def test_memory_that_really_runs_out_is_told():
    with pytest.raises(InputError, match="memory ran out"), or_levers(tiny_run()):
        torch.empty(1 << 50, dtype=torch.uint8)


def test_levers_need_less_and_the_least_comes_first():
    run = tiny_run(recipe={"micro_batch": 4, "attention": "math", "chunked_loss": False})
    found = levers(run)
    assert len(found) == 3
    assert all(one.startswith("recipe.") for one in found)

"""This computer taken as several accelerators: "2xhere"."""

from __future__ import annotations

import pytest

from curbcut.errors import InputError
from curbcut.plan import machines
from curbcut.plan.resolve import resolve
from curbcut.spec.draft import Draft
from tiny import tiny_machine

SHAPE = {"model.layers": 2, "model.width": 32, "model.heads": 2, "model.kv_heads": 1,
         "model.head_size": 16, "model.ffn": 64, "model.vocab": 300, "train.tokens": 65536}


def resolved(**values):
    return resolve(Draft(SHAPE | values, {}), here=tiny_machine(link_bytes_per_second=10**9)).run


@pytest.mark.parametrize("count", [2, 4])
def test_cores_memory_and_rates_are_shared_and_the_link_is_kept(count):
    one, many = tiny_machine(), resolved(**{"machine.name": f"{count}xhere"}).machine
    assert many.accelerators == many.accelerators_per_node == count and many.nodes == 1
    assert many.memory_bytes * count == one.memory_bytes and many.cores == one.cores
    assert many.measured_flops["bf16"] * count == one.measured_flops["bf16"]
    assert many.memory_bytes_per_second["measured"] * count == 1e10
    assert many.watts["typical"] * count == one.watts["typical"]
    assert many.link_bytes_per_second == 10**9 and "share" in many.source


def test_bare_here_is_as_it_was():
    assert machines.from_here(tiny_machine()) == machines.from_here(tiny_machine(), "here")
    assert machines.from_here(tiny_machine())["memory_bytes"] == tiny_machine().memory_bytes
    assert machines.ranks_here("here") == 1 and machines.ranks_here("4xHERE") == 4
    assert machines.ranks_here("8xH100") == 1


def test_plan_lays_one_rank_on_each_and_a_person_may_say_how():
    assert resolved(**{"machine.name": "2xhere"}).recipe.ranks == 2
    said = resolved(**{"machine.name": "4xhere", "recipe.tp": 2}).recipe
    assert (said.tp, said.ranks) == (2, 4)


def test_nodes_each_like_this_computer():
    machine = resolved(**{"machine.name": "4xhere", "machine.nodes": 2}).machine
    assert (machine.nodes, machine.accelerators_per_node, machine.accelerators) == (2, 2, 4)
    assert machine.memory_bytes == tiny_machine().memory_bytes // 2
    with pytest.raises(InputError, match="equal nodes"):
        resolved(**{"machine.name": "3xhere", "machine.nodes": 2})


def test_more_gpus_than_there_are_is_refused():
    gpus = tiny_machine(kind="gpu", accelerators_per_node=4, memory_bytes=2**34)
    assert machines.from_here(gpus, "2xhere")["memory_bytes"] == 2**34
    with pytest.raises(InputError, match="has 4") as told:
        machines.from_here(gpus, "8xhere")
    assert "4xhere" in told.value.mend

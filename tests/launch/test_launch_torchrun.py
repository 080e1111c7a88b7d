"""The same command under torchrun: ranks join its environment, rank 0 plans, all train."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from curbcut.errors import InputError
from curbcut.launch import environment, together
from curbcut.train import folder as run_folders
from launch_text import TOML, write_text

VARIABLES = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
             "MASTER_ADDR": "node0", "MASTER_PORT": "29500", "TORCHELASTIC_RESTART_COUNT": "2"}


def test_seat_is_read_from_the_environment():
    seat = environment.read(VARIABLES)
    assert (seat.rank, seat.size, seat.local_rank, seat.nodes, seat.node) == (1, 4, 1, 2, 0)
    assert seat.attempt == 3 and not seat.main and not seat.leader
    assert environment.read(VARIABLES | {"RANK": "2", "LOCAL_RANK": "0"}).node == 1
    assert environment.read({}) is None
    assert environment.read(VARIABLES | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0",
                                         "LOCAL_WORLD_SIZE": "1"}) is None


@pytest.mark.parametrize("changes, word", [
    ({"MASTER_PORT": ""}, "MASTER_PORT"), ({"RANK": "4"}, "RANK=4"), ({"RANK": "x"}, "'x'"),
    ({"LOCAL_WORLD_SIZE": "3"}, "no place"),
])
def test_half_an_environment_is_refused_with_the_mend(changes, word):
    with pytest.raises(InputError, match=word):
        environment.read(VARIABLES | changes)


def test_node_that_sees_another_folder_is_refused(tmp_path):
    (tmp_path / "run.toml").write_text("a = 1")
    together.see_plan(tmp_path, "a = 1", 0.0)
    for folder, text in ((tmp_path, "a = 2"), (tmp_path / "nowhere", "a = 1")):
        with pytest.raises(InputError, match="does not see") as told:
            together.see_plan(folder, text, 0.0)
        assert "--runs" in told.value.mend


@pytest.fixture
def environ(tmp_path):
    return os.environ | {"CURBCUT_HOME": str(tmp_path / "home"), "CURBCUT_SENSORS": "off",
                         "OMP_NUM_THREADS": "1"}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.slow
def test_command_trains_several_ranks_here_and_the_same_under_torchrun(tmp_path, environ):
    path = tmp_path / "many.toml"
    path.write_text(TOML.format(machine="2xhere", recipe="dp_replicate = 2",
                                text=write_text(tmp_path)))
    here = subprocess.run([sys.executable, "-m", "curbcut", "train", str(path), "--runs",
                           str(tmp_path / "here")], env=environ, capture_output=True, text=True,
                          timeout=200)
    assert here.returncode == 0, here.stdout + here.stderr
    assert "on 2 ranks" in here.stdout
    there = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr",
         "127.0.0.1", "--master-port", str(free_port()), "-m", "curbcut", "train", str(path),
         "--runs", str(tmp_path / "there")], env=environ, capture_output=True, text=True,
        timeout=200)
    assert there.returncode == 0, there.stdout + there.stderr
    for runs in ("here", "there"):
        ending = run_folders.ended(tmp_path / runs / "many")
        assert ending is not None and ending.measured.tokens["trained"].value == 5120
    weights = [(tmp_path / runs / "many" / "model" / "model.safetensors").read_bytes()
               for runs in ("here", "there")]
    assert weights[0] == weights[1]

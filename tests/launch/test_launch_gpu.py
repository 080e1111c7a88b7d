"""The CUDA launch path: fresh processes, one GPU each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from curbcut.train import folder as run_folders
from launch_text import TOML, losses_of, write_text

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("recipe", ["dp_replicate = 2", "dp_shard = 2", "tp = 2"])
def test_two_gpus_train_what_one_does(tmp_path, recipe):
    if torch.cuda.device_count() < 2:
        pytest.skip(f"needs two CUDA devices, torch sees {torch.cuda.device_count()}")
    text, found = write_text(tmp_path), []
    environ = os.environ | {"CURBCUT_HOME": str(tmp_path / "home")}
    for machine, how in (("1xhere", ""), ("2xhere", recipe)):
        path, runs = tmp_path / "many.toml", tmp_path / machine
        path.write_text(TOML.format(machine=machine, recipe=how, text=text))
        done = subprocess.run([sys.executable, "-m", "curbcut", "train", str(path), "--runs",
                               str(runs)], env=environ, capture_output=True, text=True,
                              timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        assert run_folders.ended(runs / "many") is not None
        found.append(losses_of(runs / "many"))
    assert found[0] and found[0].keys() == found[1].keys()
    for step, loss in found[0].items():
        assert found[1][step] == pytest.approx(loss, rel=1e-3)

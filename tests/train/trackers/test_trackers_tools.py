"""What each tool holds of a run that was killed and went on, read back with the tool's own means.

The first attempt tells steps 10, 20, 30 and dies; the second goes on from 20 and ends at 40.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from without import hidden

HERE = Path(__file__).parent
FIRST, SECOND = [[10, 4.0], [20, 3.0], [30, 2.0]], [[30, 2.0], [40, 1.0]]


@pytest.fixture
def held(tmp_path):
    """What a tool holds after the first attempt, and after the second."""
    def hold(tool):
        if hidden(tool) or find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed")
        folder = tmp_path / "runs/mine"
        folder.mkdir(parents=True)
        environment = {name: value for name, value in os.environ.items()
                       if not name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_"))}
        environment |= {"PYTHONPATH": str(HERE.parents[1]), "WANDB_ERROR_REPORTING": "false",
                        "TRACKIO_DIR": str(tmp_path / "trackio"), "CUDA_VISIBLE_DEVICES": "",
                        "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true"}
        done = subprocess.run([sys.executable, str(HERE / "tracked_script.py"), tool, str(folder)],
                              capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return json.loads(next(one for one in done.stdout.splitlines() if one.startswith("{")))
    return hold


def test_wandb_keeps_both_attempts_offline_under_one_id(held):
    found = held("wandb")
    [crashed], [_, done] = found["crashed"], found["done"]
    assert crashed["points"] == FIRST and done["points"] == SECOND
    assert crashed["id"] == done["id"] == found["id"] and done["name"] == "mine"
    assert (crashed["exit"], crashed["summary"]["state"]) == (1, "crashed")
    assert (done["exit"], done["summary"]["state"]) == (0, "done")
    assert done["config"]["model.width"] == 32
    assert done["summary"]["promised/usd.total"] == {"value": 0.5, "low": 0.25, "high": 1.0,
                                                     "basis": "modelled"}
    assert done["summary"]["measured/usd.total"] == 0.25
    assert done["notes"] == ["skipped: loss spike"]


def test_mlflow_goes_on_in_the_same_run(held):
    found = held("mlflow")
    [crashed], [done] = found["crashed"], found["done"]
    assert crashed["status"] == "FAILED" and crashed["points"] == FIRST
    assert done["status"] == "FINISHED" and sorted(done["points"]) == sorted(FIRST + SECOND)
    assert (done["name"], done["tags"]["curbcut.id"]) == ("mine", found["id"])
    assert done["config"]["model.width"] == "32"
    assert done["metrics"]["promised/usd.total"] == 0.5
    assert done["tags"]["promised.usd.total"] == "0.5 (0.25 to 1), modelled"
    assert done["metrics"]["promised/kwh.facility"] == 0.0
    assert done["metrics"]["measured/usd.total"] == 0.25
    assert "gradient_norm" not in done["metrics"]  # it was not a number


def test_tensorboard_forgets_the_steps_that_were_lost(held):
    found = held("tensorboard")
    assert found["crashed"]["points"] == FIRST
    assert found["done"]["points"] == [*FIRST[:2], *SECOND]
    assert found["done"]["scalars"]["promised/usd.total"] == 0.5
    assert found["done"]["scalars"]["measured/usd.total"] == 0.25
    assert "| usd.total | 0.5 | 0.25 to 1 | modelled |" in found["done"]["texts"]["promised"][0]
    assert found["crashed"]["texts"]["state"] == ["crashed: the process that trained is gone"]
    assert found["done"]["texts"]["state"][-1] == "done: all tokens trained"


def test_trackio_goes_on_in_the_same_run(held):
    found = held("trackio")
    [crashed], [done] = found["crashed"], found["done"]
    assert crashed["name"] == done["name"] == found["id"]
    assert [[r["step"], r["loss"]] for r in crashed["rows"] if "loss" in r] == FIRST
    told = [[r["step"], r["loss"]] for r in done["rows"] if "loss" in r]
    assert sorted(told) == sorted(FIRST + SECOND)
    assert done["config"]["promised/usd.total"]["high"] == 1.0
    assert done["rows"][-1]["state"] == "done"
    assert done["rows"][-1]["measured/usd.total"] == 0.25

"""Named failure points: nothing unless armed, and each stands in the code."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import curbcut
from curbcut.errors import UnknownName
from curbcut.train import faults


@pytest.fixture(autouse=True)
def no_faults():
    faults.disarm()
    yield
    faults.disarm()


def test_nothing_happens_unless_armed():
    for point in faults.POINTS:
        faults.reach(point, 0, 1)


def test_a_fault_waits_for_its_rank_step_and_turn():
    seen = []
    faults.arm("step: end", lambda: seen.append("all"))
    faults.arm("step: end", lambda: seen.append("second"), rank=1, step=7, nth=2)
    for rank, step in [(0, 7), (1, 6), (1, 7), (1, 7), (1, 7)]:
        faults.reach("step: end", rank, step)
    assert seen == ["all", "second"]


def test_errors_and_delays():
    faults.arm("step: begin", faults.error(OSError(5, "x")))
    with pytest.raises(OSError):
        faults.reach("step: begin", 0, 0)
    begin = time.monotonic()
    faults.sleep(0.01)()
    assert time.monotonic() - begin >= 0.01


def test_an_unknown_point_or_action_is_refused():
    with pytest.raises(UnknownName, match="save: in shard"):
        faults.arm("save: in shart", faults.kill)
    with pytest.raises(UnknownName, match="kill"):
        faults.arm_from("step: end;kil")


def test_a_new_process_is_armed_by_its_environment():
    code = ("from curbcut.train import faults\n"
            "faults.reach('step: end', 1, 6); faults.reach('step: end', 0, 7); print('alive', "
            "flush=True); faults.reach('step: end', 1, 7); print('not here')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env={"CURBCUT_FAULT": "step: end;kill;1;7"})
    assert (done.returncode, done.stdout) == (-9, "alive\n")


def test_an_os_error_by_number():
    faults.arm_from("step: end;28;;;2")
    faults.reach("step: end", 0, 1)
    with pytest.raises(OSError, match="No space"):
        faults.reach("step: end", 3, 2)


def test_every_point_of_the_table_is_in_the_code_and_the_reverse():
    source = Path(curbcut.__file__).parent
    used = set()
    for path in [*(source / "train").rglob("*.py"), *(source / "launch").rglob("*.py")]:
        if path.name != "faults.py":
            used |= set(re.findall(r'(?:reach|reached|_reach)\(\s*"([^"]+)"', path.read_text()))
    assert used == set(faults.POINTS)

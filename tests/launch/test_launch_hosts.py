"""Two hosts (network namespaces, limited bandwidth) train what one process trains."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from hosts import Hosts, missing
from launch_text import TOML, losses_of, write_text

MBIT = 200


@pytest.mark.slow
def test_two_hosts_under_torchrun_end_with_the_losses_of_one_process(tmp_path):
    if why := missing():
        pytest.skip(f"no two hosts here: {why}")
    text = write_text(tmp_path)
    environ = os.environ | {"CURBCUT_HOME": str(tmp_path / "home"), "CURBCUT_SENSORS": "off",
                            "OMP_NUM_THREADS": "1"}
    one = tmp_path / "one.toml"
    one.write_text(TOML.format(machine="here", recipe="", text=text))
    alone = subprocess.run([sys.executable, "-m", "curbcut", "train", str(one), "--runs",
                            str(tmp_path / "alone")], env=environ, capture_output=True, text=True,
                           timeout=200)
    assert alone.returncode == 0, alone.stdout + alone.stderr
    path = tmp_path / "many.toml"
    path.write_text(TOML.format(machine="2xhere", recipe="dp_replicate = 2", text=text).replace(
        'name = "2xhere"', f'name = "2xhere"\nnodes = 2\nnetwork_bytes_per_second = '
        f'{MBIT * 125_000}'))
    with Hosts(2, MBIT) as hosts:
        started = [subprocess.Popen(hosts.command(
            host, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank",
            str(host), "--nproc-per-node", "1", "--master-addr", hosts.name(0), "--master-port",
            "29517", "-m", "curbcut", "train", str(path), "--runs",
            str(tmp_path / "hosts")), env=environ, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True) for host in range(2)]
        try:
            told = [process.communicate(timeout=250)[0] for process in started]
        finally:
            for process in started:
                process.kill()
    assert [process.returncode for process in started] == [0, 0], "\n".join(told)
    many, single = losses_of(tmp_path / "hosts" / "many"), losses_of(tmp_path / "alone" / "many")
    assert many.keys() == single.keys() and len(many) >= 1
    for step, loss in single.items():
        assert many[step] == pytest.approx(loss, rel=1e-5)

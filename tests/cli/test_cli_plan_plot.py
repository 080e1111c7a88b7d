"""`curbcut plan --plot`: forwards, searched and backwards, each leaves one picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from curbcut.cli.main import main

pytest.importorskip("matplotlib")

RUN = ("--model", "curb-30m", "--on", "8xH100", "--tokens", "500M")


@pytest.mark.parametrize(("arguments", "said"), [
    (RUN, ["on 8xh100-sxm-80gb", "machine: 80.0 GiB", "Money, 90% interval"]),
    ((*RUN, "--search"), ["on 8xh100-sxm-80gb", "Memory of one accelerator"]),
    (("--budget", "200 EUR", "--on", "8xH100,1xA100-80", "--hours", "48"),
     ["Pareto front", "(chosen)", "EUR"])])
def test_a_plan_is_drawn(capsys, tmp_path, arguments, said):
    path = tmp_path / "plan.svg"
    assert main(["plan", *arguments, "--runs", str(tmp_path), "--plot", str(path)]) == 0
    found = " ".join(" ".join("".join(each.itertext()).split()) for each in ET.parse(path).iter(
        "{http://www.w3.org/2000/svg}text"))
    for one in said:
        assert one in found, one
    assert capsys.readouterr().out


def test_a_bad_ending_is_said_before_anything_is_planned(capsys, tmp_path):
    assert main(["plan", *RUN, "--runs", str(tmp_path), "--plot", "plan.pdf"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and ".svg or .png" in err

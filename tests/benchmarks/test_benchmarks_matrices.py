"""The matrices that training and serving are shown by: what they name is there, verdicts right."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from curbcut.train import refusals
from curbcut.train.parallel import build

ROOT = Path(__file__).resolve().parents[2]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


faults, equality = script("faults"), script("equality")
attacks = script("attacks")  # which finds `faults` among the modules


@pytest.mark.parametrize("rows", [faults.FAULTS, attacks.ATTACKS])
def test_every_test_of_a_matrix_exists(rows):
    absent = [one for one in faults.functions(rows, soak=True) if not faults.exists(one)]
    assert absent == []
    assert not faults.exists("tests/test_resume.py::test_nothing")
    assert not faults.exists("tests/test_nothing.py::test_nothing")


def test_the_matrix_has_each_row_once():
    assert [fault.name for fault in faults.FAULTS] == [f"T{n}" for n in range(1, 17)]
    assert [attack.name for attack in attacks.ATTACKS] == [f"S{n}" for n in range(1, 23)]


REPORT = """<testsuites><testsuite>
<testcase classname="tests.a" name="test_x[1]" time="1.5"/>
<testcase classname="tests.a" name="test_x[2]" time="0.5">{}</testcase>
</testsuite></testsuites>"""


@pytest.mark.parametrize(("second", "tests", "said"), [
    ("", ["tests/a.py::test_x"], "pass"),
    ("<skipped/>", ["tests/a.py::test_x"], "pass, 1 skipped"),
    ("<failure/>", ["tests/a.py::test_x"], "FAIL"),
    ("<error/>", ["tests/a.py::test_x"], "FAIL"),
    ("", ["tests/a.py::test_x", "tests/a.py::test_gone"], "FAIL"),
    ("", [], "not run")])
def test_a_row_passes_where_all_of_its_tests_ran_and_passed(tmp_path, second, tests, said):
    report = tmp_path / "report.xml"
    report.write_text(REPORT.format(second))
    (row,) = faults.outcomes([faults.Fault("T0", "", tuple(tests))], report, soak=False)
    assert row.said == said
    assert row.seconds == (2.0 if tests else 0.0)


@pytest.mark.parametrize("method", equality.METHODS, ids=lambda method: method.name)
def test_each_layout_runs_and_each_function_is_there_to_be_taken_away(method):
    run = equality.run_of(method, 10)
    assert refusals.reason(run.model, run.recipe, run.machine) == ""
    for name in method.by:
        module, _, function = name.partition(".")
        assert callable(getattr(getattr(build, module), function))


def test_layouts_are_named_once_and_need_four_ranks_at_most():
    names = [method.name for method in equality.METHODS]
    assert len(set(names)) == len(names)
    assert {equality.run_of(method, 1).recipe.ranks for method in equality.METHODS} == {2, 4}


def test_differences_are_relative_to_the_largest_element():
    from types import SimpleNamespace

    import numpy as np

    one = SimpleNamespace(losses=[2.0, 4.0], gradients=[{"a": np.array([1.0, -10.0])}])
    many = SimpleNamespace(losses=[2.0, 4.2], gradients=[{"a": np.array([1.1, -10.0])}])
    assert equality.differences(many, one) == pytest.approx((0.05, 0.01))
    absent = SimpleNamespace(losses=[2.0, 4.0], gradients=[{}])
    assert equality.differences(absent, one)[1] == float("inf")


@pytest.mark.parametrize(("loss", "gradient", "without", "good"), [
    (1e-7, 1e-6, "bytes", True), (1e-7, 2e-5, "bytes", False), (2e-5, 1e-7, "bytes", False),
    (1e-7, 1e-6, "", False)])
def test_a_layout_is_good_where_it_is_equal_and_missed(loss, gradient, without, good):
    assert equality.Row("x", 2, 10, loss, gradient, without, 1.0).good is good

from __future__ import annotations

import csv
import dataclasses
import io
import types

import pytest

from curbcut.errors import UnknownName
from curbcut.report import methods
from curbcut.report.tables import plain_console
from curbcut.spec import Run, codec
from curbcut.spec.methods import CATALOGUE

TORCH_PARTS = {"torch", "safetensors", "tokenizers", "starlette", "uvicorn", "pyarrow", "jinja2"}


@pytest.fixture
def declare(monkeypatch):
    """Puts declarations in place of those of plan, train and serve."""
    def put(priced=None, train=None, serve=None):
        named = {"x.plan": ("PRICED", priced), "x.train": ("RUNS", train),
                 "x.serve": ("RUNS", serve)}
        modules = {name: types.SimpleNamespace(**{attribute: values})
                   for name, (attribute, values) in named.items() if values is not None}

        def load(name):
            if name not in modules:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return modules[name]

        monkeypatch.setattr(methods, "import_module", load)
        monkeypatch.setattr(methods, "DECLARATIONS",
                            tuple((name, attribute) for name, (attribute, _) in named.items()))
    return put


def standing(name):
    return next(row for row in methods.standings() if row.method.name == name)


def test_planned_and_run_are_what_the_code_declares(declare):
    declare(priced={"compile": "a:b"}, train={"compile": "c:d", "fp8": "e:f"},
            serve={"kv-cache": "g:h"})
    assert standing("compile").finished
    assert (standing("fp8").priced, standing("fp8").runs) == ("", ("e:f",))
    assert not standing("fp8").finished
    assert standing("kv-cache").runs == ("g:h",)
    assert (standing("spot").priced, standing("spot").runs) == ("", ())


def test_rooms_that_declare_nothing_leave_every_method_at_no(declare):
    declare()
    rows = methods.as_plain(methods.standings())
    assert len(rows) == len(CATALOGUE)
    assert not any(row["planned"] or row["runs"] for row in rows)


def test_a_declared_method_that_nobody_knows_is_an_error(declare):
    declare(priced={"comple": "a:b"})
    with pytest.raises(UnknownName, match="'compile'"):
        methods.standings()


def test_a_broken_module_is_not_taken_for_a_missing_one(monkeypatch):
    def load(name):
        raise ModuleNotFoundError("No module named 'inner'", name="inner")

    monkeypatch.setattr(methods, "import_module", load)
    with pytest.raises(ModuleNotFoundError):
        methods.standings()


def test_the_catalogue_has_one_line_a_method_and_a_source_for_each_gain():
    assert len({method.name for method in CATALOGUE}) == len(CATALOGUE)
    for method in CATALOGUE:
        assert method.what and "\n" not in method.what
        assert bool(method.gain) == bool(method.source), method.name


@pytest.mark.parametrize("method", [m for m in CATALOGUE if m.field], ids=lambda m: m.name)
def test_the_field_that_chooses_a_method_is_one_of_the_run(method):
    table, _, leaf = method.field.partition(".")
    assert leaf in {field.name for field in dataclasses.fields(codec.hints(Run)[table])}


@pytest.mark.parametrize(("module", "name"), methods.DECLARATIONS)
def test_every_declared_function_is_there(module, name):
    skipped = []
    for method, path in methods.declared(module, name).items():
        try:
            assert callable(methods.resolve(path)), f"{method}: {path}"
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in TORCH_PARTS:
                raise
            skipped.append(f"{method} needs {error.name}")
    if skipped:
        pytest.skip("; ".join(skipped))


def test_the_table_says_yes_no_gain_and_what_is_unfinished(declare):
    declare(priced={"compile": "a:b"}, train={"compile": "c:d", "fp8": "e:f"})
    out = io.StringIO()
    console = plain_console(out)
    console.width = 80
    methods.print_methods(methods.standings(), console=console)
    lines = out.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert "compile compute yes yes recipe.compile" in [" ".join(x.split()) for x in lines]
    assert "fp8 compute no yes recipe.precision" in [" ".join(x.split()) for x in lines]
    assert lines[-1].startswith(f"1 of {len(CATALOGUE)} methods are planned and run")
    text = " ".join(out.getvalue().split())
    assert "cosine-schedule: learning rate along a cosine: the usual baseline; gain not measured" \
        in text
    assert "[torchtitan" in text


def test_the_methods_as_csv_are_two_tables_with_all_that_is_known(declare):
    declare(priced={"compile": "a:b"}, train={"compile": "c:d"})
    out = io.StringIO()
    methods.print_methods(methods.standings(), "csv", plain_console(out))
    first, second = ([*csv.reader(io.StringIO(block))] for block in out.getvalue().split("\n\n"))
    assert first[:2] == [["Methods"], ["method", "relieves", "planned", "runs", "chosen_by"]]
    assert ["compile", "compute", "true", "true", "recipe.compile"] in first
    assert len(second) == len(first) == len(CATALOGUE) + 2
    assert {row[0]: row[2] for row in second[1:]}["cosine-schedule"] == ""

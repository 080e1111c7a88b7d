"""What the command line says of itself: its verbs, and what a verb needs that is not there."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from curbcut.cli import main as cli


def test_every_verb_has_its_file_and_says_what_it_does(capsys):
    for verb in cli.VERBS:
        assert find_spec(f"curbcut.cli.{verb}"), verb
        with pytest.raises(SystemExit) as left:
            cli.main([verb, "--help"])
        assert left.value.code == 0 and f"curbcut {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(("verb", "package", "extra"), [
    ("ui", "starlette", "ui"), ("ui", "uvicorn", "ui"), ("serve", "starlette", "serve"),
    ("statement", "reportlab", "pdf"), ("keys", "psycopg", "postgres"),
    ("train", "wandb", "wandb"), ("train", "trackio", "trackio")])
def test_what_is_not_installed_says_which_part_brings_it(capsys, monkeypatch, verb, package, extra):
    def missing(_arguments):
        raise ModuleNotFoundError(f"No module named {package!r}", name=f"{package}.inner")

    monkeypatch.setattr(cli, "_dispatch", missing)
    assert cli.main([verb, "ui"]) == 2
    assert f"curbcut[{extra}]" in capsys.readouterr().err


def test_managing_access_starts_without_what_serving_needs():
    heavy = ("torch", "starlette", "sqlalchemy", "tokenizers", "numpy", "rich")
    code = ("import sys\nfrom curbcut.cli.main import main\n"
            "for verb in ('access', 'audit', 'keys'):\n"
            "    try: main([verb, '--help'])\n"
            "    except SystemExit: pass\n"
            f"print([name for name in {heavy!r} if name in sys.modules])")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"

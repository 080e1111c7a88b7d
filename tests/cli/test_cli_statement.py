import json

import pytest

from accounted import IN_MARCH, KWH, MONTH, ledger_at, meter, use
from curbcut.cli.main import main


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with ledger_at(path) as ledger:
        use(ledger, "ann", millijoules=KWH // 4, energy_basis="modelled")
        meter(ledger, "idle", KWH, when=IN_MARCH)
    return path


def ask(path, *words):
    return main(["statement", *words, "--ledger", str(path)])


def test_what_people_read(path, capsys):
    assert ask(path, MONTH, "--organisation", "lab") == 0
    said = capsys.readouterr().out
    assert "organisation:lab, 2026-03" in said and "ann" in said and "250 Wh" in said
    assert "0% measured" in said and "Idle: 100%" in said and "Audit chain" in said


def test_what_programs_read(path, capsys):
    assert ask(path, MONTH, "--project", "thesis", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"]["requests"] == 1 and found["total"]["kwh_measured"] is None
    assert found["total"]["kwh_modelled"] == 0.25 and found["whole"]
    assert found["audit"]["fault"] is None and len(found["audit"]["head"]) == 64


def test_files(path, tmp_path, capsys):
    pytest.importorskip("reportlab", reason="reportlab is absent")
    files = [tmp_path / name for name in ("march.pdf", "march.csv")]
    assert ask(path, MONTH, "--project", "thesis", "--to", str(files[0]), "--to",
               str(files[1])) == 0
    assert files[0].read_bytes().startswith(b"%PDF")
    assert files[1].read_text().startswith("month,scope,line,project,key")
    capsys.readouterr()
    assert ask(path, MONTH, "--project", "thesis", "--format", "csv") == 0
    assert capsys.readouterr().out == files[1].read_text()


@pytest.mark.parametrize(("words", "said"), [
    (("--project", "tesis"), "did you mean 'thesis'"),
    (("--organisation", "lab", "--project", "thesis"), "give one of"),
    (("03-2026", "--project", "thesis"), "no month"),
    (("--project", "thesis", "--to", "x.doc"), "call it x.pdf"),
    (("--project", "thesis", "--to", "/nowhere/at/all/x.csv"), "a folder that is there")])
def test_bad_input_ends_with_2_and_a_mend(path, capsys, words, said):
    assert ask(path, *words) == 2
    assert said in capsys.readouterr().err


def test_the_only_organisation_that_asked_is_meant(path, tmp_path, capsys):
    assert ask(path, MONTH) == 0
    assert capsys.readouterr().out.startswith("organisation:lab, 2026-03")
    assert ask(path, "2026-13") == 2
    assert "no month" in capsys.readouterr().err
    with ledger_at(tmp_path / "idle.sqlite"):
        pass
    assert ask(tmp_path / "idle.sqlite", MONTH) == 2
    assert "there are 2 organisations" in capsys.readouterr().err


def test_without_a_ledger_there_is_no_statement(tmp_path, capsys):
    assert ask(tmp_path / "none.sqlite", MONTH) == 2
    assert "no ledger here yet" in capsys.readouterr().err

import io

import pytest

from curbcut.report import bench
from curbcut.report.tables import show
from curbcut.serve.bench.drive import Found
from curbcut.serve.bench.result import Objective, Sample, result
from curbcut.spec import Account, Estimate, measured


def found(**more):
    samples = [Sample(n, 0.001, n + 1.0, "", 30, 15, 10, **({"counted": "usage", "ttft": 0.2,
                                                             "tpot": 0.05} | more))
               for n in range(4)]
    failed = Sample(1, 0.0, 2.0, "429: busy")
    return Found("m", (result("1 user", samples[:2], Objective(ttft=1), measured(40.0, "gpu")),
                       result("2 users", [*samples, failed], Objective(ttft=1),
                              measured(80.0, "gpu"))), ("a note",))


PLAN = [Account(seconds={"ttft": Estimate(0.1, 0.05, 0.15, "modelled", "x"),
                         "tpot": Estimate(0.05, 0.03, 0.08, "modelled", "x")},
                tokens_per_second={"answers": Estimate(10, 5, 20, "modelled", "x")})] * 2


def told(chosen, *given, **more):
    from rich.console import Console
    out = io.StringIO()
    show(list(bench.tables(*given, **more)), chosen, console=Console(file=out, width=100))
    return " ".join(out.getvalue().split())


def test_people_read_speed_latency_and_the_plan():
    said = told("text", found(), PLAN)
    for piece in ("m under load", "2 users 4 1", "goodput/s", "1 failed at 2 users: 429: busy",
                  "50% of prompt tokens were remembered", "J/token: gpu", "a note",
                  "TTFT 200 ms", "TPOT 50.0 ms", "promised", "OUTSIDE", "inside"):
        assert piece in said, piece


def test_columns_that_say_nothing_are_left_out():
    one = result("1 user", [Sample(0, 0, 1, "", 3, 0, 2, ttft=0.1, tpot=0.1)], Objective())
    said = told("text", Found("m", (one,), ()))
    assert "goodput" not in said and "failed" not in said and "promised" not in said


@pytest.mark.parametrize(("counted", "says"), [("tokenizer", "counted here"),
                                               ("chunks", "taken for tokens")])
def test_where_tokens_were_counted_is_said(counted, says):
    assert says in told("text", found(counted=counted))


def test_a_client_that_was_late_is_said():
    late = result("1 user", [Sample(0, 0.1, 1, "", 3, 0, 2, ttft=0.2, tpot=0.1)], Objective())
    assert "late by 100.0 ms" in told("text", Found("m", (late,), ()))


def test_programs_read_all_of_it():
    plain = bench.as_plain(found(), PLAN, {"asked": {"seed": 1}})
    first = plain["loads"][0]
    assert first["ttft_seconds"]["p99"] == pytest.approx(0.2) and first["goodput"] == 1.0
    assert first["joules_per_token"]["value"] == 2 and plain["asked"] == {"seed": 1}
    assert first["promised"]["seconds"]["ttft"]["high"] == 0.15
    assert "late_seconds" in first and plain["loads"][1]["errors"] == {"429: busy": 1}


def test_a_picture_is_the_same_twice(tmp_path):
    pytest.importorskip("matplotlib")
    from curbcut.report.pictures import bench as picture
    for name in ("a.svg", "b.svg"):
        picture.draw(found(), PLAN, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "plan (mean)" in (tmp_path / "a.svg").read_text()
    picture.draw(found(), [], tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1000

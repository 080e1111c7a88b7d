"""Pictures hold their labels, are the same twice, and are read without colour."""

from __future__ import annotations

import importlib.util
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass, replace

import pytest

from curbcut.errors import InputError, MissingExtra
from curbcut.plan.levers.result import LeverResult, Unit, Waterfall
from curbcut.plan.machines import build, from_facts
from curbcut.plan.shapes import shape
from curbcut.report.pictures import canvas, front, levers, plan
from curbcut.spec import Account, Draft, Estimate, Machine, ModelShape, modelled, unknown

pytest.importorskip("matplotlib")

RUN = {"name": "tiny", "model": {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2,
                                 "head_size": 16, "ffn": 128, "vocab": 512},
       "machine": from_facts("8xH100"), "train": {"tokens": 100_000},
       "recipe": {"sequence_tokens": 128, "micro_batch": 4, "global_batch": 8, "precision": "bf16",
                  "learning_rate": 1e-3}}
ACCOUNT = Account(
    seconds={"total": modelled(5000.0, 1.3, "x"), "steps": modelled(4900.0, 1.3, "x"),
             "data": modelled(0.2, 3.0, "x")},
    memory_bytes={"parameters": modelled(2e10, 1.1, "x"), "activations": modelled(3e10, 1.2, "x"),
                  "novel": modelled(1e9, 1.2, "x"), "peak": modelled(5.1e10, 1.2, "x")},
    kwh={"device": modelled(4.0, 1.3, "x"), "facility": modelled(5.0, 1.3, "x")},
    usd={"total": modelled(31.0, 1.4, "x"), "staff": unknown("not included")},
    kgco2e={"total": unknown("no zone")})


def resolved():
    return Draft().with_raw(RUN, "run.toml").complete()


def waterfall(many: int = 2) -> Waterfall:
    steps, whole = [], 1000.0
    for i in range(many):
        steps.append(LeverResult(
            f"lever-{i}", "data formats", "does", "taken", order=i + 1, before=whole,
            after=0.8 * whole, marginal=Estimate(0.2 * whole, -5.0, 0.3 * whole),
            uncertain=i == 1))
        whole *= 0.8
    return Waterfall("tiny", "training", "a run", "all rent", Unit("usd", "usd", ("usd.total",)),
                     Estimate(1000.0, 700.0, 1500.0), Estimate(whole, 0.5 * whole, 2 * whole),
                     Estimate(1 - whole / 1000, 0.0, 0.9), tuple(steps))


@dataclass
class Choice:
    machine: Machine
    shape: ModelShape
    costs: dict[str, Estimate]
    bits: Estimate


def choices():
    return [Choice(build(from_facts(name)), shape(width, 4, 4096, 512),
                   {"usd": modelled(usd, 1.4, "x"), "seconds": modelled(60 * usd, 1.2, "x")},
                   Estimate(bits))
            for name, width, usd, bits in (("8xH100", 512, 5000.0, 0.7), ("1xA100", 256, 90.0, 0.9),
                                           ("1xH100", 384, 400.0, 0.8))]


def paint(what, path):
    if what == "plan":
        plan.draw(resolved(), ACCOUNT, path)
    elif what == "levers":
        levers.draw([waterfall()], path)
    else:
        found = choices()
        front.draw(found, found[0], path, title="5000 EUR")


def texts(path):
    return [" ".join("".join(each.itertext()).split()) for each in ET.parse(path).iter(
        "{http://www.w3.org/2000/svg}text")]


SAID = {
    "plan": ["tiny: ", "parameters 18.6 GiB", "novel", "machine: 80.0 GiB", "steps: 81.7 min",
             "data: 200 ms", "facility: 5.00 kWh", "total: $31.00", "not known: staff",
             "not known", "peak 47.5 GiB"],
    "levers": ["as planned", "lever-0", "-$200.00 (-20%)", "-$160.00 (-16%)", "with all of these",
               "1.6 times less", "all rent, US dollars"],
    "front": ["5000 EUR", "US dollars", "time", "bits a byte", "(chosen)", "on 1xh100"],
}


@pytest.mark.parametrize("what", SAID)
def test_svg_parses_and_its_words_are_text(tmp_path, what):
    path = tmp_path / "a.svg"
    paint(what, path)
    said = texts(path)
    for one in SAID[what]:
        assert any(one in text for text in said), (one, said)


@pytest.mark.parametrize("what", SAID)
def test_png_is_one_of_300_dots_an_inch(tmp_path, what):
    path = tmp_path / "a.png"
    paint(what, path)
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert width == round(canvas.WIDTH_INCHES * canvas.DOTS_PER_INCH) and height > 500
    place = content.index(b"pHYs") + 4
    assert struct.unpack(">I", content[place:place + 4])[0] == pytest.approx(300 / 0.0254, abs=1)


@pytest.mark.parametrize("ending", canvas.ENDINGS)
def test_the_same_figures_are_the_same_bytes(tmp_path, ending):
    for name in ("a", "b"):
        paint("levers", tmp_path / f"{name}{ending}")
    first = (tmp_path / f"a{ending}").read_bytes()
    assert first == (tmp_path / f"b{ending}").read_bytes()
    assert b"dc:date" not in first and b"Matplotlib" not in first


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.jpeg", ".svg"])
def test_other_endings_name_the_two(tmp_path, name):
    with pytest.raises(InputError, match=r"\.svg or \.png"):
        paint("levers", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        paint("levers", tmp_path / "none" / "a.svg")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *more: None if name == "matplotlib" else found(name, *more))
    with pytest.raises(MissingExtra, match="matplotlib") as error:
        paint("levers", tmp_path / "a.svg")
    assert "curbcut[plot]" in str(error.value)


def test_importing_the_room_imports_no_matplotlib():
    code = ("import sys; from curbcut.report.pictures import canvas, front, levers, plan\n"
            "sys.exit('matplotlib' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_drawing_leaves_matplotlibs_settings_alone(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    paint("plan", tmp_path / "a.svg")
    assert dict(matplotlib.rcParams) == before


def luminance(colour):
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(colour):
    return 1.05 / (luminance(colour) + 0.05)


def test_text_and_lines_stand_out_from_paper():
    assert all(contrast(one) >= 4.5 for one in (canvas.INK, canvas.GREY, canvas.BLUE))
    assert all(contrast(one) >= 3.0 for one in (canvas.VERMILION, canvas.GREEN))


def test_fills_are_told_apart_without_colour():
    assert len(set(canvas.HATCHES)) == len(canvas.HATCHES) >= len(canvas.FILLS)
    assert len(set(canvas.FILLS)) == len(canvas.FILLS)


@pytest.mark.parametrize(("value", "unit", "said"), [
    (1000.0, "usd", "$1,000"), (1e6, "usd", "$1M"), (7e9, "count", "7 B"), (0.0, "usd", "$0"),
    (20 * 2.0**30, "bytes", "20 GiB"), (1e6, "kwh", "1 GWh"), (0.5, "usd", "$0.5"),
    (1e5, "usd", "$100k"), (0.001, "usd", "0.1 ct")])
def test_ticks_are_short(value, unit, said):
    assert canvas.short(value, unit) == said


def test_an_interval_to_zero_is_drawn_from_its_value():
    assert canvas.ends(Estimate(2.0, -1.0, 4.0)) == (2.0, 2.0, 4.0)


def test_a_budgets_plan_has_the_front_below_it(tmp_path):
    plan.draw(resolved(), ACCOUNT, tmp_path / "a.svg", points=choices())
    said = texts(tmp_path / "a.svg")
    for one in ("Pareto front", "107 k on 8xh100-sxm-80gb, $31.00 (chosen)", "on 1xa100", "4:"):
        assert any(one in text for text in said), one
    assert not any("5:" in text for text in said)


def test_what_is_alike_is_drawn_once(tmp_path):
    found = choices()
    front.draw(found, choices()[0], tmp_path / "a.svg")
    said = " ".join(texts(tmp_path / "a.svg"))
    assert "3:" in said and "4:" not in said and said.count("(chosen)") == 1


@pytest.mark.parametrize("what", ["levers", "front", "plan"])
def test_ticks_of_another_currency_are_round_too(tmp_path, what):
    path = tmp_path / "a.svg"
    if what == "levers":
        one = waterfall()
        levers.draw([replace(one, unit=replace(one.unit, currency="EUR"))], path)
    elif what == "front":
        front.draw(choices(), choices()[0], path, currency="EUR")
    else:
        raw = RUN | {"place": {"currency": "EUR"}}
        plan.draw(Draft().with_raw(raw, "run.toml").complete(), ACCOUNT, path)
    ticks = [text for text in texts(path) if re.fullmatch(r"[\d,.k]+ EUR", text)]
    round_ones = [text for text in ticks if re.fullmatch(r"(?:[1-9]\d?0*|0)k? EUR", text.replace(
        ",", ""))]
    assert len(round_ones) >= 2, ticks


def test_no_lever_is_a_picture_too(tmp_path):
    levers.draw([waterfall(0), waterfall(1)], tmp_path / "a.svg")
    said = " ".join(texts(tmp_path / "a.svg"))
    assert "no lever saves anything" in said and "with 1 lever," in said


def test_the_file_is_there_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.svg"
    path.write_text("before")

    def broken(*_, **__):
        raise RuntimeError("while painting")

    monkeypatch.setattr(levers, "_panel", broken)
    with pytest.raises(RuntimeError):
        paint("levers", path)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1

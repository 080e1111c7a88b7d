"""The pages of runs as people meet them, in headless Chromium."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from curbcut import units
from curbcut.ledger.inbox import FOLDER
from curbcut.report import tables
from shown_runs import LONG_NAME

PAGES = {"/": "table.rows tbody tr", "/runs/steady": "#charts figure",
         "/compare": "#overlay figure", "/runs/diverged": "#charts figure",
         "/runs/planned-only": "#config table"}
VIEWS = {"wide": ({"width": 1440}, PAGES),
         "narrow-dark": ({"width": 390, "dark": True}, ["/", "/runs/steady", "/compare"])}


@pytest.mark.parametrize("view", VIEWS)
def test_nobody_is_shut_out(window, tmp_path, view):
    how, paths = VIEWS[view]
    one = window(**how)
    for path in paths:
        page = one.open(path, PAGES[path])
        assert one.faults() == [], path
        picture = tmp_path / f"{path.strip('/').replace('/', '-') or 'runs'}.png"
        page.screenshot(path=picture)
        assert picture.stat().st_size > 15_000  # not an empty page


def test_every_state_is_told(window):
    page = window().open("/", "table.rows tbody tr")
    rows = dict(zip(page.locator("tbody th a").all_inner_texts(),
                    page.locator("tbody .badge").all_inner_texts(), strict=True))
    assert rows == {"steady": "done", "narrow-promise": "done", "under-way": "training",
                    "fell-silent": "crashed", "diverged": "done", LONG_NAME: "stopped",
                    "planned-only": "planned"}
    assert "over $0.40" in page.locator("tr", has_text="narrow-promise").inner_text()


def test_the_table_sorts_filters_and_sends_to_compare(window):
    page = window().open("/", "table.rows tbody tr")
    page.get_by_role("button", name="Money").press("Enter")
    assert page.get_by_role("columnheader", name="Money").get_attribute("aria-sort") == "descending"
    names = page.locator("tbody th a").all_inner_texts()
    assert names[-1] == "planned-only"  # not known comes last, whichever way
    page.get_by_role("button", name="Money").press("Enter")
    assert page.locator("tbody th a").all_inner_texts()[-1] == "planned-only"
    page.get_by_label("done", exact=True).check()
    assert page.locator("tbody tr").count() == 3
    page.get_by_role("searchbox", name="Find").fill("stea")
    assert page.locator("tbody th a").all_inner_texts() == ["steady"]
    page.get_by_role("searchbox").fill("nobody is called so")
    assert "No run fits" in page.locator("tbody").inner_text()
    page.get_by_role("searchbox").fill("")
    for name in ("steady", "narrow-promise"):
        page.get_by_label(f"Choose {name} to compare").check()
    page.get_by_role("link", name="Compare 2 chosen").click()
    page.wait_for_selector("#overlay figure")
    assert page.locator("#list input:checked").count() == 2
    keys = page.locator("#keys").inner_text()
    assert "recipe.learning_rate" in keys and "0.003" in keys and "0.001" in keys


def test_a_run_says_its_promises_first_and_reads_its_charts_aloud(window):
    page = window().open("/runs/steady", "#charts figure")
    assert "<script>alert(1)</script>" in page.locator("blockquote").inner_text()
    headings = page.locator("main h2").all_inner_texts()
    assert headings[0] == "Promised against measured"
    money = page.locator("table.promised tr", has_text="Money").first.inner_text()
    assert "$0.40" in money and "$0.41" in money and "inside" in money
    assert "outside" in page.locator("table.promised tr", has_text="Peak memory").inner_text()
    assert "no sensor" in page.get_by_role("row", name="Energy 11.0 Wh").inner_text()
    loss = page.get_by_role("slider", name="training loss")
    page.wait_for_function("() => document.querySelector('.readout').textContent")
    assert "highest 7" in loss.get_attribute("aria-valuetext")  # one bad step of 400 stays visible
    loss.press("Home")
    assert loss.get_attribute("aria-valuetext").startswith("step 2: 5.")
    loss.press("ArrowRight")
    assert loss.get_attribute("aria-valuetext").startswith("step 4: ")
    loss.press("Escape")
    page.get_by_label("money", exact=True).check()
    page.wait_for_function("() => document.querySelector('.readout').textContent.includes('$')")
    page.get_by_role("button", name="training loss: logarithmic scale").press("Enter")
    for kind, start in (("CSV", b"line,money,training loss (nats/token)\r\nsteady,"),
                        ("a picture", b"\x89PNG")):
        with page.expect_download() as kept:
            page.get_by_role("button", name=f"Save training loss as {kind}").click()
        assert Path(kept.value.path()).read_bytes().startswith(start)
    table = page.locator("figure", has_text="Training loss").get_by_text("As a table")
    table.click()
    page.locator("figure.chart table td").nth(100).wait_for(state="attached")


def test_what_broke_is_seen_to_be_broken(window):
    page = window().open("/runs/diverged", "#charts figure")
    page.wait_for_function("() => document.querySelector('.readout').textContent")
    assert "no number since step 282" in page.locator(".readout").first.inner_text()
    page = window().open("/runs/fell-silent")
    assert "Crashed." in page.locator("#words").inner_text()
    assert "so far" in page.locator("table.promised").first.inner_text()


def test_an_unknown_run_and_an_empty_folder(window, browser, tmp_path):
    one = window()
    page = one.open("/runs/nobody", ".empty")
    assert "No run is called so" in page.locator("main").inner_text()
    assert one.faults() == []
    one.wrong = [said for said in one.wrong if "404" not in said]


def test_what_is_new_comes_by_itself_and_alone(window, added):
    run = added("live-one", began=time.time() - 60, done=40, step_seconds=1.0)
    one = window()
    page = one.open("/runs/live-one", "#charts figure")
    page.wait_for_selector("#live[data-state=live]")
    page.wait_for_timeout(300)
    with page.expect_response(lambda answer: "/api/series" in answer.url) as heard:
        grow(run, 42)
    assert "after=" in heard.value.url
    new = [series for series in heard.value.json()["series"] if series["x"]]
    assert new and all(len(series["x"]) <= 2 and series["append"] for series in new)
    page.wait_for_function("() => document.querySelector('#what').textContent.includes('42 of')")
    page.wait_for_function("() => document.querySelector('.readout').textContent"
                           ".includes('step 42')")


def grow(folder, step):
    """One more line of a process, as it would write it."""
    path = next((folder / FOLDER).glob("*.jsonl"))
    last = json.loads(path.read_text().splitlines()[-1])
    body = {"step": step, "tokens": step * 6500, "loss": 3.21, "step_seconds": 1.0,
            "seconds": {"steps": 1.0 * step}, "gradient_norm": 1.0, "learning_rate": 1e-3}
    line = last | {"sequence": last["sequence"] + 1, "time": time.time(), "kind": "step",
                   "body": body}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def test_a_damaged_record_is_told(window, added):
    run = added("scratched", began=time.time() - 5000, done=40)
    with next((run / FOLDER).glob("*.jsonl")).open("a") as file:
        file.write("no line of ours\n")
    page = window().open("/runs/scratched", "#charts figure")
    page.wait_for_selector("#notes:has-text('1 line of its record cannot be read')")


def test_the_theme_is_chosen_and_kept(window):
    one = window()
    page = one.open("/")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    for _ in range(2):
        page.get_by_role("button", name="Theme").press("Enter")
    assert page.get_by_role("button", name="Theme: dark").count() == 1
    dark = page.evaluate(paper)
    assert dark != light
    one.open("/compare")
    assert page.evaluate(paper) == dark


def test_focus_goes_through_the_page_in_order_and_is_seen(window):
    page = window().open("/", "table.rows tbody tr")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    places = []
    for _ in range(14):
        places.append(page.evaluate("""() => {
            const at = document.activeElement;
            const style = getComputedStyle(at.matches(".switch input") ? at.parentElement : at);
            const found = [...document.querySelectorAll("*")].indexOf(at);
            const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 1;
            return [found, seen ? "" : at.outerHTML];
        }"""))
        page.keyboard.press("Tab")
    assert [at for at, _ in places] == sorted(at for at, _ in places)
    assert [unseen for _, unseen in places if unseen] == []


def test_what_scripts_compute(window):
    page = window().open("/compare", "#overlay figure")
    said_as_the_commands_say_it(page)
    peaks_are_kept(page)
    made = page.evaluate("""Curbcut.csv(["name", "x"], [["=1+1", 2], ['say "a", b', null]])""")
    assert made == "name,x\r\n'=1+1,2\r\n\"say \"\"a\"\", b\",\r\n"  # and no formula


def said_as_the_commands_say_it(page):
    values = [sign * base * 10.0**power for power in range(-9, 16)
              for base in (1.0, 1.523, 4.567, 9.987) for sign in (1, -1)] + [0.0]
    kinds = ["seconds", "bytes", "kwh", "kgco2e", "watts", "count", "joules", "usd", "fraction",
             "litres", "tokens/s", ""]
    said = page.evaluate("([values, kinds]) => kinds.map((kind) => values.map((value) => "
                         "Curbcut.numbers.show(value, kind)))", [values, kinds])
    for kind, texts in zip(kinds, said, strict=True):
        for value, text in zip(values, texts, strict=True):
            assert text == tables.quantity(value, kind), (kind, value)
    assert page.evaluate("Curbcut.numbers.show(null, 'usd')") == "not measured"
    assert page.evaluate("Curbcut.numbers.sig(1234.7, 2)") == units.sig(1234.7, 2)


def peaks_are_kept(page):
    kept = page.evaluate("""() => {
        let seed = 1;
        const chance = () => (seed = seed * 16807 % 2147483647) / 2147483647;
        return [100, 1000, 20011].map((many) => {
            const y = Array.from({length: many}, () => chance() ** 9);
            const x = y.map((_, i) => i);
            const thin = Curbcut.scales.thinned(x, y, 200);
            return [thin.x.length <= 202, Math.max(...thin.y) === Math.max(...y),
                Math.min(...thin.y) === Math.min(...y), thin.x.at(-1) === many - 1,
                thin.x.every((one, i) => !i || one > thin.x[i - 1])];
        });
    }""")
    assert kept == [[True] * 5] * 3

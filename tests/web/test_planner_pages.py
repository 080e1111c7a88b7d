"""The planner, models & keys and the budget as people meet them, in headless Chromium."""

from __future__ import annotations

import sys
import time

import pytest

from access_samples import filled
from chromium import Window, served
from curbcut.ledger import FILE_NAME
from curbcut.web import planner
from curbcut.web.app import build
from curbcut.web.planner import Worker
from curbcut.web.site import Site

PAGES = {"/access": "#entries td", "/budget": "#days svg rect",
         "/planner?money=60+EUR&on=1xA40": "#levers svg rect"}
VIEWS = {"wide": {"width": 1440}, "narrow-dark": {"width": 390, "dark": True}}


QUICKLY = ("import sys; from curbcut.web import planning; "
           "planning.FIRST = {'money': '60 EUR', 'on': '1xA40'}; planning.main()")
"""The planner, but it prices few machines before it is asked."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("accessed")
    filled(folder / FILE_NAME, uses=150, now=time.time() - 60).close()
    site, workers = Site(folder), []

    def worker(runs):
        workers.append(Worker(runs, [sys.executable, "-P", "-c", QUICKLY, str(runs)]))
        return workers[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(planner, "Worker", worker)
        app = build(site, None)
    site.start()
    with served(app) as address:
        yield address
        site.end()
    site.close()
    for one in workers:
        one.close()


@pytest.fixture
def window(browser, address):
    opened = []

    def window(**how):
        opened.append(Window(browser, address, **how))
        return opened[-1]
    yield window
    for one in opened:
        one.__exit__()
    assert [one.wrong + one.outside for one in opened] == [[] for _ in opened]


@pytest.mark.parametrize("view", VIEWS)
def test_nobody_is_shut_out_of_plans_and_keys(window, view):
    one = window(**VIEWS[view])
    for path, seen in PAGES.items():
        one.open(path, seen)
        assert one.faults() == [], path
        text = one.page.locator("main").inner_text()
        assert "NaN" not in text and "undefined" not in text and "null" not in text, path


def test_a_move_of_a_slider_is_answered(window):
    page = window().open("/planner?money=60+EUR&on=1xA40", "#told .lead")
    before = page.locator("#told .lead").inner_text()
    assert before.startswith("60.00 EUR buys")
    page.get_by_role("slider", name="Money, at most").press("ArrowRight")
    page.wait_for_function("words => document.querySelector('#told .lead').textContent !== words",
                           arg=before)
    assert "63.00 EUR buys" in page.locator("#told .lead").inner_text()
    assert "--budget '63 EUR' --on 1xA40" in page.locator("#told pre code").inner_text()
    page.get_by_label("Time, at most", exact=True).first.check()
    figure = page.get_by_role("textbox", name="Time, a figure")
    figure.fill("2 h")
    figure.press("Enter")
    page.wait_for_function("() => new URLSearchParams(location.search).get('hours') === '2 h'")
    assert "binds" in page.locator("#binds tr", has_text="time").inner_text()


def test_a_link_is_read_as_it_was_written(window):
    asked = "?money=2e3+USD&energy=900+kWh&carbon=1.5+kg&on=1xA40&zone=FRA"
    page = window().open(f"/planner{asked}", "#told .lead")
    figures = {name: page.get_by_role("textbox", name=f"{name}, a figure").input_value()
               for name in ("Money", "Energy", "Carbon")}
    assert figures == {"Money": "2,000 USD", "Energy": "900 kWh", "Carbon": "1.5 kg"}
    energy = page.get_by_role("textbox", name="Energy, a figure")
    for typed, read in (("3 kWh", "3 kWh"), ("4k kWh", "4,000 kWh"), ("1,200", "1,200 kWh")):
        energy.fill(typed)
        energy.press("Enter")
        assert energy.input_value() == read
    page.wait_for_function("() => location.search.includes('energy=1200+kWh')")


def test_what_buys_nothing_is_said_in_words(window):
    one = window()
    page = one.open("/planner?money=60+EUR&on=1xA40", "#told .lead")
    figure = page.get_by_role("textbox", name="Money, a figure")
    figure.fill("0.00002")
    figure.press("Enter")
    page.wait_for_selector("#told [role=alert]")
    assert "buys no model" in page.locator("#told").inner_text()
    assert page.locator("#found").is_hidden()
    figure.fill("many")
    figure.press("Enter")
    assert figure.get_attribute("aria-invalid") == "true"
    assert all("400" in text for text in one.wrong)  # Chromium says of each refusal that it was one
    one.wrong.clear()


def test_keys_are_found_and_the_trail_reads_on(window):
    page = window().open("/access", "#entries td")
    assert "The chain is sound" in page.locator("#verdict").inner_text()
    assert page.locator("#keys tbody tr").count() == 4
    page.get_by_role("searchbox", name="Find").fill("robots")
    assert page.locator("#keys tbody th").all_inner_texts()[0].startswith("arm")
    page.get_by_role("searchbox").fill("")
    page.get_by_label("revoked", exact=True).check()
    assert "guest" in page.locator("#keys tbody").inner_text()
    page.get_by_label("a day", exact=True).check()
    page.wait_for_function("() => document.querySelector('#models tbody').children.length > 0")
    assert page.locator("#entries tbody tr").count() == 21


def test_a_budget_tells_its_last_day(window):
    page = window().open("/budget", "#days svg rect")
    robots = page.locator("#budgets tr", has_text="robots").inner_text()
    assert "nothing left" in robots
    assert "lasts the month" in page.locator("#budgets tr", has_text="a month").inner_text()
    page.get_by_label("energy", exact=True).check()
    page.wait_for_selector("figure:has-text('A day: energy') svg rect")
    page.get_by_text("As a table").click()
    page.wait_for_selector("figure tbody tr:nth-child(6)")

"""A run's page as one file, and the shell that it shares with the live pages."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chromium import Window
from curbcut.cli.main import main
from curbcut.web import shell
from curbcut.web.export import page
from curbcut.web.site import Site
from shown_runs import shown_run


@pytest.fixture
def one_run(tmp_path):
    folder = tmp_path / "runs"
    shown_run(folder, "steady", began=time.time() - 900, end="all tokens trained")
    return folder


def test_one_file_shows_the_run_and_asks_nobody(one_run, browser, tmp_path, capsys):
    path = tmp_path / "page.html"
    assert main(["export", "steady", "--to", "html", "--runs", str(one_run), "--out", str(path),
                 "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"path": str(path), "bytes": path.stat().st_size} and said["bytes"] < 2_000_000
    with Window(browser, "file://") as one:
        page = one.open(str(path), "#charts figure")
        assert "8 of 9 measured figures" in page.locator("#promised").inner_text()
        for axis in ("tokens", "hours", "money", "kWh"):
            page.get_by_label(axis, exact=True).check()
        page.wait_for_function("() => document.querySelector('.readout').textContent"
                               ".includes('Wh')")
        assert "highest 7" in page.locator(".readout").first.inner_text()
        assert page.locator("#story tbody tr").count() > 8
        assert "<script>alert(1)</script>" in page.locator("blockquote").inner_text()
        assert one.faults() == [] and one.wrong == [] and one.requests == [f"file://{path}"]


def test_a_saved_page_allows_its_own_scripts_alone(one_run):
    site = Site(one_run)
    site.look()
    text = page(site, "steady", now=0.0)
    site.close()
    assert "1970-01-01 00:00 UTC" in text
    assert not re.search(r'(src|href)="(?!#)', text)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "default-src &#39;none&#39;" in policy and "unsafe-inline&#39;; img" in policy
    assert policy.count("sha256-") == sum(
        one.media_type.startswith("text/javascript") for one in shell.static_files().values())


@pytest.mark.parametrize(("words", "said"), [
    (["stedy", "--to", "html"], "did you mean 'steady'"),
    (["../steady", "--to", "html"], "unknown run"),
    (["steady", "--to", "html", "--type", "bf16"], "a page has no weights"),
    (["steady", "--to", "hf", "--ledger", "x"], "a model is read from its folder"),
    (["steady", "--to", "html", "--out", "."], "a page is one file"),
    (["steady", "--to", "html", "--out", "no/such/place.html"], "no such folder"),
    (["steady", "--to", "html", "--out", "/proc/page.html"], "cannot be written"),
])
def test_bad_words_are_exit_code_2(one_run, capsys, words, said):
    assert main(["export", *words, "--runs", str(one_run)]) == 2
    assert said in capsys.readouterr().err


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=9), st.none() | st.text() | st.lists(st.integers()),
                       max_size=3))
@example({"name": "</script><!-- & -->"})
def test_no_text_ends_its_element(value):
    text = shell.data(value)
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_json_has_no_number_that_is_none():
    with pytest.raises(ValueError, match="JSON"):
        shell.data(float("nan"))


def test_a_page_loads_nothing_from_elsewhere_and_holds_no_script():
    for template in ("runs.html", "compare.html", "run.html"):
        text = shell.render(template, page="/", name="<b>&\"'")
        loaded = re.findall(r'(?:src|href)="([^"]*)"', text)
        assert all(one.startswith(("/", "#")) for one in loaded)
        assert "<b>" not in text and not re.search(r"<script(?![^>]* src=)|<style| on\w+=", text)


def test_scripts_and_styles_ask_nobody_and_end_nothing():
    for name, one in shell.static_files().items():
        text = one.body.decode()
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), name
        assert "innerHTML" not in text and "eval(" not in text and "</script" not in text, name
        assert shell.address(name) == f"/static/{name}?v={one.digest}"

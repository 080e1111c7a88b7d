from __future__ import annotations

import time

import httpx
import pytest
from starlette.testclient import TestClient

from chromium import Window, launched, served
from curbcut.web.app import build
from curbcut.web.site import Site
from shown_runs import shown_folder, shown_run


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def site(runs):
    """Not started: a test looks when it wants to."""
    made = Site(runs)
    yield made
    made.close()


@pytest.fixture
def pages(site):
    """The pages, open to anybody; `get(path)` is what a test asks and 200 what it gets."""
    with TestClient(build(site, None), base_url="http://127.0.0.1:8090") as client:
        yield client


@pytest.fixture
def ask(site, pages):
    """Looks, and asks for JSON."""
    def ask(path, status=200, **query):
        site.look()
        answer = pages.get(path, params=query)
        assert answer.status_code == status, answer.text
        return answer.json()
    return ask


@pytest.fixture(scope="module")
def browser():
    """Chromium for one file of tests; skipped where there is none. Not for longer: it leaves an
    event loop running, beside which other tests could not start their own.
    """
    made, stop = launched()
    yield made
    made.close()
    stop()


@pytest.fixture(scope="session")
def shown(tmp_path_factory):
    """The pages of a folder of runs in every state, live on a port: `(address, folder)`."""
    folder = shown_folder(tmp_path_factory.mktemp("shown"), time.time())
    site = Site(folder)
    site.start()
    with served(build(site, None)) as address:
        yield address, folder
        site.end()
    site.close()


@pytest.fixture
def added(shown):
    """Adds a run to that folder, as `shown_run` has it; back when the pages know of it."""
    address, folder = shown

    def added(name, **how):
        shown_run(folder, name, **how)
        until = time.monotonic() + 60
        while httpx.get(f"{address}/api/runs/{name}").status_code == 404:
            assert time.monotonic() < until, f"{name} was not seen"
            time.sleep(0.05)
        return folder / name
    return added


@pytest.fixture
def window(browser, shown):
    """Opens windows on those pages; what went wrong in one fails the test."""
    opened = []

    def window(**how):
        opened.append(Window(browser, shown[0], **how))
        return opened[-1]
    yield window
    for one in opened:
        one.__exit__()
    assert [one.wrong + one.outside for one in opened] == [[] for _ in opened]

"""Headless Chromium for tests of pages: where it is, what went wrong in a page, what shuts out."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from without import hidden

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
USUAL = ("/usr/bin/chromium", "/snap/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--renderer-process-limit=1"]
PATIENCE = 60_000
"""Milliseconds for whatever is waited for, on a machine that has much else to do."""


def launched():
    """A browser and what stops it; skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    found = found or next((path for path in USUAL if Path(path).exists()), None)
    if found is None or hidden("chromium"):
        pytest.skip("no Chromium on this machine")
    driver = api.sync_playwright().start()
    browser = driver.chromium.launch(executable_path=found, args=ARGUMENTS)
    return browser, driver.stop


@contextmanager
def served(app):
    """Serves an ASGI application on a free port of its own thread; gives its address."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False,
                                           lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


class Window:
    """A page of its own context, which notes all that goes wrong in it."""

    def __init__(self, browser, base, *, width=1440, height=1000, dark=False):
        self.base = base
        self.wrong, self.requests = [], []
        self._context = browser.new_context(viewport={"width": width, "height": height},
                                            color_scheme="dark" if dark else "light",
                                            reduced_motion="reduce")
        self.page = self._context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.on("console", lambda one: one.type in ("error", "warning")
                     and self.wrong.append(one.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda one: (self.wrong.append("a dialog"), one.dismiss()))
        self.page.on("request", lambda one: self.requests.append(one.url))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._context.close()

    def open(self, path, wait="main h1"):
        """Opens a page and waits until `wait` is there and nothing says "Loading"."""
        self.page.goto(self.base + path)
        self.page.wait_for_selector(wait)
        self.page.wait_for_function("() => !document.body.innerText.includes('Loading…')")
        return self.page

    @property
    def outside(self):
        """Requests that left the server."""
        own = (self.base + "/", "data:", "blob:")
        return [one for one in self.requests if not one.startswith(own)]

    def faults(self):
        """What shuts people out of the page as it is now: see `CHECKS`."""
        return self.page.evaluate(CHECKS)


CHECKS = (Path(__file__).parent / "web" / "shut_out.js").read_text()

"""The link in the person's own browser.

The command line of a browser can be read by everybody on the machine, and the link holds the
secret: so the browser is given a file that only the person can read, which leads on to the link.
"""

from __future__ import annotations

import os
import tempfile
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

_LEADS = '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={link}">'


@contextmanager
def leading(link: str, runs: Path) -> Iterator[Path]:
    """A file (mode 0600) that leads to `link`, until the block ends. It stands in the folder of
    runs: a browser in a sandbox reads no temporary folder.
    """
    folder = runs if os.access(runs, os.W_OK) else None
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".open-", suffix=".html",
                                     encoding="utf-8") as file:
        file.write(_LEADS.format(link=escape(link)))
        file.flush()
        yield Path(file.name).resolve()


def open_in_browser(path: Path) -> None:
    """Opens a file in the browser, on a thread: one of text would hold up the pages that it asks
    for.
    """
    threading.Thread(target=webbrowser.open, args=(path.as_uri(),), daemon=True).start()

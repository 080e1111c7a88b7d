"""The browser is led to the link by a file that nobody else can read."""

import stat
import threading

from curbcut.web import opening

LINK = "http://127.0.0.1:8090/?token=a&b"


def test_the_file_is_the_persons_alone_and_goes(tmp_path):
    with opening.leading(LINK, tmp_path) as path:
        assert path.parent == tmp_path and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "url=http://127.0.0.1:8090/?token=a&amp;b" in path.read_text()
    assert not path.exists()


def test_without_a_folder_of_runs_it_stands_elsewhere(tmp_path):
    with opening.leading(LINK, tmp_path / "none") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_command_line_holds_the_secret(tmp_path, monkeypatch):
    given, asked = [], threading.Event()
    monkeypatch.setattr(opening.webbrowser, "open", lambda url: (given.append(url), asked.set()))
    with opening.leading(LINK, tmp_path) as path:
        opening.open_in_browser(path)
        assert asked.wait(20)
    assert given[0].startswith("file://") and "token" not in given[0]

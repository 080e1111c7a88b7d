from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys

import pytest

from curbcut.cli.main import main
from recorded import Recording


@pytest.fixture
def shown(runs):
    """`curbcut ui` in a process of its own: its port and secret."""
    process = subprocess.Popen(
        [sys.executable, "-m", "curbcut", "ui", "--port", "0", "--json", "--runs", str(runs)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=([\w-]+)", json.loads(line)["url"])
    yield process, int(found[1]), found[2]
    if process.poll() is None:
        process.kill()
    process.communicate()


def opened(port, secret, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"Authorization": f"Bearer {secret}"})
    return connection.getresponse()


def news(stream):
    """The next piece of news of any run; None at the end."""
    for line in stream:
        if line.startswith(b"data: ") and (said := json.loads(line[6:]))["more"]:
            return said
    return None


def test_a_stream_says_what_is_new_and_a_signal_ends_it_at_once(runs, shown):
    process, port, secret = shown
    live = Recording(runs, "live").losses([3.0])
    stream = opened(port, secret, "/api/stream")
    first = news(stream)
    assert first["runs"] == ["live"]
    known = json.loads(opened(port, secret, "/api/series?run=live&metric=loss").read())
    live.losses([2.0], 2)
    second = news(stream)
    assert (second["runs"], second["more"]) == (["live"], 1)
    assert second["cursor"] != first["cursor"]
    new = json.loads(opened(port, secret, "/api/series?run=live&metric=loss&after="
                            + known["cursor"]).read())
    assert new["series"][0]["y"] == [2.0]
    rows = json.loads(opened(port, secret, f"/api/runs?after={first['cursor']}").read())["rows"]
    assert [row["loss"] for row in rows] == [2.0]
    process.send_signal(signal.SIGTERM)
    assert news(stream) is None
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")


def test_a_stream_that_knows_all_says_nothing_of_it_again(runs, shown):
    _, port, secret = shown
    live = Recording(runs, "live").losses([3.0])
    cursor = news(opened(port, secret, "/api/stream"))["cursor"]
    later = opened(port, secret, f"/api/stream?after={cursor}")
    live.losses([2.0], 2)
    assert news(later)["cursor"] != cursor


@pytest.mark.parametrize(("arguments", "said"), [
    (("--no-token", "--host", "0.0.0.0"), "--host 127.0.0.1"),
    (("--port", "99999"), "1 to 65535"),
    (("--host", "no.such.host.example"), "address of this machine"),
])
def test_what_the_verb_may_not_be_told(tmp_path, capsys, arguments, said):
    assert main(["ui", "--runs", str(tmp_path), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_file_is_no_folder_of_runs_and_no_ledger(tmp_path, capsys):
    (tmp_path / "file").write_text("not a ledger, but long enough to be read as one, surely")
    for option in ("--runs", "--ledger"):
        assert main(["ui", option, str(tmp_path / "file"), "--port", "0"]) == 2
        assert str(tmp_path / "file") in capsys.readouterr().err

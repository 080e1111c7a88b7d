from __future__ import annotations

import hashlib

import pytest

from curbcut import files


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    files.write_whole(path, "néw")
    assert path.read_text(encoding="utf-8") == "néw"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
def test_when_it_fails_the_old_one_stays_and_nothing_is_left_aside(tmp_path, monkeypatch, failing):
    path = tmp_path / "a.json"
    path.write_text("old")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(failing, full)
    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_hash_is_sha256(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc" * 100_000)
    assert files.sha256_of(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_a_file_can_be_read_by_whom_its_neighbours_can(tmp_path):
    def private(aside):
        aside.unlink()
        aside.touch(mode=0o600)

    files.put_whole(tmp_path / "made", private)
    (tmp_path / "plain").touch()
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode

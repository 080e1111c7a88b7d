"""One process saves: whole and verified, or as it was before."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

from curbcut.errors import InputError
from curbcut.train import checkpoint, faults
from curbcut.train.checkpoint import manifest, shards
from saved import RUN, names, progress, saver, tensors, whole


@pytest.fixture(autouse=True)
def no_faults():
    yield
    faults.disarm()


def test_what_is_saved_is_loaded(tmp_path):
    saver(tmp_path).save(progress(), tensors())
    stored = checkpoint.newest(tmp_path, RUN)
    assert stored.progress == progress()
    assert all(torch.equal(value, tensors()[name]) for name, value in whole(stored).items())
    assert stored.names == sorted(tensors())


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.newest(tmp_path / "nothing", RUN) is None


def test_the_newest_are_kept(tmp_path):
    one = saver(tmp_path)
    for step in (1, 2, 3, 10):
        one.save(progress(step), tensors())
    assert names(tmp_path) == ["step-00000003", "step-00000010"]


def test_an_older_one_is_pruned_only_after_the_new_one_verified(tmp_path, monkeypatch):
    one = saver(tmp_path, keep=1)
    one.save(progress(1), tensors(1))
    monkeypatch.setattr(shards, "check", lambda *_: (_ for _ in ()).throw(
        OSError(errno.EIO, "Input/output error")))
    with pytest.raises(InputError, match="Input/output"):
        one.save(progress(2), tensors(2))
    assert names(tmp_path) == ["step-00000001"]


def test_a_byte_that_the_disk_keeps_wrongly_is_found_at_once(tmp_path, monkeypatch):
    write = os.write

    def wrong(handle, data):
        return write(handle, bytes(data[:-1]) + b"\xee")

    monkeypatch.setattr(os, "write", wrong)
    with pytest.raises(InputError, match=r"gives back other bytes.*rank-00000"):
        saver(tmp_path).save(progress(), tensors())
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "mkdir"])
def test_a_disk_that_refuses_leaves_the_old_one_and_the_next_save_works(
        tmp_path, monkeypatch, call, code):
    one = saver(tmp_path)
    one.save(progress(1), tensors(1))

    def refuse(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        if call in ("write", "fsync"):
            patch.setattr(os, call, refuse)
        else:
            real = getattr(Path, call)
            patch.setattr(Path, call, lambda self, *a, **k: (
                refuse() if ".writing" in self.name else real(self, *a, **k)))
        with pytest.raises(InputError) as caught:
            one.save(progress(2), tensors(2))
    assert caught.value.exit_code == 2
    assert "goes on from step-00000001" in str(caught.value)
    assert names(tmp_path) == ["step-00000001"]
    one.save(progress(3), tensors(3))
    assert checkpoint.newest(tmp_path, RUN).progress.step == 3


def test_too_little_space_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(InputError, match="No space left"):
        saver(tmp_path).save(progress(), tensors())
    assert names(tmp_path) == []


def test_a_small_disk_fills_somewhere_and_the_old_one_stays(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=96k none {disk} 2>/dev/null"):
        pytest.skip("a disk of a known size needs root: not run")
    try:
        root, large = disk / "checkpoints", {"master.a": torch.ones(12_000)}
        saver(root).save(progress(1), large)
        with pytest.raises(InputError, match="No space left"):
            saver(root).save(progress(2), large)
        manifest.free_bytes, real = lambda _: 1 << 40, manifest.free_bytes
        try:  # what free space says may be gone when it is used
            with pytest.raises(InputError, match="No space left"):
                saver(root).save(progress(2), large)
        finally:
            manifest.free_bytes = real
        assert names(root) == ["step-00000001"]
        assert checkpoint.newest(root, RUN).progress.step == 1
    finally:
        os.system(f"umount {disk}")


@pytest.mark.parametrize("point", [p for p in faults.POINTS if p.startswith("save:")])
def test_a_crash_at_any_point_leaves_a_whole_one(tmp_path, point):
    class Killed(BaseException):
        pass

    one = saver(tmp_path, keep=1)
    one.save(progress(1), tensors(1))
    faults.arm(point, faults.error(Killed()))
    with pytest.raises(Killed):
        one.save(progress(2), tensors(2))
    faults.disarm()
    stored = checkpoint.newest(tmp_path, RUN)
    assert stored.progress.step == (2 if point in (
        "save: after rename", "save: in prune", "save: done") else 1)
    expected = tensors(stored.progress.step)
    assert all(torch.equal(value, expected[name]) for name, value in whole(stored).items())
    one.save(progress(3), tensors(3))
    assert names(tmp_path) == ["step-00000003"]


def test_the_same_step_again_replaces_what_lies_there(tmp_path):
    saver(tmp_path).save(progress(1), tensors(1))
    saver(tmp_path).save(progress(1), tensors(2))
    stored = checkpoint.newest(tmp_path, RUN)
    assert torch.equal(whole(stored)["master.a"], tensors(2)["master.a"])
    assert names(tmp_path) == ["step-00000001"]


def test_a_crash_while_one_is_replaced_brings_the_old_one_back(tmp_path):
    saver(tmp_path).save(progress(1), tensors(1))
    (tmp_path / "step-00000001").rename(tmp_path / ".replaced-step-00000001")
    assert checkpoint.newest(tmp_path, RUN).progress.step == 1


def test_in_the_background_what_was_copied_is_what_is_saved(tmp_path, monkeypatch):
    go, write = threading.Event(), shards.write

    def held_up(*args):
        go.wait(10)
        return write(*args)

    monkeypatch.setattr(shards, "write", held_up)
    one, moving = saver(tmp_path), tensors(1)
    writing = one.begin(progress(1), moving, background=True)
    assert not writing.done
    for tensor in moving.values():
        tensor.zero_()
    go.set()
    one.commit(writing)
    assert writing.done
    stored = checkpoint.newest(tmp_path, RUN)
    assert torch.equal(whole(stored)["master.a"], tensors(1)["master.a"])
    assert one.staging_bytes == sum(t.numel() * t.element_size() for t in moving.values())


def test_an_error_in_the_background_is_told_when_it_is_completed(tmp_path):
    faults.arm("save: in shard", faults.error(OSError(errno.EIO, "Input/output error")))
    one = saver(tmp_path)
    writing = one.begin(progress(1), tensors(1), background=True)
    with pytest.raises(InputError, match="Input/output"):
        one.commit(writing)
    assert names(tmp_path) == []


def test_a_fault_of_the_program_is_not_taken_for_one_of_the_disk(tmp_path):
    faults.arm("save: in shard", faults.error(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        saver(tmp_path).save(progress(1), tensors(1))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0,
                    reason="root may write anywhere: not run")
def test_a_folder_without_write_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="could not be written"):
        saver(tmp_path / "checkpoints").save(progress(), tensors())

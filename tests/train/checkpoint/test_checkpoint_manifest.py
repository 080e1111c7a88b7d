"""What is not whole, not of this run or not of this format is refused by name."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curbcut.errors import DamagedFile
from curbcut.train import checkpoint
from curbcut.train.checkpoint import manifest
from saved import RUN, progress, saver, tensors, whole


def two(root):
    saver(root, keep=3).save(progress(1), tensors(1))
    return saver(root, keep=3).save(progress(2), tensors(2))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_is_found_and_the_previous_one_used(tmp_path, seed):
    root = tmp_path / str(seed)
    shutil.rmtree(root, ignore_errors=True)
    newest, chance = two(root), random.Random(seed)
    victim = chance.choice(sorted(newest.iterdir()))
    data = bytearray(victim.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    victim.write_bytes(data)
    said = []
    stored = checkpoint.newest(root, RUN, say=said.append)
    assert stored.progress.step == 1
    assert torch.equal(whole(stored)["master.a"], tensors(1)["master.a"])
    assert "step-00000002" in said[0]


def truncate(folder):
    with (folder / "rank-00000.safetensors").open("r+b") as file:
        file.truncate(100)


def remove_shard(folder):
    (folder / "rank-00000.safetensors").unlink()


def remove_manifest(folder):
    (folder / "manifest.json").unlink()


def change(folder, sealed=True, **fields):
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["manifest"] |= fields
    if sealed:
        content["sha256"] = manifest._digest(content["manifest"])
    path.write_text(json.dumps(content))


HARM = {
    "has 100 bytes": truncate,
    "rank-00000.safetensors: is missing": remove_shard,
    "manifest is missing": remove_manifest,
    "manifest is missing or unreadable": lambda f: (f / "manifest.json").write_text("{"),
    "is of another run": lambda f: change(f, run="b" * 64),
    "has format 3, of a newer version": lambda f: change(f, format=3),
    "has format 1, of an older": lambda f: (f / "manifest.json").write_text('{"format": 1}'),
    "does not match its own sha256": lambda f: change(f, sealed=False, ranks=7),
    "no plain file name": lambda f: change(f, files=[
        {"name": "../../etc/passwd", "bytes": 1, "sha256": "x"}]),
}


@pytest.mark.parametrize("said", HARM)
def test_damage_is_named_and_the_one_before_used(tmp_path, said):
    HARM[said](two(tmp_path))
    told = []
    assert checkpoint.newest(tmp_path, RUN, say=told.append).progress.step == 1
    assert said in told[0] and "trying the one before it" in told[0]


@pytest.mark.parametrize("said", HARM)
def test_where_none_can_be_used_a_run_does_not_start_anew(tmp_path, said):
    HARM[said](saver(tmp_path).save(progress(), tensors()))
    with pytest.raises(DamagedFile, match="no checkpoint of this run can be used") as caught:
        checkpoint.newest(tmp_path, RUN)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_part_that_no_file_holds_is_found(tmp_path):
    folder = saver(tmp_path).save(progress(), tensors())
    other = saver(tmp_path / "other").save(progress(), {"master.a": torch.ones(2)})
    shutil.copy(other / "rank-00000.safetensors", folder / "rank-00000.safetensors")
    facts = json.loads((other / "manifest.json").read_text())["manifest"]["files"]
    change(folder, files=facts)
    stored = checkpoint.newest(tmp_path, RUN)
    with pytest.raises(DamagedFile, match=r"no step\.a"):
        checkpoint.Laid(stored, {})["step.a"]


def test_verify_names_the_file(tmp_path):
    folder = saver(tmp_path).save(progress(), tensors())
    assert checkpoint.verify(folder, RUN).progress == progress()
    truncate(folder)
    with pytest.raises(DamagedFile, match="bytes"):
        checkpoint.verify(folder, RUN)

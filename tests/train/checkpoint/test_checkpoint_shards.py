"""The files are safetensors that other readers understand too."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import load_file

from curbcut.train.checkpoint import shards
from curbcut.train.checkpoint.pieces import Piece, piece_of
from saved import progress, saver, tensors


def held(named):
    return [(piece_of(name, tensor), tensor) for name, tensor in named.items()]


def test_safetensors_reads_what_is_written(tmp_path):
    named = {str(dtype): torch.arange(12).reshape(3, 4).to(dtype) for dtype in shards.DTYPES}
    named["scalar"] = torch.tensor(2.5)
    named["turned"] = torch.randn(5, 3).t()
    facts = shards.write(tmp_path / "file", held(named), lambda _: None)
    data = (tmp_path / "file").read_bytes()
    assert (facts.bytes, facts.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    found = load_file(tmp_path / "file")
    assert sorted(found) == sorted(named)
    for name, tensor in named.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].float(), tensor.float())


@pytest.mark.parametrize("harm", ["first", "last", "longer", "shorter"])
def test_bytes_that_are_not_those_in_memory_are_seen(tmp_path, harm):
    named, path = held({"a": torch.arange(9.0), "b": torch.ones(3)}), tmp_path / "file"
    shards.write(path, named, lambda _: None)
    shards.check(path, named)
    data = bytearray(path.read_bytes())
    if harm in ("first", "last"):
        data[0 if harm == "first" else -1] ^= 1
    path.write_bytes({"longer": data + b"x", "shorter": data[:-1]}.get(harm, data))
    with pytest.raises(OSError, match="other bytes"):
        shards.check(path, named)


def test_an_empty_tensor_takes_no_bytes(tmp_path):
    shards.write(tmp_path / "file", held({"none": torch.empty(0, 4), "one": torch.ones(1)}),
                 lambda _: None)
    assert load_file(tmp_path / "file")["none"].shape == (0, 4)


def test_a_file_that_stands_is_never_written_into(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileExistsError):
        shards.write(tmp_path / "file", held({"a": torch.ones(1)}), lambda _: None)


def test_points_are_reached_half_way_and_before_the_disk_has_it(tmp_path):
    reached = []
    large = {"a": torch.zeros(3 * shards.CHUNK_BYTES, dtype=torch.uint8)}

    def note(point):
        reached.append((point, (tmp_path / "file").stat().st_size))

    shards.write(tmp_path / "file", held(large), note)
    (half, written), (late, all_written) = reached
    assert (half, late) == ("save: in shard", "save: before sync")
    assert 0 < written < all_written == (tmp_path / "file").stat().st_size


def test_a_box_of_a_piece_is_read(tmp_path):
    whole = torch.arange(80).reshape(8, 10)
    piece = Piece("a", (8, 10), (2, 5), (6, 5))
    shards.write(tmp_path / "file", [(piece, whole[2:, 5:])], lambda _: None)
    file = shards.opened(tmp_path / "file")
    assert list(shards.places(file)) == [piece]
    assert torch.equal(shards.read(file, piece, (3, 6), (2, 3)), whole[3:5, 6:9])


def test_torchs_own_distributed_reader_understands_a_checkpoint(tmp_path):
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    folder = saver(tmp_path).save(progress(), tensors())
    into = {name: torch.zeros_like(tensor) for name, tensor in tensors().items()
            if tensor.ndim and tensor.dtype == torch.float32}
    dcp.load(into, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    assert all(torch.equal(value, tensors()[name]) for name, value in into.items())

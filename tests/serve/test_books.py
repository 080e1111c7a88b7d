import json
from pathlib import Path

import pytest

from curbcut.errors import InputError
from curbcut.serve import books
from curbcut.serve.books import book, cache_room, weights_bytes
from curbcut.serve.opening import Way


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def test_a_book_expects_what_the_engine_then_takes(folder):
    for dtype, way in (("auto", Way(max_batch=4)), ("bf16", Way(max_batch=2, dtype="bf16"))):
        one = book(folder, way)
        engine = one.load()
        stats = engine.stats()
        engine.close()
        assert one.context_tokens == engine.context_tokens == 128, dtype
        assert one.bytes_ == pytest.approx(stats.weights_bytes + stats.cache_bytes, rel=0.4)
        assert stats.pages * 16 == way.max_batch * 128 and one.created > 0


def test_the_cache_is_for_usual_requests_within_free_memory(folder, monkeypatch):
    config = config_of(folder) | {"max_position_embeddings": 20_000}
    way, each = Way(max_batch=8), 2 * 2 * 2 * 8 * 4
    assert cache_room(folder, config, way, 0) == (8 * books.USUAL_TOKENS, each)
    assert cache_room(folder, config, Way(max_batch=2), 0)[0] == 20_000  # one whole context
    assert cache_room(folder, config, Way(context_tokens=100), 0)[0] == 800
    assert cache_room(folder, config, Way(cache_tokens=77), 0)[0] == 77
    monkeypatch.setattr(books, "free_bytes", lambda: 1000 * each + 500)
    assert cache_room(folder, config, way, 500)[0] == 500
    with pytest.raises(InputError, match="no room for a cache"):
        cache_room(folder, config, way, 950 * each)


def test_weights_are_counted_at_the_width_they_are_computed_in(folder):
    config, size = config_of(folder), (folder / "model.safetensors").stat().st_size
    assert weights_bytes(folder, config, Way()) == size
    assert weights_bytes(folder, config, Way(dtype="bf16")) == size // 2
    assert weights_bytes(folder, config | {"dtype": "bfloat16"}, Way(dtype="fp32")) == 2 * size


def test_what_is_no_model_is_refused_before_anything_is_loaded(tmp_path):
    for way in (Way(max_batch=0), Way()):
        with pytest.raises(InputError):
            book(tmp_path, way)


def test_another_engine_is_asked_for_nothing_before_it_is_needed():
    assert book(None, Way(engine="http://127.0.0.1:1")).bytes_ == 0
    assert book(Path("/absent"), Way(engine="vllm")).context_tokens == 0

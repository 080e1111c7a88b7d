import shutil
from dataclasses import replace

import pytest

from curbcut.errors import InputError, UnknownName
from curbcut.serve.engine.interface import Asked, Sampling
from curbcut.serve.opening import Way, open_engine
from curbcut.spec.nouns import ServeJob


def answer(engine, prompt=(97, 98), tokens=6):
    """The greedy answer's tokens."""
    import queue
    deltas = queue.SimpleQueue()
    engine.submit(Asked(prompt=prompt, sampling=Sampling(
        max_tokens=tokens, temperature=0.0, ignore_end=True)), deltas.put)
    found = []
    while True:
        delta = deltas.get(timeout=60)
        found += delta.ids
        if delta.finish:
            return found


@pytest.fixture(scope="module")
def plain(folder):
    engine = open_engine(folder, Way())
    found = answer(engine)
    engine.close()
    return found


@pytest.mark.parametrize("way", [
    Way(draft="3"), Way(max_batch=1, context_tokens=64, cache_tokens=64), Way(dtype="fp32"),
    Way(engine="transformers")])
def test_ways_that_change_no_answer(folder, plain, way):
    if way.engine == "transformers":
        pytest.importorskip("transformers", reason="transformers is not installed")
    engine = open_engine(folder, way)
    try:
        assert answer(engine) == plain
        assert engine.context_tokens == (way.context_tokens or 128)
    finally:
        engine.close()


def test_a_small_model_drafts_and_changes_no_answer(folder, plain):
    engine = open_engine(folder, Way(draft=str(folder)))
    try:
        assert answer(engine) == plain and engine.stats().accepted_tokens > 0
    finally:
        engine.close()


@pytest.mark.parametrize(("way", "said"), [
    (Way(max_batch=0), "are none"), (Way(draft="999"), "more than any text allows"),
    (Way(context_tokens=129), "reads 128 tokens at most"),
    (Way(draft="absent"), "neither a number of tokens nor"),
    (Way(engine="transformers", weights="int8"), "only Curbcut's own engine"),
    (Way(engine="http://127.0.0.1:9"), "reach")])
def test_ways_that_cannot_be(folder, way, said):
    with pytest.raises(InputError, match=said) as caught:
        open_engine(folder, way)
    assert caught.value.mend


def test_an_engine_that_nobody_knows_and_a_model_that_is_nowhere(folder):
    with pytest.raises(UnknownName, match="did you mean 'vllm'"):
        open_engine(folder, Way(engine="vlm"))
    with pytest.raises(InputError, match="needs the folder"):
        open_engine(None, Way())


def test_a_tokenizer_larger_than_the_model_is_refused(folder, tmp_path):
    from tokenizers import Tokenizer
    copy = shutil.copytree(folder, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"word{i}" for i in range(50)])
    tokenizer.save(str(copy / "tokenizer.json"))
    with pytest.raises(InputError, match="310 tokens, the model 264"):
        open_engine(copy, Way())


def test_what_a_job_says_of_the_way():
    job = ServeJob(max_batch=3, weight_precision="int4", cache_precision="int8", drafted_tokens=4,
                   chunk_tokens=128)
    assert Way.of(job) == Way(max_batch=3, weights="int4", cache="int8", draft="4",
                              step_tokens=128)
    assert Way.of(replace(job, drafted_tokens=0)).draft == ""
    assert Way.of(ServeJob()) == Way()
